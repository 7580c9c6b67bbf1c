"""A tunnel's values as the data path reads them, both ways: resources to map entries and back."""

from __future__ import annotations

from typing import Literal

from gre_xdp import abi
from gre_xdp.abi import EndpointKind, TunnelFlag
from gre_xdp.resources import TunnelEntry


def encode_tunnel(
    entry: TunnelEntry, *, device_ifindex: int, inner_ifindex: int, device_mac: str
) -> abi.Tunnel:
    """A tunnel as the data path reads it."""
    flags = TunnelFlag(0)
    if entry.ikey is not None:
        flags |= TunnelFlag.IKEY
    if entry.okey is not None:
        flags |= TunnelFlag.OKEY
    if entry.pmtudisc:
        flags |= TunnelFlag.PMTUDISC
    if entry.ttl == "inherit":
        flags |= TunnelFlag.TTL_INHERIT
    if entry.tos == "inherit":
        flags |= TunnelFlag.TOS_INHERIT
    return abi.Tunnel(
        name=entry.name.encode(),
        local=abi.ipv4(entry.local),
        remote=abi.ipv4(entry.remote),
        ikey=abi.gre_key(entry.ikey),
        okey=abi.gre_key(entry.okey),
        flags=flags,
        device_ifindex=device_ifindex,
        inner_ifindex=inner_ifindex,
        mtu=entry.mtu,
        device_mac=abi.mac(device_mac),
        ttl=0 if entry.ttl == "inherit" else entry.ttl,
        tos=0 if entry.tos == "inherit" else entry.tos,
        mss_ipv4=entry.mss_ipv4 or 0,
        mss_ipv6=entry.mss_ipv6 or 0,
    )


def decode_tunnel(tunnel: abi.Tunnel, *, is_bound: bool) -> TunnelEntry:
    """The inverse of ``encode_tunnel``."""
    flags = TunnelFlag(tunnel.flags)
    inherit: Literal["inherit"] = "inherit"
    return TunnelEntry(
        name=tunnel.name.decode(),
        local=abi.read_ipv4(tunnel.local),
        remote=abi.read_ipv4(tunnel.remote),
        ikey=abi.read_gre_key(tunnel.ikey) if flags & TunnelFlag.IKEY else None,
        okey=abi.read_gre_key(tunnel.okey) if flags & TunnelFlag.OKEY else None,
        ttl=inherit if flags & TunnelFlag.TTL_INHERIT else tunnel.ttl,
        tos=inherit if flags & TunnelFlag.TOS_INHERIT else tunnel.tos,
        pmtudisc=bool(flags & TunnelFlag.PMTUDISC),
        mtu=tunnel.mtu,
        mss_ipv4=tunnel.mss_ipv4 or None,
        mss_ipv6=tunnel.mss_ipv6 or None,
        is_bound=is_bound,
    )


def receiving_endpoint(entry: TunnelEntry) -> abi.Endpoint4:
    """What a packet of this tunnel looks like on receive."""
    return abi.Endpoint4(
        local=abi.ipv4(entry.local),
        remote=abi.ipv4(entry.remote),
        key=abi.gre_key(entry.ikey),
        kind=EndpointKind.KEYLESS if entry.ikey is None else EndpointKind.KEYED,
    )


def pair_endpoint(entry: TunnelEntry) -> abi.Endpoint4:
    """Says that local and remote are known, whatever the key."""
    return abi.Endpoint4(
        local=abi.ipv4(entry.local), remote=abi.ipv4(entry.remote), kind=EndpointKind.PAIR
    )


def local_endpoint(entry: TunnelEntry) -> abi.Endpoint4:
    """Says that tunnels of ours end at this local."""
    return abi.Endpoint4(local=abi.ipv4(entry.local), kind=EndpointKind.LOCAL)
