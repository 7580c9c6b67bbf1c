"""From the configuration and the host's facts to the state that should be. Pure.

Everything that must be refused is refused on the way, by ``preflight``.
"""

from __future__ import annotations

from typing import Literal

from gre_xdp import overhead, preflight, underlay
from gre_xdp.host import Host
from gre_xdp.memory import Memory
from gre_xdp.model import Config, Interface, Tunnel
from gre_xdp.netlink.routes import Path
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
    TunnelAddress,
    TunnelDevice,
    TunnelEntry,
    TunnelRoute,
    inner_name,
    state,
)

# Assumed for a remote that has no route yet, so that its tunnel can exist and wait.
_DEFAULT_UNDERLAY_MTU = 1500


def desire(config: Config, host: Host, memory: Memory, digest: str) -> State:
    """What the kernel should hold; ``digest`` is that of the programs' sources.

    Raises ``HostError``, ``ForeignError``, ``FirewallError``, ``ConfigError``.
    """
    preflight.refuse_firewall(config, host)
    resources: list[Resource] = []
    resources += _sysctls(config, host, memory)
    resources.append(DataPlane(digest))
    resources.append(Policy(config.unknown_gre or ("pass" if host.has_kernel_gre else "drop")))
    for interface in config.interfaces:
        preflight.refuse_interface(config, interface, host)
        resources += _interface(config, interface, host, digest)
    for tunnel in config.tunnels:
        resources += _tunnel(config, tunnel, host, memory, digest)
    return state(resources)


def _interface(config: Config, interface: Interface, host: Host, digest: str) -> list[Resource]:
    """The interface, and the program: on itself, or where a VLAN's tagged frames come in."""
    trunk, tags = host.trunk_of(interface.name)
    others = (other.name for other in config.interfaces if other != interface)
    trunks = {host.trunk_of(other)[0].name for other in others if other in host.links}
    return [
        Port(
            name=interface.name,
            mac=host.links[interface.name].mac,
            trunk=trunk.name if tags else "",
            tags=tags,
            has_vlans=interface.name in trunks,
        ),
        Attachment(trunk.name, "port", interface.mode, digest),
    ]


def next_hops(config: Config, host: Host) -> State:
    """The outer next hops alone: what may always be kept up, whatever else is in the way."""
    found: list[Resource] = []
    for tunnel in config.tunnels:
        path = host.paths.get((tunnel.local, tunnel.remote))
        if path is not None and not path.is_local:
            found += _next_hop(host, path)
    return state(found)


# --- settings -----------------------------------------------------------------------------------


def _sysctls(config: Config, host: Host, memory: Memory) -> list[Resource]:
    """What makes the kernel forward and answer: in this order, and undone in the reverse.

    Switching IPv6 forwarding on anywhere makes the kernel forget default routes learned by router
    advertisements on every interface whose accept_ra is not 2.
    """
    names = [interface.name for interface in config.interfaces]
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


def _tunnel(
    config: Config, tunnel: Tunnel, host: Host, memory: Memory, digest: str
) -> list[Resource]:
    path = host.paths.get((tunnel.local, tunnel.remote))
    device_mtu = device_mtu_of(tunnel, host, path)
    preflight.refuse_tunnel(config, tunnel, host, path, device_mtu)
    mtu = min(device_mtu, _path_mtu(tunnel, memory) or device_mtu)
    # The device keeps its MTU: what arrives may be longer than what the way back takes.
    is_narrow = mtu < device_mtu
    ipv6_mtu = max(mtu, IPV6_MIN_MTU) if is_narrow and device_mtu > IPV6_MIN_MTU else None
    found: list[Resource] = [
        TunnelDevice(tunnel.name, device_mtu, tunnel.payload, ipv6_mtu),
        TunnelEntry(
            name=tunnel.name,
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
        Attachment(inner_name(tunnel.name), "inner", "native", digest),
    ]
    found += [TunnelAddress(tunnel.name, address) for address in tunnel.addresses]
    if path is not None:
        found += _next_hop(host, path)
    is_on_link = tunnel.payload == "ethernet"
    route_mtus = {4: mtu if is_narrow else None, 6: ipv6_mtu}
    found += [
        TunnelRoute(destination, tunnel.name, is_on_link, route_mtus[destination.version])
        for destination in tunnel.routes
    ]
    return found


def device_mtu_of(tunnel: Tunnel, host: Host, path: Path | None) -> int:
    """The MTU of the tunnel's device in bytes: as asked, or what the path to its remote leaves.

    Raises ``HostError``, ``ConfigError`` when the path does not leave enough.
    """
    carries = underlay.mtu(path, host.links.values()) or _DEFAULT_UNDERLAY_MTU
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
    is_static = any(
        neighbour.is_static
        for neighbour in host.neighbours
        if neighbour.ifindex == path.ifindex and neighbour.address == path.next_hop
    )
    return [] if is_static else [NextHop(egress.name, path.next_hop)]
