"""A tunnel's values as the data path reads them, both ways: resources to map entries and back."""

from __future__ import annotations

import ctypes as ct
import dataclasses
from ipaddress import ip_network
from typing import Literal

from gre_xdp import abi
from gre_xdp.abi import EndpointKind, TunnelFlag
from gre_xdp.netlink.routes import Address, Network
from gre_xdp.resources import Port, TunnelEntry


def encode_tunnel(
    entry: TunnelEntry,
    *,
    tunnel_id: int,
    device_ifindex: int,
    inner_ifindex: int,
    device_mac: str,
) -> abi.Tunnel:
    """A tunnel as the data path reads it."""
    is_set = {
        TunnelFlag.IKEY: entry.ikey is not None,
        TunnelFlag.OKEY: entry.okey is not None,
        TunnelFlag.PMTUDISC: entry.pmtudisc,
        TunnelFlag.TTL_INHERIT: entry.ttl == "inherit",
        TunnelFlag.TOS_INHERIT: entry.tos == "inherit",
        TunnelFlag.ICSUM: entry.icsum,
        TunnelFlag.OCSUM: entry.ocsum,
        TunnelFlag.ISEQ: entry.iseq,
        TunnelFlag.OSEQ: entry.oseq,
        TunnelFlag.SOURCES: bool(entry.allowed_sources),
        TunnelFlag.IPV6: entry.local.version == 6,
        TunnelFlag.ETHERNET: entry.payload == "ethernet",
    }
    flags = sum(flag for flag, value in is_set.items() if value)
    return abi.Tunnel(
        name=entry.name.encode(),
        id=tunnel_id,
        local=abi.ip(entry.local),
        remote=abi.ip(entry.remote),
        ikey=abi.gre_key(entry.ikey),
        okey=abi.gre_key(entry.okey),
        flags=flags,
        device_ifindex=device_ifindex,
        inner_ifindex=inner_ifindex,
        mtu=entry.mtu,
        device_mtu=entry.device_mtu or entry.mtu,
        device_mac=abi.mac(device_mac),
        ttl=0 if entry.ttl == "inherit" else entry.ttl,
        tos=0 if entry.tos == "inherit" else entry.tos,
        mss_ipv4=entry.mss_ipv4 or 0,
        mss_ipv6=entry.mss_ipv6 or 0,
    )


def decode_tunnel(
    tunnel: abi.Tunnel, sources: frozenset[Network], *, device: str, next_hops: tuple[Address, ...]
) -> TunnelEntry:
    """The inverse of ``encode_tunnel``; the rest is in maps of its own."""
    flags = TunnelFlag(tunnel.flags)
    inherit: Literal["inherit"] = "inherit"
    return TunnelEntry(
        name=tunnel.name.decode(),
        device=device,
        next_hops=next_hops,
        local=abi.read_ip(tunnel.local),
        remote=abi.read_ip(tunnel.remote),
        ikey=abi.read_u32_be(tunnel.ikey) if flags & TunnelFlag.IKEY else None,
        okey=abi.read_u32_be(tunnel.okey) if flags & TunnelFlag.OKEY else None,
        ttl=inherit if flags & TunnelFlag.TTL_INHERIT else tunnel.ttl,
        tos=inherit if flags & TunnelFlag.TOS_INHERIT else tunnel.tos,
        pmtudisc=bool(flags & TunnelFlag.PMTUDISC),
        mtu=tunnel.mtu,
        device_mtu=None if tunnel.device_mtu == tunnel.mtu else tunnel.device_mtu,
        mss_ipv4=tunnel.mss_ipv4 or None,
        mss_ipv6=tunnel.mss_ipv6 or None,
        icsum=bool(flags & TunnelFlag.ICSUM),
        ocsum=bool(flags & TunnelFlag.OCSUM),
        iseq=bool(flags & TunnelFlag.ISEQ),
        oseq=bool(flags & TunnelFlag.OSEQ),
        payload="ethernet" if flags & TunnelFlag.ETHERNET else "ip",
        allowed_sources=sources,
        # Without the flag any source passes, whatever the map holds.
        is_bound=bool(sources) == bool(flags & TunnelFlag.SOURCES),
    )


def unbound(entry: TunnelEntry) -> TunnelEntry:
    """The same where not all map entries agree."""
    return dataclasses.replace(entry, is_bound=False)


def encode_next_hop(ifindex: int, address: Address) -> abi.NextHop:
    """A neighbour on a device."""
    return abi.NextHop(ifindex=ifindex, address=abi.ip(address))


def decode_next_hop(hop: abi.NextHop) -> tuple[int, Address]:
    """The inverse of ``encode_next_hop``."""
    return hop.ifindex, abi.read_ip(hop.address)


def receiving_endpoint(entry: TunnelEntry) -> abi.Endpoint:
    """What a packet of this tunnel looks like on receive."""
    return abi.Endpoint(
        local=abi.ip(entry.local),
        remote=abi.ip(entry.remote),
        key=abi.gre_key(entry.ikey),
        kind=EndpointKind.KEYLESS if entry.ikey is None else EndpointKind.KEYED,
    )


def pair_endpoint(entry: TunnelEntry) -> abi.Endpoint:
    """Says that local and remote are known, whatever the key."""
    return abi.Endpoint(
        local=abi.ip(entry.local), remote=abi.ip(entry.remote), kind=EndpointKind.PAIR
    )


def local_endpoint(entry: TunnelEntry) -> abi.Endpoint:
    """Says that tunnels of ours end at this local."""
    return abi.Endpoint(local=abi.ip(entry.local), kind=EndpointKind.LOCAL)


def encode_source(tunnel_id: int, network: Network) -> abi.SourcePrefix:
    """A prefix of allowed inner sources, as a key of its map."""
    address = network.network_address.packed
    return abi.SourcePrefix(
        prefix_bits=abi.SOURCE_SCOPE_BITS + network.prefixlen,
        tunnel=abi.u32_be(tunnel_id),
        family=abi.u32_be(network.version),
        address=(ct.c_uint8 * 16)(*address),
    )


def decode_source(source: abi.SourcePrefix) -> tuple[int, Network]:
    """The inverse of ``encode_source``: tunnel index and prefix."""
    is_ipv4 = abi.read_u32_be(source.family) == 4
    address = bytes(source.address)[: 4 if is_ipv4 else 16]
    bits = source.prefix_bits - abi.SOURCE_SCOPE_BITS
    return abi.read_u32_be(source.tunnel), ip_network((address, bits))


def encode_port(port: Port, *, trunk_ifindex: int) -> abi.Device:
    """An interface as the data path reads it; ``trunk_ifindex`` is 0 unless it is a VLAN."""
    return abi.Device(
        role=abi.DeviceRole.PORT,
        trunk=trunk_ifindex,
        mac=abi.mac(port.mac),
        has_vlans=port.has_vlans,
        tags=_encode_tags(port.tags),
    )


def decode_tags(tags: ct.Array[abi.VlanTag]) -> tuple[tuple[int, int], ...]:
    """The tags of a VLAN: protocol and ID, the outer first."""
    return tuple(found for found in map(abi.read_tag, tags) if found[0])


def encode_vlan(trunk_ifindex: int, tags: tuple[tuple[int, int], ...]) -> abi.Vlan:
    """What a VLAN's frames look like when they come in by its trunk."""
    return abi.Vlan(trunk=trunk_ifindex, tags=_encode_tags(tags))


def _encode_tags(tags: tuple[tuple[int, int], ...]) -> ct.Array[abi.VlanTag]:
    padded = [*tags, *[(0, 0)] * (abi.VLAN_TAGS_MAX - len(tags))]
    return (abi.VlanTag * abi.VLAN_TAGS_MAX)(*(abi.tag(*each) for each in padded))
