"""What is refused before anything is touched: configurations that do not fit this host. Pure.

Each function raises one ``GreXdpError`` that says who must act, or returns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from ipaddress import ip_network

from gre_xdp import errors
from gre_xdp.abi import VLAN_TAGS_MAX
from gre_xdp.host import Host, Tags
from gre_xdp.model import Config, Interface, Tunnel
from gre_xdp.netlink.links import Link
from gre_xdp.netlink.routes import Network, Path
from gre_xdp.overhead import IPV6_MIN_MTU
from gre_xdp.resources import inner_name

# RFC 791: every module forwards 68 bytes without fragmenting them further.
_IPV4_MIN_MTU = 68


def refuse_firewall(config: Config, host: Host) -> None:
    """XDP would forward around a firewall that may drop."""
    if not host.forward_chains or config.bypass_firewall or not config.interfaces:
        return
    chain = host.forward_chains[0]
    what = "policy drop" if chain.is_drop_policy else "rules"
    raise errors.FirewallError(
        f"the firewall chain {chain.name} has {what}, and packets that XDP forwards never meet it",
        remedy="set bypass_firewall = true if these tunnels may forward around it, or remove it",
        where=chain.name,
    )


def refuse_interface(config: Config, interface: Interface, host: Host) -> None:
    """An interface is missing, or XDP cannot have it."""
    name = interface.name
    where = f'interface "{name}"'
    if name not in host.links:
        raise errors.HostError(
            f"there is no interface {name}",
            remedy="create it, or correct the name; ip link shows those that exist",
            where=where,
        )
    trunk, tags = host.trunk_of(name)
    if trunk.name in host.xdp_owners:
        raise errors.ForeignError(
            f"{trunk.name} already runs another XDP program: {host.xdp_owners[trunk.name]}",
            remedy="have its owner detach it, or take the interface out of the configuration;"
            f" ip link set dev {trunk.name} xdp off removes a program that nobody owns any more",
            where=where,
        )
    if tags:
        _refuse_vlan(config, interface, trunk, tags, host)


def _refuse_vlan(config: Config, interface: Interface, trunk: Link, tags: Tags, host: Host) -> None:
    where = f'interface "{interface.name}"'
    if trunk.vlan is not None:
        raise errors.HostError(
            f"{interface.name} is a VLAN on a device of another network namespace",
            remedy="run gre-xdp in that namespace, or take the interface out of the configuration",
            where=where,
        )
    if len(tags) > VLAN_TAGS_MAX:
        raise errors.HostError(
            f"frames of {interface.name} have {len(tags)} VLAN tags, and {VLAN_TAGS_MAX} are read",
            remedy="take the interface out of the configuration",
            where=where,
        )
    if trunk.name in host.tag_strippers:
        raise errors.HostError(
            f"{trunk.name} takes VLAN tags off before XDP can see them",
            remedy=f"ethtool -K {trunk.name} rxvlan off",
            where=where,
        )
    for other in config.interfaces:
        if other.name not in host.links:
            continue
        if host.trunk_of(other.name)[0] == trunk and other.mode != interface.mode:
            raise errors.ConfigError(
                f'mode "{interface.mode}" here and "{other.mode}" of interface "{other.name}"'
                f" contradict each other: both are served by one program on {trunk.name}",
                remedy="give both the same mode",
                where=where,
            )


class Tunnels:
    """Refuses a configuration's tunnels that do not fit, one at a time."""

    def __init__(self, config: Config, host: Host) -> None:
        self._host = host
        self._interfaces = frozenset(interface.name for interface in config.interfaces)
        # By IP version and length: which prefix leads into which tunnel.
        self._prefixes: dict[tuple[int, int], dict[Network, Tunnel]] = {}
        for tunnel in config.tunnels:
            for network in _prefixes(tunnel):
                same = self._prefixes.setdefault((network.version, network.prefixlen), {})
                same.setdefault(network, tunnel)
        self._taken = {
            route.destination: route
            for route in host.routes
            if not route.is_ours and route.is_default_metric
        }
        self._addresses = {(found.ifindex, found.address): found for found in host.addresses}

    def refuse(self, tunnel: Tunnel, path: Path | None, mtu: int) -> None:
        """Raise why a tunnel does not fit: its device, its path, its size in bytes, its routes."""
        _refuse_device(tunnel, self._host)
        if path is not None:
            self._refuse_path(tunnel, path)
        self._refuse_loop(tunnel, path)
        _refuse_ipv6(tunnel, self._host, mtu)
        self._refuse_addresses(tunnel)
        self._refuse_routes(tunnel)

    def _refuse_path(self, tunnel: Tunnel, path: Path) -> None:
        if path.is_local:
            raise errors.HostError(
                f"remote {tunnel.remote} is an address of this host",
                remedy="remote is the other end's address; local is this end's",
                where=_where(tunnel),
            )
        egress = self._host.name_of(path.ifindex)
        if self._host.is_tunnel_device(egress):
            raise errors.HostError(
                f"remote {tunnel.remote} is routed through tunnel {egress}"
                f" ({path.matched} dev {egress}): its packets would never leave",
                remedy=f"add a route to {tunnel.remote} outside the tunnels, or remove that one",
                where=_where(tunnel),
            )
        if egress not in self._interfaces:
            raise errors.HostError(
                f"remote {tunnel.remote} is reached by {egress}, which is not in the configuration",
                remedy=f'add [[interface]] with name = "{egress}"',
                where=_where(tunnel),
            )

    def _refuse_loop(self, tunnel: Tunnel, path: Path | None) -> None:
        """No encapsulation when the way to the remote leads back into a tunnel: it never ends.

        A prefix takes the remote when it is as specific as the route that leads to it now.
        """
        specific, why = 0, "leads there, and nothing else does"
        if path is not None:
            specific = path.matched.prefixlen
            now = f"{path.matched} dev {self._host.name_of(path.ifindex)}"
            why = f"is as specific as the route that leads to it now ({now})"
        for (version, length), prefixes in self._prefixes.items():
            if version != tunnel.remote.version or length < specific:
                continue
            network = ip_network((tunnel.remote, length), strict=False)
            if network in prefixes:
                other = prefixes[network].name
                raise errors.HostError(
                    f"remote {tunnel.remote} would be routed through tunnel {other}:"
                    f" {network} {why}",
                    remedy=f"add a route to {tunnel.remote}/{tunnel.remote.max_prefixlen}"
                    f" outside the tunnels, or take {network} out of {other}",
                    where=_where(tunnel),
                )

    def _refuse_addresses(self, tunnel: Tunnel) -> None:
        pair = self._host.tunnel_pairs.get(tunnel.device_name)
        if pair is None:
            return
        for address in tunnel.addresses:
            found = self._addresses.get((pair.device.index, address))
            if found is not None and not found.is_ours:
                raise errors.ForeignError(
                    f"{tunnel.device_name} has {address} already, and it is not ours",
                    remedy=f"ip addr del {address} dev {tunnel.device_name}",
                    where=_where(tunnel),
                )

    def _refuse_routes(self, tunnel: Tunnel) -> None:
        for destination in tunnel.routes:
            if destination in self._taken:
                ifindex = self._taken[destination].ifindex
                by = f" (dev {self._host.name_of(ifindex)})" if ifindex else ""
                raise errors.ForeignError(
                    f"there is a route to {destination} already{by}, and it is not ours",
                    remedy="remove it, or give it a higher metric, or take it out of the tunnel",
                    where=_where(tunnel),
                )


def refuse_mtu(tunnel: Tunnel, *, underlay: int, fits: int) -> None:
    """The path leaves too little, or less than the MTU that was asked for; sizes in bytes."""
    path = f"the path to {tunnel.remote} takes {underlay} bytes"
    less = f"less {underlay - fits} of overhead leaves {fits}"
    if fits < _IPV4_MIN_MTU:
        raise errors.HostError(
            f"{path}, {less}: no device takes less than {_IPV4_MIN_MTU}",
            remedy="raise the MTU of the underlay",
            where=_where(tunnel),
        )
    if tunnel.mtu != "auto" and tunnel.mtu > fits:
        raise errors.ConfigError(
            f"mtu = {tunnel.mtu} does not fit: {path}, {less}",
            remedy=f'set mtu = {fits} or less, or mtu = "auto"',
            where=_where(tunnel),
        )


def _where(tunnel: Tunnel) -> str:
    return f'tunnel "{tunnel.name}"'


def _prefixes(tunnel: Tunnel) -> Iterator[Network]:
    """What the kernel will route into a tunnel's device."""
    yield from tunnel.routes
    for address in tunnel.addresses:
        yield address.network


def _refuse_device(tunnel: Tunnel, host: Host) -> None:
    for name in (tunnel.device_name, inner_name(tunnel.device_name)):
        if name in host.links and not host.is_ours(name):
            kind = host.links[name].kind or "physical"
            raise errors.ForeignError(
                f"a device named {name} exists already ({kind}) and is not ours",
                remedy="choose another name for the tunnel, or remove that device",
                where=_where(tunnel),
            )


def _refuse_ipv6(tunnel: Tunnel, host: Host, mtu: int) -> None:
    inner = (*tunnel.addresses, *tunnel.routes)
    first = next((network for network in inner if network.version == 6), None)
    if first is None:
        return
    if mtu < IPV6_MIN_MTU:
        raise errors.ConfigError(
            f"{first} is IPv6, which needs {IPV6_MIN_MTU} bytes, and the tunnel's MTU is {mtu}",
            remedy=f"give the tunnel an MTU of {IPV6_MIN_MTU} or more, or IPv4 only",
            where=_where(tunnel),
        )
    if host.is_ipv6_off:
        raise errors.HostError(
            f"{first} is IPv6, which is switched off for new devices of this host",
            remedy="sysctl net.ipv6.conf.default.disable_ipv6=0, or give the tunnel IPv4 only",
            where=_where(tunnel),
        )
