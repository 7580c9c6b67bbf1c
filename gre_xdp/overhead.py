"""How many bytes the headers of a tunnel take, and what that leaves: pure arithmetic."""

from __future__ import annotations

from typing import Final, Literal

from gre_xdp.model import Tunnel

_IP_BYTES: Final = {4: 20, 6: 40}  # RFC 791, RFC 8200: fixed headers, no options
_GRE_BYTES: Final = 4  # RFC 2784 section 2
_GRE_OPTION_BYTES: Final = 4  # checksum and reserved1 (RFC 2784), key, sequence (RFC 2890)
_INNER_ETHERNET_BYTES: Final = 14
_TCP_BYTES: Final = 20  # RFC 6691: the MSS leaves options out of account


def overhead_bytes(tunnel: Tunnel) -> int:
    """Bytes of a sent packet before the inner IP header; receiving does not bound our MTU."""
    options = (tunnel.ocsum, tunnel.okey is not None, tunnel.oseq)
    return (
        _IP_BYTES[tunnel.local.version]
        + _GRE_BYTES
        + _GRE_OPTION_BYTES * sum(options)
        + (_INNER_ETHERNET_BYTES if tunnel.payload == "ethernet" else 0)
    )


def tunnel_mtu(underlay_mtu: int, tunnel: Tunnel) -> int:
    """Bytes of the longest inner packet that fits the underlay's MTU (in bytes) unfragmented.

    This is what ``mtu = "auto"`` means; an underlay that carries nothing gives zero or less.
    """
    return underlay_mtu - overhead_bytes(tunnel)


def mss(mtu: int, family: Literal[4, 6]) -> int:
    """TCP maximum segment size in bytes for packets of ``mtu`` bytes: MTU - 40 (IPv4) or - 60.

    RFC 6691: fixed headers of IP and TCP are subtracted, options are not.
    """
    return mtu - _IP_BYTES[family] - _TCP_BYTES
