"""What is running, read from the pins and the kernel: works without the agent and the config file.

Reads only; counters are sums over CPUs.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from gre_xdp import abi, errors, migration, mtu_probe, overhead, pins, tunnel_maps
from gre_xdp.datapath import DataPath, MapUse
from gre_xdp.memory import Memory
from gre_xdp.netlink import Netlink, namespaces, routes
from gre_xdp.netlink.links import Link, list_links
from gre_xdp.netlink.neighbours import Neighbour, list_neighbours
from gre_xdp.reasons import DROP_REASONS, PASS_REASONS, Reason
from gre_xdp.resources import TunnelEntry
from gre_xdp.tunnel_maps import Placed

# A tunnel's states, best first; every one but "up" says what to look at.
UP = "up"
NO_NEIGHBOUR = "no_neighbour"
NO_ROUTE = "no_route"
NO_LOCAL = "no_local"
DOWN = "down"
PENDING = "pending"

# A probe's answer that nobody has renewed for so long says nothing any more.
PROBE_VALID_S = 4 * mtu_probe.INTERVAL_S


@dataclass(frozen=True, slots=True)
class TunnelStatus:
    """One tunnel; MTU in bytes, MSS in bytes of TCP payload by inner family."""

    name: str
    local: routes.Address
    remote: routes.Address
    ikey: int | None
    okey: int | None
    backing: str
    device: str
    ifindex: int | None
    mtu: int
    path_mtu: int | None  # of the underlay in bytes, as routers have said; None: nothing said
    mss_ipv4: int
    mss_ipv6: int
    state: str
    probe_mtu: int | None  # longest IPv6 packet that came back, in bytes, 0: none; None: not probed
    counters: abi.Counters

    def as_dict(self, *, with_counters: bool) -> dict[str, object]:
        """The shape that ``show tunnels --json`` prints."""
        found: dict[str, object] = {
            "name": self.name,
            "local": str(self.local),
            "remote": str(self.remote),
            "ikey": self.ikey,
            "okey": self.okey,
            "backing": self.backing,
            "device": self.device,
            "ifindex": self.ifindex,
            "mtu": self.mtu,
            "path_mtu": self.path_mtu,
            "mss": {"ipv4": self.mss_ipv4, "ipv6": self.mss_ipv6},
            "state": self.state,
            "probe_mtu": self.probe_mtu,
        }
        if with_counters:
            found |= {
                "rx_packets": self.counters.rx_packets,
                "rx_bytes": self.counters.rx_bytes,
                "tx_packets": self.counters.tx_packets,
                "tx_bytes": self.counters.tx_bytes,
            }
        return found


@dataclass(frozen=True, slots=True)
class InterfaceStatus:
    """One interface that runs the port program."""

    name: str
    ifindex: int
    mode: str
    program_id: int
    link_pinned: bool
    driver: str
    redirect_failures: int

    def as_dict(self) -> dict[str, object]:
        """The shape that ``show interfaces --json`` prints."""
        return {
            "name": self.name,
            "ifindex": self.ifindex,
            "mode": self.mode,
            "program_id": self.program_id,
            "link_pinned": self.link_pinned,
            "driver": self.driver,
            "redirect_failures": self.redirect_failures,
        }


@dataclass(frozen=True, slots=True)
class ReasonCount:
    """How often a reason was met."""

    reason: Reason
    count: int

    def as_dict(self) -> dict[str, object]:
        """The shape that ``show drops --json`` prints."""
        return {
            "code": self.reason.code,
            "reason": self.reason.name,
            "count": self.count,
            "meaning": self.reason.meaning,
            "remedy": self.reason.remedy,
        }


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that ``show`` and the metrics tell, read in one go."""

    tunnels: list[TunnelStatus]
    interfaces: list[InterfaceStatus]
    drops: list[ReasonCount]
    passes: list[ReasonCount]
    maps: list[MapUse]
    unknown_gre: str
    digest: str | None
    waiting: dict[str, str]  # what of the configuration is not in the kernel, and why

    def as_dict(self) -> dict[str, object]:
        """The shape that ``show status --json`` prints."""
        return {
            "tunnels": len(self.tunnels),
            "tunnels_up": sum(tunnel.state == UP for tunnel in self.tunnels),
            "interfaces": [interface.name for interface in self.interfaces],
            "rx_packets": sum(tunnel.counters.rx_packets for tunnel in self.tunnels),
            "tx_packets": sum(tunnel.counters.tx_packets for tunnel in self.tunnels),
            "drops": sum(count.count for count in self.drops),
            "passes": sum(count.count for count in self.passes),
            "unknown_gre": self.unknown_gre,
            "waiting": [{"object": what, "why": why} for what, why in self.waiting.items()],
            "programs": self.digest,
        }


def snapshot() -> Snapshot:
    """Read the current network namespace.

    Raises ``NotAppliedError`` where there is no data plane, ``PrivilegeError`` where pins may not
    be opened.
    """
    with _open() as (data_path, netlink):
        links = list_links(netlink)
        by_index = {link.index: link for link in links.values()}
        neighbours = {
            (neighbour.ifindex, neighbour.address): neighbour
            for neighbour in list_neighbours(netlink)
        }
        interfaces = _interfaces(data_path, by_index)
        ports = {interface.ifindex for interface in interfaces}
        memory = Memory.of_namespace(namespaces.cookie())
        placement = tunnel_maps.read(data_path, links).by_name.values()
        ends = [(placed.entry.local, placed.entry.remote) for placed in placement]
        network = _Network(links, by_index, routes.paths(netlink, ends), neighbours, ports)
        tunnels = [_tunnel(data_path, placed, network, memory.probes) for placed in placement]
        digests = data_path.pinned_digests()
        return Snapshot(
            tunnels=sorted(tunnels, key=lambda tunnel: tunnel.name),
            interfaces=sorted(interfaces, key=lambda interface: interface.name),
            drops=[ReasonCount(r, data_path.reason_count(r.code)) for r in DROP_REASONS],
            passes=[ReasonCount(r, data_path.reason_count(r.code)) for r in PASS_REASONS],
            maps=data_path.map_uses(),
            unknown_gre=data_path.unknown_gre(),
            digest=digests[0] if digests else None,
            waiting=memory.waiting,
        )


@contextlib.contextmanager
def _open() -> Iterator[tuple[DataPath, Netlink]]:
    try:
        pins.require_shared_mounts()
        data_path = DataPath.open_existing(pins.Pins.of_namespace(namespaces.cookie()))
    except PermissionError as error:
        raise errors.PrivilegeError(
            f"reading the pinned maps: {error.strerror}",
            remedy="run it as root, for instance with sudo",
        ) from error
    if data_path is None or not data_path.is_complete:
        if data_path is not None:
            data_path.close()
        if os.geteuid() != 0:
            raise errors.PrivilegeError(
                "only root can look whether gre-xdp runs here",
                remedy="run it as root, for instance with sudo",
            )
        others = migration.find(pins.Pins.of_namespace(namespaces.cookie()))
        if others:
            raise errors.NotAppliedError(
                f"layout v{others[0].version} of another gre-xdp version runs here",
                remedy="gre-xdp apply takes over from it; or ask with that version",
                where=str(others[0].pins.root),
            )
        raise errors.NotAppliedError(
            "gre-xdp is not applied in this network namespace", remedy="gre-xdp apply"
        )
    try:
        with Netlink() as netlink:
            yield data_path, netlink
    finally:
        data_path.close()


def _interfaces(data_path: DataPath, links: dict[int, Link]) -> list[InterfaceStatus]:
    attached = {link.ifindex: link for link in data_path.links()}
    found = []
    for ifindex, device in data_path.devices().items():
        # A VLAN's frames meet the program where they are tagged.
        carrier = links.get(device.trunk or ifindex)
        attachment = attached.get(device.trunk or ifindex)
        is_port = device.role == abi.DeviceRole.PORT and ifindex in links
        if not is_port or carrier is None or attachment is None:
            continue
        found.append(
            InterfaceStatus(
                name=links[ifindex].name,
                ifindex=ifindex,
                mode=carrier.xdp_mode or "none",
                program_id=attachment.program_id,
                link_pinned=True,
                driver=carrier.kind or "physical",
                redirect_failures=_redirect_failures(carrier),
            )
        )
    return found


def _redirect_failures(link: Link) -> int:
    """Frames that XDP redirected and that were lost, as far as device statistics tell.

    Drivers count them where they are to be sent; a veth that refuses them, where they came in.
    """
    return link.tx_dropped + (link.rx_dropped if link.kind == "veth" else 0)


@dataclass(frozen=True, slots=True)
class _Network:
    """What a tunnel's state depends on."""

    links: dict[str, Link]
    by_index: dict[int, Link]
    paths: routes.Paths
    neighbours: dict[tuple[int, routes.Address], Neighbour]
    ports: set[int]


def _tunnel(
    data_path: DataPath, placed: Placed, network: _Network, probes: dict[str, tuple[int, float]]
) -> TunnelStatus:
    entry = placed.entry
    device = network.links.get(entry.device)
    state = _state(entry, device, network)
    probe_mtu = None
    if entry.name in probes:
        probe_mtu, at_s = probes[entry.name]
        # RFC 7676 section 3.2: it is up when it is known to carry IPv6.
        if state == UP and time.time() - at_s > PROBE_VALID_S:
            state, probe_mtu = PENDING, None
        elif state == UP and probe_mtu < mtu_probe.REQUIRED_BYTES:
            state = DOWN
    return TunnelStatus(
        name=entry.name,
        local=entry.local,
        remote=entry.remote,
        ikey=entry.ikey,
        okey=entry.okey,
        backing="veth",
        device=entry.device,
        ifindex=device.index if device else None,
        mtu=entry.mtu,
        path_mtu=None if entry.device_mtu is None else entry.mtu + overhead.overhead_bytes(entry),
        mss_ipv4=entry.mss_ipv4 or overhead.mss(entry.mtu, 4),
        mss_ipv6=entry.mss_ipv6 or overhead.mss(entry.mtu, 6),
        state=state,
        probe_mtu=probe_mtu,
        counters=data_path.tunnel_counters(placed.id),
    )


def _state(entry: TunnelEntry, device: Link | None, network: _Network) -> str:
    if device is None or not entry.is_bound:
        return PENDING
    path = network.paths.between[entry.local, entry.remote]
    egress = network.by_index.get(path.ifindex) if path else None
    neighbour = network.neighbours.get((path.ifindex, path.next_hop)) if path else None
    wrong = {
        DOWN: not device.is_up or (egress is not None and not egress.is_up),
        NO_LOCAL: entry.local not in network.paths.own,
        NO_ROUTE: egress is None or egress.index not in network.ports,
        NO_NEIGHBOUR: not (egress and egress.is_noarp)
        and not (neighbour and neighbour.is_resolved),
    }
    return next((state for state, is_so in wrong.items() if is_so), UP)
