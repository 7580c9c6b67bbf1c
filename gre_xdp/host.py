"""The host as we find it: facts that the configuration has to fit, read once per reconcile."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

from gre_xdp import sysctl
from gre_xdp.device_settings import ALIAS
from gre_xdp.netlink import DEVICE_GROUP, DOOMED_GROUP, Netlink, firewall, offloads, routes
from gre_xdp.netlink.addresses import AddressOn, list_addresses
from gre_xdp.netlink.firewall import ForwardChain
from gre_xdp.netlink.links import Link, list_links
from gre_xdp.netlink.neighbours import Neighbour, list_neighbours
from gre_xdp.netlink.routes import Address, Network, Path, RouteEntry
from gre_xdp.owners import program_owner
from gre_xdp.resources import inner_name

# Of a frame: protocol and ID of each VLAN tag, the outer one first.
Tags = tuple[tuple[int, int], ...]

_KERNEL_GRE_KINDS = frozenset({"gre", "gretap", "ip6gre", "ip6gretap", "erspan", "ip6erspan"})
# ip_gre makes these by itself in every namespace; they carry nothing.
_FALLBACK_DEVICES = frozenset({"gre0", "gretap0", "erspan0", "ip6gre0"})


@dataclass(frozen=True, slots=True)
class TunnelPair:
    """A tunnel's veth pair: the end that users see, and the inner one."""

    device: Link
    inner: Link


@dataclass(frozen=True)
class Host:
    """Facts about one network namespace."""

    links: dict[str, Link]
    routes: tuple[RouteEntry, ...]  # ours, and those of others where ours are to be made
    paths: dict[tuple[Address, Address], Path | None]  # by local and remote
    addresses: tuple[AddressOn, ...]
    neighbours: tuple[Neighbour, ...]
    forward_chains: tuple[ForwardChain, ...]
    accept_ra: dict[str, str]
    ipv6_forwarding: dict[str, str]
    has_force_forwarding: bool
    is_ipv6_off: bool  # for devices to be made: net.ipv6.conf.default.disable_ipv6
    attached: frozenset[int]  # interface indices that hold a link of ours
    tag_strippers: frozenset[str]  # devices with VLANs whose tags XDP would not see
    xdp_owners: dict[str, str]  # devices with somebody else's XDP program, and whose it is

    @property
    def has_ipv6(self) -> bool:
        """Does the kernel speak IPv6 here?"""
        return bool(self.ipv6_forwarding)

    @property
    def has_kernel_gre(self) -> bool:
        """Has somebody made GRE tunnels of the kernel's own?"""
        return any(
            link.kind in _KERNEL_GRE_KINDS and name not in _FALLBACK_DEVICES
            for name, link in self.links.items()
        )

    @cached_property
    def _by_index(self) -> dict[int, Link]:
        return {link.index: link for link in self.links.values()}

    def link_of(self, ifindex: int) -> Link | None:
        """The device with an index."""
        return self._by_index.get(ifindex)

    @cached_property
    def static_neighbours(self) -> frozenset[tuple[int, Address]]:
        """Permanent entries that somebody has made: index of the device, and address."""
        return frozenset(
            (found.ifindex, found.address) for found in self.neighbours if found.is_static
        )

    def name_of(self, ifindex: int) -> str:
        """The name of the device with an index, or the index itself."""
        link = self.link_of(ifindex)
        return link.name if link else str(ifindex)

    def trunk_of(self, name: str) -> tuple[Link, Tags]:
        """Where frames of a device meet XDP, and with what tags: itself and none unless a VLAN."""
        link = self.links[name]
        tags: Tags = ()
        while link.vlan is not None:
            below = self.link_of(link.peer_index or 0)
            if below is None:
                break
            # The device on top adds the inner tag.
            tags = (link.vlan, *tags)
            link = below
        return link, tags

    @cached_property
    def tunnel_pairs(self) -> dict[str, TunnelPair]:
        """The veth pairs that we made, by tunnel, whatever their user's ends are called now."""
        found = {}
        for inner in self.links.values():
            device = self.link_of(inner.peer_index or 0)
            if (
                inner.kind != "veth"
                or inner.group not in (DEVICE_GROUP, DOOMED_GROUP)
                or device is None
            ):
                continue
            # Without an alias it was never finished, and so never renamed.
            name = inner.alias.removeprefix(ALIAS) if inner.alias else device.name
            if inner.name == inner_name(name):
                found[name] = TunnelPair(device, inner)
        return found

    def is_tunnel_device(self, name: str) -> bool:
        """Is this device the user's end of a pair that we made for a tunnel of this name?"""
        pair = self.tunnel_pairs.get(name)
        return pair is not None and pair.device.name == name

    def is_ours(self, name: str) -> bool:
        """Is this either end of a tunnel's device?"""
        return name in self._our_names

    @cached_property
    def _our_names(self) -> frozenset[str]:
        pairs = self.tunnel_pairs.values()
        return frozenset(end.name for pair in pairs for end in (pair.device, pair.inner))


def _tag_strippers(links: dict[str, Link]) -> frozenset[str]:
    """Devices below VLANs that take the tags off before XDP.

    A veth has the feature, but what counts there is whether its peer leaves tags in the frame.
    """
    by_index = {link.index: link for link in links.values()}
    below = {by_index.get(link.peer_index or 0) for link in links.values() if link.vlan}
    candidates = [
        link.name for link in below if link is not None and not link.vlan and link.kind != "veth"
    ]
    features = (offloads.RX_VLAN, offloads.RX_VLAN_STAG)
    return frozenset(name for name in candidates if any(offloads.get(name, features).values()))


def read_host(
    netlink: Netlink,
    ends: list[tuple[Address, Address]],
    attached: frozenset[int],
    *,
    destinations: Collection[Network] = (),
    with_firewall: bool = True,
) -> Host:
    """Read the facts; ``ends`` are locals and remotes between which paths matter.

    ``destinations`` are what shall be routed to tunnels: whose routes are there is looked for.
    All but the firewall can be read by anybody.
    """
    devices = sysctl.devices("ipv6")
    links = list_links(netlink)
    own_routes = routes.list_own_routes(netlink)
    new_routes = {*destinations} - {route.destination for route in own_routes}
    return Host(
        links=links,
        routes=(*own_routes, *routes.list_rivals(netlink, new_routes)),
        paths=routes.paths(netlink, ends).between,
        addresses=tuple(list_addresses(netlink)),
        neighbours=tuple(list_neighbours(netlink)),
        forward_chains=tuple(firewall.forward_chains()) if with_firewall else (),
        accept_ra={
            device: sysctl.read(f"ipv6/conf/{device}/accept_ra") or "0" for device in devices
        },
        ipv6_forwarding={
            device: sysctl.read(f"ipv6/conf/{device}/forwarding") or "0" for device in devices
        },
        # Linux 6.17: one interface can forward without making the whole host a router.
        has_force_forwarding=sysctl.read("ipv6/conf/all/force_forwarding") is not None,
        is_ipv6_off=sysctl.read("ipv6/conf/default/disable_ipv6") == "1",
        attached=attached,
        tag_strippers=_tag_strippers(links),
        xdp_owners={
            name: program_owner(link.xdp_program_id)
            for name, link in links.items()
            if link.xdp_program_id is not None and link.index not in attached
        },
    )
