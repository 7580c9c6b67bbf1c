"""From the configuration and the host's facts to the state that should be. Pure.

Everything that must be refused is refused here, before anything is touched.
"""

from __future__ import annotations

from ipaddress import IPv4Address

from gre_xdp import errors, overhead
from gre_xdp.host import Host
from gre_xdp.memory import Memory
from gre_xdp.model import Config, Tunnel
from gre_xdp.netlink.links import Link
from gre_xdp.netlink.routes import Path
from gre_xdp.resources import (
    Attachment,
    DataPlane,
    NextHop,
    Policy,
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
    _refuse_firewall(config, host)
    resources: list[Resource] = []
    resources += _sysctls(config, host, memory)
    resources.append(DataPlane(digest))
    resources.append(Policy(config.unknown_gre or ("pass" if host.has_kernel_gre else "drop")))
    for interface in config.interfaces:
        link = _port_link(interface.name, host)
        resources.append(Attachment(interface.name, "port", interface.mode, digest, link.mac))
    for tunnel in config.tunnels:
        resources += _tunnel(config, tunnel, host, digest)
    return state(resources)


def _refuse_firewall(config: Config, host: Host) -> None:
    if not host.forward_chains or config.bypass_firewall or not config.interfaces:
        return
    chain = host.forward_chains[0]
    what = "policy drop" if chain.is_drop_policy else "rules"
    raise errors.FirewallError(
        f"the firewall chain {chain.name} has {what}, and packets that XDP forwards never meet it",
        remedy="set bypass_firewall = true if these tunnels may forward around it, or remove it",
        where=chain.name,
    )


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
        for name in names:
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


# --- interfaces ---------------------------------------------------------------------------------


def _port_link(name: str, host: Host) -> Link:
    link = host.links.get(name)
    if link is None:
        raise errors.HostError(
            f"there is no interface {name}",
            remedy="create it, or correct the name; ip link shows those that exist",
            where=f'interface "{name}"',
        )
    if name in host.xdp_owners:
        raise errors.ForeignError(
            f"{name} already runs another XDP program: {host.xdp_owners[name]}",
            remedy="have its owner detach it, or take the interface out of the configuration;"
            f" ip link set dev {name} xdp off removes a program that nobody owns any more",
            where=f'interface "{name}"',
        )
    return link


# --- tunnels ------------------------------------------------------------------------------------


def _tunnel(config: Config, tunnel: Tunnel, host: Host, digest: str) -> list[Resource]:
    _refuse_foreign_device(tunnel, host)
    path = host.paths.get(tunnel.remote)
    if path is not None:
        _refuse_path(config, tunnel, host, path)
    mtu = _mtu(tunnel, host, path)
    # The model refuses other outer families.
    assert isinstance(tunnel.local, IPv4Address)
    assert isinstance(tunnel.remote, IPv4Address)
    found: list[Resource] = [
        TunnelDevice(tunnel.name, mtu),
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
        ),
        Attachment(inner_name(tunnel.name), "inner", "native", digest, ""),
    ]
    found += [TunnelAddress(tunnel.name, address) for address in tunnel.addresses]
    if path is not None:
        found += _next_hop(host, path)
    for destination in tunnel.routes:
        _refuse_foreign_route(tunnel, destination, host)
        found.append(TunnelRoute(destination, tunnel.name))
    return found


def _refuse_foreign_device(tunnel: Tunnel, host: Host) -> None:
    for name in (tunnel.name, inner_name(tunnel.name)):
        if name in host.links and not host.is_tunnel_device(tunnel.name):
            kind = host.links[name].kind or "physical"
            raise errors.ForeignError(
                f"a device named {name} exists already ({kind}) and is not ours",
                remedy="choose another name for the tunnel, or remove that device",
                where=f'tunnel "{tunnel.name}"',
            )


def _refuse_path(config: Config, tunnel: Tunnel, host: Host, path: Path) -> None:
    """RFC 2784 has no place for a tunnel whose packets enter itself: that is an endless loop."""
    where = f'tunnel "{tunnel.name}"'
    if path.is_local:
        raise errors.HostError(
            f"remote {tunnel.remote} is an address of this host",
            remedy="remote is the other end's address; local is this end's",
            where=where,
        )
    egress = host.link_of(path.ifindex)
    name = egress.name if egress else str(path.ifindex)
    if host.is_tunnel_device(name):
        raise errors.HostError(
            f"remote {tunnel.remote} is routed through tunnel {name} ({path.matched} dev {name}):"
            " its packets would never leave",
            remedy=f"add a route to {tunnel.remote} outside the tunnels, or remove that one",
            where=where,
        )
    for other in config.tunnels:
        inner = [*other.routes, *(address.network for address in other.addresses)]
        for network in inner:
            if (
                network.version == tunnel.remote.version
                and tunnel.remote in network
                and network.prefixlen >= path.matched.prefixlen
            ):
                raise errors.HostError(
                    f"remote {tunnel.remote} would be routed through tunnel {other.name}:"
                    f" {network} is as specific as the route that leads to it now"
                    f" ({path.matched} dev {name})",
                    remedy=f"add a route to {tunnel.remote}/{tunnel.remote.max_prefixlen}"
                    f" outside the tunnels, or take {network} out of {other.name}",
                    where=where,
                )
    if name not in {interface.name for interface in config.interfaces}:
        raise errors.HostError(
            f"remote {tunnel.remote} is reached by {name}, which is not in the configuration",
            remedy=f'add [[interface]] with name = "{name}"',
            where=where,
        )


def _mtu(tunnel: Tunnel, host: Host, path: Path | None) -> int:
    underlay = _DEFAULT_UNDERLAY_MTU
    if path is not None:
        egress = host.link_of(path.ifindex)
        candidates = [path.mtu, egress.mtu if egress else None]
        underlay = min([mtu for mtu in candidates if mtu], default=_DEFAULT_UNDERLAY_MTU)
    fits = overhead.tunnel_mtu(underlay, tunnel)
    if tunnel.mtu == "auto":
        return fits
    if tunnel.mtu > fits and path is not None:
        raise errors.ConfigError(
            f"mtu = {tunnel.mtu} does not fit: the path to {tunnel.remote} takes {underlay} bytes,"
            f" less {underlay - fits} of overhead leaves {fits}",
            remedy=f'set mtu = {fits} or less, or mtu = "auto"',
            where=f'tunnel "{tunnel.name}"',
        )
    return tunnel.mtu


def _next_hop(host: Host, path: Path) -> list[Resource]:
    egress = host.link_of(path.ifindex)
    if egress is None or egress.is_noarp:
        return []
    is_static = any(
        neighbour.is_static
        for neighbour in host.neighbours
        if neighbour.ifindex == path.ifindex and neighbour.address == path.next_hop
    )
    return [] if is_static else [NextHop(egress.name, path.next_hop)]


def _refuse_foreign_route(tunnel: Tunnel, destination: object, host: Host) -> None:
    for route in host.routes:
        if route.destination == destination and not route.is_ours and route.is_default_metric:
            link = host.link_of(route.ifindex) if route.ifindex else None
            by = f" (dev {link.name})" if link else ""
            raise errors.ForeignError(
                f"there is a route to {destination} already{by}, and it is not ours",
                remedy="remove it, or give it a higher metric, or take it out of the tunnel",
                where=f'tunnel "{tunnel.name}"',
            )
