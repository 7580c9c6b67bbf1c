"""Any valid configuration after any other, whatever somebody does in between: it converges.

site-a ── gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b        (only gw-a is configured)
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from gre_xdp import config, reconcile
from gre_xdp.datapath import DataPath
from gre_xdp.lab.lab import topology
from gre_xdp.model import Config
from gre_xdp.netlink import namespaces
from gre_xdp.pins import Pins
from netns_helpers import Gateway, Sites

NAMES = ("fra1", "fra2", "ams1", "lon1")
# Each tunnel has its own of these, so that none contradicts another.
PLACES = {name: number for number, name in enumerate(NAMES, 10)}
SHARED = "pop0"

_options = st.fixed_dictionaries(
    {},
    optional={
        "ikey": st.sampled_from([0, 7]),
        "okey": st.sampled_from([0, 4294967295]),
        "csum": st.booleans(),
        "seq": st.booleans(),
        "ttl": st.sampled_from([1, 64, "inherit"]),
        "tos": st.sampled_from([0, 16, "inherit"]),
        "mtu": st.sampled_from([1300, 1400, "auto"]),
        "pmtudisc": st.booleans(),
        "mss_clamp": st.sampled_from([True, False, 1200]),
        "allowed_sources": st.sampled_from([[], ["10.2.0.0/16"], ["10.2.0.0/16", "fd00::/8"]]),
    },
)


@st.composite
def tunnels(draw: st.DrawFn, name: str) -> dict[str, Any]:
    """One tunnel of any kind."""
    place = PLACES[name]
    found = draw(_options) | {
        "name": name,
        "local": "192.0.2.1",
        "remote": f"192.0.2.{draw(st.sampled_from([place, place + 100]))}",
        "routes": [f"10.{place}.0.0/16", f"2001:db8:{place}::/48"][: draw(st.integers(0, 2))],
        "addresses": [f"169.254.{place}.1/30"] if draw(st.booleans()) else [],
    }
    kind = draw(st.sampled_from(["own", "shared", "ethernet"]))
    if kind == "shared":
        found |= {"device": SHARED, "nexthop": [f"100.64.0.{place}", f"fd00:64::{place}"]}
    elif kind == "ethernet":
        found["payload"] = "ethernet"
        found.pop("allowed_sources", None)
    return found


@st.composite
def configurations(draw: st.DrawFn) -> Config:
    """Some of the tunnels, on the underlay, sometimes with a LAN and one that is yet to come."""
    names = draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True))
    extra = draw(st.lists(st.sampled_from(["eth1", "eth7"]), unique=True))
    return Config.model_validate(
        {
            "exporter": "",
            "interface": [{"name": name} for name in ("eth0", *extra)],
            "tunnel": [draw(tunnels(name)) for name in names],
        }
    )


# What somebody may do to a gateway between two applies, in words of ``ip``.
MEDDLING = (
    "link del {device}",
    "link set {device} down",
    "link set {device} mtu 1290",
    "link set {device} down name stolen",
    "link set {inner} down",
    "addr flush dev {device}",
    "route flush proto 47",
    "-6 route flush proto 47",
    "neigh flush all",
)


def lose_an_endpoint(data_path: DataPath) -> None:
    """Somebody deletes a map entry."""
    for key in list(data_path.endpoints())[:1]:
        data_path.delete_endpoint(key)


def lose_a_device(data_path: DataPath) -> None:
    """And another."""
    for ifindex in list(data_path.devices())[:1]:
        data_path.delete_device(ifindex)


def lose_targets(data_path: DataPath) -> None:
    """And all of a map."""
    for ifindex in data_path.targets():
        data_path.delete_target(ifindex)


def lose_programs(data_path: DataPath) -> None:
    """The programs run on, and their pins are gone."""
    data_path.prune_programs("")


LOSSES = (lose_an_endpoint, lose_a_device, lose_targets, lose_programs)


_network: list[Sites] = []


class AnySequence(RuleBasedStateMachine):
    """A gateway from any state to any configuration."""

    def __init__(self) -> None:
        super().__init__()
        self.gateway: Gateway = _network[0].gw_a
        self.config: Config | None = None
        self.counted: dict[str, int] = {}

    @initialize()
    def start(self) -> None:
        """From a host that has nothing of ours."""
        self.gateway.down()

    @rule(wanted=configurations())
    def apply(self, wanted: Config) -> None:
        """Another configuration, or the same."""
        toml = config.dump(wanted)
        self.gateway.apply(toml)
        self.config = wanted
        assert self.gateway.diff(toml) == []
        found = {tunnel.name: tunnel for tunnel in self.gateway.snapshot().tunnels}
        assert found.keys() == {tunnel.name for tunnel in wanted.tunnels}
        for tunnel in wanted.tunnels:
            status = found[tunnel.name]
            assert (status.local, status.remote) == (tunnel.local, tunnel.remote)
            assert (status.ikey, status.okey) == (tunnel.ikey, tunnel.okey)
            assert status.device == tunnel.device_name
            if tunnel.mtu != "auto" and tunnel.device is None:
                assert status.mtu == tunnel.mtu
        counted = {name: status.counters.tx_packets for name, status in found.items()}
        kept = counted.keys() & self.counted.keys()
        assert all(counted[name] >= self.counted[name] for name in kept)
        self.counted = counted
        devices = {tunnel.device_name for tunnel in wanted.tunnels}
        assert self.devices() == {"lo", "eth0", "eth1"} | devices | {f"gx-{d}" for d in devices}

    @precondition(lambda self: self.config is not None)
    @rule(words=st.sampled_from(MEDDLING), number=st.integers(0, 3))
    def meddle(self, words: str, number: int) -> None:
        """Somebody does something to one of the devices."""
        assert self.config is not None
        tunnel = self.config.tunnels[number % len(self.config.tunnels)]
        device = tunnel.device_name
        command = words.format(device=device, inner=f"gx-{device}").split()
        # What an earlier one has taken away can no longer be changed.
        self.gateway.run(["ip", *command], check=False)

    @precondition(lambda self: self.config is not None)
    @rule(lose=st.sampled_from(LOSSES))
    def lose(self, lose: Callable[[DataPath], None]) -> None:
        """Somebody deletes something of the maps."""

        def inside() -> None:
            data_path = DataPath.open_existing(Pins.of_namespace(namespaces.cookie()))
            assert data_path is not None
            try:
                lose(data_path)
            finally:
                data_path.close()

        self.gateway.call(inside)
        # A tunnel that the maps no longer know begins to count anew.
        self.counted = {}

    @rule()
    def down(self) -> None:
        """Everything goes."""
        self.gateway.down()
        self.config, self.counted = None, {}
        assert self.gateway.down() == []
        assert self.devices() == {"lo", "eth0", "eth1"}

    @invariant()
    def nothing_of_others_is_lost(self) -> None:
        """The underlay's own address and route are none of our business."""
        routes = self.gateway.run(["ip", "route", "show", "dev", "eth0"]).stdout
        assert "192.0.2.0/24 proto kernel" in routes

    def devices(self) -> set[str]:
        """The names of all devices."""
        return {
            link["ifname"] for link in json.loads(self.gateway.run(["ip", "-j", "link"]).stdout)
        }


@contextmanager
def network() -> Iterator[None]:
    """One network for all examples: making one costs more than trying it."""
    with topology(f"gxany{os.getpid() % 100000}", uml=False) as built:
        sites = Sites(built)
        _network.append(sites)
        try:
            yield
        finally:
            _network.clear()
            sites.gw_a.down()


def test_any_sequence_of_configurations_converges(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last plan is always empty, and the kernel holds what was asked for, and no more."""
    # The remotes are nobody: no next hop will answer.
    monkeypatch.setattr(reconcile, "_SETTLE_S", 0.0)
    machine = AnySequence.TestCase
    machine.settings = settings(
        max_examples=20,
        stateful_step_count=8,
        deadline=None,
        # A real kernel takes its time, and configurations are large.
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    with network():
        machine().runTest()
