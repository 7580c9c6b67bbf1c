"""What a crash or a failed step leaves in the maps is found and put right, not inherited.

site-a ── gw-a ═══ underlay (IPv4 only) ═══ gw-b ── site-b
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gre_xdp import abi, datapath, errors, reconcile, steps
from gre_xdp.datapath import DataPath
from gre_xdp.netlink import namespaces
from gre_xdp.pins import Pins
from netns_helpers import Gateway, Sites, config_for, ping


class Crash(BaseException):
    """Stands for kill -9: nobody catches it, and nothing is undone."""


def on_maps(gateway: Gateway, function: Callable[[DataPath], object]) -> object:
    """Call a function with the open maps of a gateway."""

    def inside() -> object:
        data_path = DataPath.open_existing(Pins.of_namespace(namespaces.cookie()))
        assert data_path is not None
        try:
            return function(data_path)
        finally:
            data_path.close()

    return gateway.call(inside)


def crash_at(gateway: Gateway, toml: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apply, and die when a function of the steps is called."""

    def die(*_: object, **__: object) -> None:
        raise Crash

    with monkeypatch.context() as patch:
        patch.setattr(reconcile, name, die)
        # kill -9 undoes nothing.
        patch.setattr(reconcile.Step, "inverse", property(die))
        with pytest.raises(Crash):
            gateway.apply(toml)


def test_endpoints_of_former_values_do_not_survive_a_crash(
    bare_sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tunnel whose key changed when the process died takes no packet with the old key after."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a", key="key = 1"))
    crash_at(gateway, config_for("a", key="key = 2"), "sweep", monkeypatch)
    assert len(on_maps(gateway, DataPath.endpoints)) == 4
    gateway.apply(config_for("a", key="key = 2"))
    assert len(on_maps(gateway, DataPath.endpoints)) == 3
    bare_sites.gw_b.apply(config_for("b", key="key = 1"))
    before = gateway.tunnel().counters.rx_packets
    assert ping(bare_sites.site_b, "10.1.0.2", "-W", "1") == 0
    assert gateway.drops()["key_mismatch"] >= 3
    assert gateway.tunnel().counters.rx_packets == before


def test_sources_left_by_a_crash_are_swept(
    bare_sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prefixes that no tunnel allows any more are gone after the next apply."""
    guarded = config_for("a", key='allowed_sources = ["10.2.0.0/16", "2001:db8:b::/48"]')
    gateway = bare_sites.gw_a
    gateway.apply(guarded)
    assert gateway.diff(guarded) == []
    crash_at(gateway, config_for("a"), "sweep", monkeypatch)
    gateway.apply(config_for("a"))
    assert on_maps(gateway, DataPath.sources) == []


def test_undo_gives_a_port_its_program_back(
    bare_sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A port that had lost its place among the targets keeps its program when a step fails."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    interface = next(i for i in gateway.snapshot().interfaces if i.name == "eth0")
    on_maps(gateway, lambda maps: maps.delete_target(interface.ifindex))

    def refuse(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    more = config_for("a").replace("169.254.10.1/30", '169.254.10.1/30", "169.254.99.1/30')
    with monkeypatch.context() as patch:
        patch.setattr(steps.addresses, "add", refuse)
        with pytest.raises(errors.ApplyError):
            gateway.apply(more)
    assert "xdp" in gateway.run(["ip", "link", "show", "eth0"]).stdout
    gateway.apply(config_for("a"))
    assert gateway.diff(config_for("a")) == []


def test_an_address_of_somebody_else_is_not_taken_over(bare_sites: Sites) -> None:
    """An address that a user has put on the device is refused, and stays."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    gateway.run(["ip", "addr", "add", "169.254.77.1/30", "dev", "fra1"])
    more = config_for("a").replace("169.254.10.1/30", '169.254.10.1/30", "169.254.77.1/30')
    with pytest.raises(errors.ForeignError, match=r"169\.254\.77\.1/30"):
        gateway.apply(more)
    assert "169.254.77.1/30" in gateway.run(["ip", "addr", "show", "fra1"]).stdout
    assert gateway.diff(config_for("a")) == []


def test_somebody_elses_device_in_our_group_is_not_ours(bare_sites: Sites) -> None:
    """A group is no proof by itself: the name and the peer have to fit."""
    gateway = bare_sites.gw_a
    gateway.run(["ip", "link", "add", "ua", "type", "veth", "peer", "name", "ub"])
    gateway.run(["ip", "link", "set", "ua", "group", str(47)])
    gateway.apply(config_for("a"))
    gateway.down()
    assert "ua@ub" in gateway.run(["ip", "link"]).stdout


def test_a_source_routed_tunnel_keeps_the_next_hop_it_uses(bare_sites: Sites) -> None:
    """With a rule for the local address, its route's next hop is the one that is kept."""
    gateway = bare_sites.gw_a
    gateway.run(["ip", "route", "add", "192.0.2.254/32", "dev", "eth0", "table", "100"])
    route = ["ip", "route", "add", "198.51.100.7/32", "via"]
    gateway.run([*route, "192.0.2.250", "dev", "eth0"])
    gateway.run([*route, "192.0.2.254", "dev", "eth0", "onlink", "table", "100"])
    gateway.run(["ip", "rule", "add", "from", "192.0.2.1", "lookup", "100"])
    gateway.apply(config_for("a").replace("192.0.2.2", "198.51.100.7"))
    neighbours = gateway.run(["ip", "neigh", "show", "dev", "eth0"]).stdout
    assert "192.0.2.254" in neighbours
    assert "192.0.2.250" not in neighbours


def test_pins_that_are_not_roots_are_not_trusted(bare_sites: Sites) -> None:
    """Where others may write to bpffs, a directory that somebody made first is refused."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    root = Pins.of_namespace(gateway.call(namespaces.cookie)).root
    os.chown(root, 65534, 65534)
    try:
        with pytest.raises(errors.HostError, match="not a directory of root's"):
            gateway.diff(config_for("a"))
    finally:
        os.chown(root, 0, 0)
    assert Path(root).is_dir()


def test_maps_of_an_interrupted_start_are_completed(bare_sites: Sites) -> None:
    """Any part of the pin directories may be missing: diff, apply and down work."""
    gateway = bare_sites.gw_a
    bare_sites.gw_b.apply(config_for("b"))  # so that bpffs is there
    root = Pins.of_namespace(gateway.call(namespaces.cookie))
    root.maps.mkdir(parents=True, mode=0o700)
    assert gateway.diff(config_for("a"))
    gateway.down()
    root.maps.mkdir(parents=True, mode=0o700)
    assert gateway.apply(config_for("a"))
    assert gateway.snapshot().maps[0].name == abi.MAPS[abi.MapIndex.TUNNELS].name


def test_a_link_that_is_unpinned_meanwhile_is_no_error(
    bare_sites: Sites, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever only looks holds no lock: show and scrapes go on while an interface is removed."""
    gateway = bare_sites.gw_a
    gateway.apply(config_for("a"))
    entries = datapath._entries

    def and_one_that_was_there(directory: Path) -> list[Path]:
        gone = [directory / "999999"] if directory.name == "links" else []
        return entries(directory) + gone

    with monkeypatch.context() as patch:
        patch.setattr(datapath, "_entries", and_one_that_was_there)
        assert [tunnel.name for tunnel in gateway.snapshot().tunnels] == ["fra1"]
