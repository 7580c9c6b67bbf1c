"""How many bytes the headers of a tunnel take, and what that leaves: pure arithmetic."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, Protocol

from gre_xdp.values import IPAddress

# RFC 8200 section 5: every link carries this much, and no sender goes below it.
IPV6_MIN_MTU: Final = 1280

_IP_BYTES: Final = {4: 20, 6: 40}  # RFC 791, RFC 8200: fixed headers, no options
_GRE_BYTES: Final = 4  # RFC 2784 section 2
_GRE_OPTION_BYTES: Final = 4  # checksum and reserved1 (RFC 2784), key, sequence (RFC 2890)
_INNER_ETHERNET_BYTES: Final = 14
_TCP_BYTES: Final = 20  # RFC 6691: the MSS leaves options out of account


class Sender(Protocol):
    """What decides on headers: a tunnel of the configuration, or of the data path."""

    @property
    def local(self) -> IPAddress: ...  # noqa: D102
    @property
    def okey(self) -> int | None: ...  # noqa: D102
    @property
    def ocsum(self) -> bool: ...  # noqa: D102
    @property
    def oseq(self) -> bool: ...  # noqa: D102
    @property
    def payload(self) -> Literal["ip", "ethernet"]: ...  # noqa: D102


def headers(tunnel: Sender) -> dict[str, int]:
    """Bytes of each header of a sent packet before the inner IP header, in order.

    Receiving does not bound our MTU.
    """
    version = tunnel.local.version
    found = {f"outer IPv{version}": _IP_BYTES[version], "GRE": _GRE_BYTES}
    for name, is_sent in (
        ("GRE checksum", tunnel.ocsum),
        ("GRE key", tunnel.okey is not None),
        ("GRE sequence", tunnel.oseq),
    ):
        if is_sent:
            found[name] = _GRE_OPTION_BYTES
    if tunnel.payload == "ethernet":
        found["inner Ethernet"] = _INNER_ETHERNET_BYTES
    return found


def overhead_bytes(tunnel: Sender) -> int:
    """Bytes of a sent packet before the inner IP header."""
    return sum(headers(tunnel).values())


def tunnel_mtu(underlay_mtu: int, tunnel: Sender) -> int:
    """Bytes of the longest inner packet that fits the underlay's MTU (in bytes) unfragmented.

    This is what ``mtu = "auto"`` means; an underlay that carries nothing gives zero or less.
    """
    return underlay_mtu - overhead_bytes(tunnel)


def mss(mtu: int, family: Literal[4, 6]) -> int:
    """TCP maximum segment size in bytes for packets of ``mtu`` bytes: MTU - 40 (IPv4) or - 60.

    RFC 6691: fixed headers of IP and TCP are subtracted, options are not.
    """
    return mtu - _IP_BYTES[family] - _TCP_BYTES


@dataclass(frozen=True, slots=True)
class Transfer:
    """What it takes to carry bytes by TCP: packets of full size but the last, and their bytes."""

    packets: int
    wire_bytes: int  # IP packets as the underlay carries them, without link headers


def transfer(
    payload_bytes: int, underlay_mtu: int, family: Literal[4, 6], tunnel: Sender | None = None
) -> Transfer:
    """The cost of a TCP transfer over IPv4 or IPv6, through a tunnel or without one.

    Raises ``ValueError`` where no segment fits.
    """
    extra = overhead_bytes(tunnel) if tunnel else 0
    segment = mss(underlay_mtu - extra, family)
    if segment <= 0:
        raise ValueError(f"nothing fits into {underlay_mtu} bytes")
    packets = -(-payload_bytes // segment)
    per_packet = extra + _IP_BYTES[family] + _TCP_BYTES
    return Transfer(packets, payload_bytes + packets * per_packet)
