"""From the configuration and the host's facts to the state that should be. Pure.

What must be refused is refused on the way, by ``preflight``: an interface or a tunnel at a time, so
that one that does not fit is no reason to lose the others. What waits for an interface is pending.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from gre_xdp import errors, overhead, preflight, underlay
from gre_xdp.host import Host
from gre_xdp.memory import Memory
from gre_xdp.model import Config, Interface, Tunnel
from gre_xdp.netlink.routes import GATEWAY, Path
from gre_xdp.overhead import IPV6_MIN_MTU
from gre_xdp.resources import (
    Attachment,
    DataPlane,
    NextHop,
    Policy,
    Port,
    Resource,
    State,
    Sysctl,
    Target,
    TunnelAddress,
    TunnelDevice,
    TunnelEntry,
    TunnelRoute,
    inner_name,
    state,
)
from gre_xdp.values import IPAddress, IPNetwork

# Assumed for a remote that has no route yet, so that its tunnel can exist and wait.
_DEFAULT_UNDERLAY_MTU = 1500


@dataclass(frozen=True, slots=True)
class Refusal:
    """An interface or a tunnel that does not fit this host, and the devices it has to do with."""

    error: errors.GreXdpError
    devices: frozenset[str]
    tunnel: str | None = None


@dataclass(slots=True)
class Desired:
    """What the kernel should hold, and what of the configuration cannot be in it."""

    state: State = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)  # object → what it waits for
    refusals: list[Refusal] = field(default_factory=list)
    interfaces: dict[int, str] = field(default_factory=dict)  # index → name in the configuration

    def hold(self, observed: State) -> None:
        """Leave what is refused as it is, and what it may need."""
        devices = frozenset[str]().union(*(refusal.devices for refusal in self.refusals))
        tunnels = {refusal.tunnel for refusal in self.refusals}
        for key, resource in observed.items():
            match resource:
                case NextHop():
                    is_held = bool(self.refusals)
                case TunnelEntry():
                    is_held = resource.name in tunnels
                case TunnelDevice() | Port():
                    is_held = resource.name in devices
                case Target() | Attachment() | TunnelAddress() | TunnelRoute():
                    is_held = resource.device in devices
                case _:
                    is_held = False
            if is_held:
                self.state.setdefault(key, resource)


def desire(config: Config, host: Host, memory: Memory, digest: str) -> Desired:
    """What the kernel should hold; ``digest`` is that of the programs' sources.

    Raises ``FirewallError``, which is about all of it.
    """
    preflight.refuse_firewall(config, host)
    found = Desired()
    config = _as_named_now(config, host, memory, found)
    resources: list[Resource] = []
    resources += _sysctls(config, host, memory)
    resources.append(DataPlane(digest))
    resources.append(Policy(config.unknown_gre or ("pass" if host.has_kernel_gre else "drop")))
    trunks = _trunks(config, host)
    for interface in config.interfaces:
        if interface.name not in host.links:
            found.pending[f"interface {interface.name}"] = "there is no such interface yet"
            continue
        try:
            preflight.refuse_interface(config, interface, host)
        except errors.GreXdpError as error:
            trunk = host.trunk_of(interface.name)[0].name
            found.refusals.append(Refusal(error, frozenset({interface.name, trunk})))
        else:
            resources += _interface(interface, host, trunks, digest)
    resources += _tunnels(config, host, memory, digest, found)
    found.state = state(resources)
    return found


def _as_named_now(config: Config, host: Host, memory: Memory, found: Desired) -> Config:
    """Follow interfaces that were renamed since they were attached: packets need no names."""
    listed = {interface.name for interface in config.interfaces}
    renamed = {}
    for ifindex, name in memory.interfaces.items():
        link = host.link_of(ifindex)
        if link is not None and name in listed - host.links.keys() and link.name not in listed:
            renamed[name] = link.name
            found.pending[f"interface {name}"] = (
                f"it is called {link.name} now: give it that name in the configuration, too"
            )
    for interface in config.interfaces:
        now = host.links.get(renamed.get(interface.name, interface.name))
        if now is not None:
            found.interfaces[now.index] = interface.name
    if not renamed:
        return config
    interfaces = tuple(
        interface.model_copy(update={"name": renamed.get(interface.name, interface.name)})
        for interface in config.interfaces
    )
    return config.model_copy(update={"interfaces": interfaces})


def _trunks(config: Config, host: Host) -> frozenset[str]:
    """The devices below VLANs of the configuration."""
    found = set()
    for interface in config.interfaces:
        if interface.name in host.links:
            trunk, tags = host.trunk_of(interface.name)
            if tags:
                found.add(trunk.name)
    return frozenset(found)


def _interface(
    interface: Interface, host: Host, trunks: frozenset[str], digest: str
) -> list[Resource]:
    """The interface, and the program: on itself, or where a VLAN's tagged frames come in."""
    trunk, tags = host.trunk_of(interface.name)
    return [
        Port(
            name=interface.name,
            mac=host.links[interface.name].mac,
            trunk=trunk.name if tags else "",
            tags=tags,
            has_vlans=interface.name in trunks,
        ),
        Target(trunk.name),
        Attachment(trunk.name, "port", interface.mode, digest),
    ]


def next_hops(config: Config, host: Host) -> State:
    """The outer next hops alone: what may always be kept up, whatever else is in the way."""
    found: list[Resource] = []
    for tunnel in config.tunnels:
        found += _next_hops(tunnel, host)
    return state(found)


def _next_hops(tunnel: Tunnel, host: Host) -> list[Resource]:
    path = host.paths.get((tunnel.local, tunnel.remote))
    return _next_hop(host, path) if path is not None and not path.is_local else []


# --- settings -----------------------------------------------------------------------------------


def _sysctls(config: Config, host: Host, memory: Memory) -> list[Resource]:
    """What makes the kernel forward and answer: in this order, and undone in the reverse.

    Switching IPv6 forwarding on anywhere makes the kernel forget default routes learned by router
    advertisements on every interface whose accept_ra is not 2.
    """
    names = [interface.name for interface in config.interfaces if interface.name in host.links]
    found: list[Resource] = [Sysctl(f"ipv4/conf/{name}/forwarding", "1") for name in names]
    if not host.has_ipv6:
        return found
    others = [name for name in host.accept_ra if _is_somebody_elses(name, host)]
    for name in others:
        path = f"ipv6/conf/{name}/accept_ra"
        if host.accept_ra[name] == "1" or path in memory.sysctls:
            found.append(Sysctl(path, "2"))
    if host.has_force_forwarding:
        # A device with an MTU below 1280 bytes speaks no IPv6 and has no such settings.
        for name in (name for name in names if name in host.ipv6_forwarding):
            found.append(Sysctl(f"ipv6/conf/{name}/forwarding", "1"))
            found.append(Sysctl(f"ipv6/conf/{name}/force_forwarding", "1"))
        return found
    # Before Linux 6.17 the kernel answers Packet Too Big and Time Exceeded only if "all" forwards,
    # and that writes to every device: each is noted first, so that each gets its own value back.
    found += [Sysctl(f"ipv6/conf/{name}/forwarding", "1") for name in others]
    found.append(Sysctl("ipv6/conf/default/forwarding", "1"))
    found.append(Sysctl("ipv6/conf/all/forwarding", "1"))
    return found


def _is_somebody_elses(name: str, host: Host) -> bool:
    return name != "lo" and name in host.links and not host.is_ours(name)


# --- tunnels ------------------------------------------------------------------------------------


def _tunnels(
    config: Config, host: Host, memory: Memory, digest: str, wanted: Desired
) -> list[Resource]:
    """All tunnels; those that are refused are noted in ``wanted``."""
    checks = preflight.Tunnels(config, host)
    found: list[Resource] = []
    mtus: dict[str, int] = {}
    fitting: list[Tunnel] = []
    for tunnel in config.tunnels:
        with _refusing(tunnel, wanted):
            mtu = device_mtu_of(tunnel, host, host.paths.get((tunnel.local, tunnel.remote)))
            # Of a shared device as much as all its tunnels take.
            mtus[tunnel.device_name] = min(mtu, mtus.get(tunnel.device_name, mtu))
            fitting.append(tunnel)
    for tunnel in fitting:
        with _refusing(tunnel, wanted):
            mtu = mtus[tunnel.device_name]
            checks.refuse(tunnel, host.paths.get((tunnel.local, tunnel.remote)), mtu)
            found += _tunnel(tunnel, mtu, memory, digest)
    # Also of those that are refused: what works of them shall go on.
    for tunnel in config.tunnels:
        found += _next_hops(tunnel, host)
    return found


@contextlib.contextmanager
def _refusing(tunnel: Tunnel, wanted: Desired) -> Iterator[None]:
    """Note a tunnel that does not fit, and go on."""
    try:
        yield
    except errors.GreXdpError as error:
        device = tunnel.device_name
        devices = frozenset({device, inner_name(device)})
        wanted.refusals.append(Refusal(error, devices, tunnel.name))


def _tunnel(tunnel: Tunnel, device_mtu: int, memory: Memory, digest: str) -> list[Resource]:
    device = tunnel.device_name
    mtu = min(device_mtu, _path_mtu(tunnel, memory) or device_mtu)
    # The device keeps its MTU: what arrives may be longer than what the way back takes.
    is_narrow = mtu < device_mtu
    ipv6_mtu = max(mtu, IPV6_MIN_MTU) if is_narrow and device_mtu > IPV6_MIN_MTU else None
    found: list[Resource] = [
        # One of several tunnels cannot speak for all: there routes alone say what it takes.
        TunnelDevice(device, device_mtu, tunnel.payload, None if tunnel.device else ipv6_mtu),
        TunnelEntry(
            name=tunnel.name,
            device=device,
            next_hops=tunnel.nexthop,
            local=tunnel.local,
            remote=tunnel.remote,
            ikey=tunnel.ikey,
            okey=tunnel.okey,
            ttl=tunnel.ttl,
            tos=tunnel.tos,
            pmtudisc=tunnel.pmtudisc,
            mtu=mtu,
            device_mtu=device_mtu if is_narrow else None,
            mss_ipv4=_mss(tunnel, mtu, 4),
            mss_ipv6=_mss(tunnel, mtu, 6),
            icsum=tunnel.icsum,
            ocsum=tunnel.ocsum,
            iseq=tunnel.iseq,
            oseq=tunnel.oseq,
            payload=tunnel.payload,
            allowed_sources=frozenset(tunnel.allowed_sources),
        ),
        Target(inner_name(device)),
        Attachment(inner_name(device), "inner", "native", digest),
    ]
    found += [TunnelAddress(device, address) for address in tunnel.addresses]
    route_mtus = {4: mtu if is_narrow else None, 6: ipv6_mtu}
    found += [
        TunnelRoute(
            destination, device, _gateway(tunnel, destination), route_mtus[destination.version]
        )
        for destination in tunnel.routes
    ]
    return found


def _gateway(tunnel: Tunnel, destination: IPNetwork) -> IPAddress | None:
    """What a route into a tunnel goes via."""
    if tunnel.device is not None:
        return tunnel.next_hop_of(destination)
    return None if tunnel.payload == "ethernet" else GATEWAY[destination.version]


def device_mtu_of(tunnel: Tunnel, host: Host, path: Path | None) -> int:
    """The MTU of the tunnel's device in bytes: as asked, or what the path to its remote leaves.

    Raises ``HostError``, ``ConfigError`` when the path does not leave enough.
    """
    carries = underlay.mtu(path, host.link_of) or _DEFAULT_UNDERLAY_MTU
    fits = overhead.tunnel_mtu(carries, tunnel)
    if path is not None:
        preflight.refuse_mtu(tunnel, underlay=carries, fits=fits)
    return fits if tunnel.mtu == "auto" else tunnel.mtu


def _path_mtu(tunnel: Tunnel, memory: Memory) -> int | None:
    """What routers have said that the way to the remote takes, less the tunnel's headers."""
    learned = memory.path_mtu(tunnel.local, tunnel.remote)
    return None if learned is None else overhead.tunnel_mtu(learned, tunnel)


def _mss(tunnel: Tunnel, mtu: int, family: Literal[4, 6]) -> int | None:
    """To what the MSS of SYNs is lowered, in bytes; None: it is left alone."""
    if isinstance(tunnel.mss_clamp, bool):
        return overhead.mss(mtu, family) if tunnel.mss_clamp else None
    return tunnel.mss_clamp


def _next_hop(host: Host, path: Path) -> list[Resource]:
    """The neighbour to keep resolved, unless its device asks none or somebody has set it."""
    egress = host.link_of(path.ifindex)
    if egress is None or egress.is_noarp:
        return []
    is_static = (path.ifindex, path.next_hop) in host.static_neighbours
    return [] if is_static else [NextHop(egress.name, path.next_hop)]
