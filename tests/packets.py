"""Named scapy packets of one gateway between a LAN and two underlay next hops.

LAN 10.1.0.2, 2001:db8:a::2 ─── eth1 [gateway] eth0 ─── 192.0.2.2 … and, by 192.0.2.254, the rest
                                                    ─── 2001:db8:e::2 … and, by 2001:db8:e::fe, …
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Dot3, Ether
from scapy.packet import Packet, Raw

# Link addresses.
UNDERLAY_MAC: Final = "02:00:00:00:00:01"  # eth0
LAN_MAC: Final = "02:00:00:00:01:01"  # eth1
UNATTACHED_MAC: Final = "02:00:00:00:02:01"  # eth2, which is not in the configuration
REMOTE_MAC: Final = "02:00:00:00:00:02"  # every remote on the underlay's own link
GATEWAY_MAC: Final = "02:00:00:00:00:fe"  # 192.0.2.254, towards all other remotes
HOST_MAC: Final = "02:00:00:00:01:02"  # every host of the LAN
STRANGER_MAC: Final = "02:00:00:00:99:99"

# Addresses of the underlay.
LOCAL: Final = "192.0.2.1"
OTHER_LOCAL: Final = "192.0.2.11"  # where the tunnel "second" ends
NO_LOCAL: Final = "192.0.2.10"  # ours, but no tunnel ends there
REMOTE: Final = "192.0.2.2"  # of tunnels "plain" (no key) and "zero" (key 0)
FAR_REMOTE: Final = "198.51.100.7"  # of tunnel "keyed", by the gateway
SPLIT_REMOTE: Final = "198.51.100.8"  # of tunnel "split"
INHERIT_REMOTE: Final = "192.0.2.3"
FIXED_REMOTE: Final = "192.0.2.4"
SECOND_REMOTE: Final = "192.0.2.5"
NARROW_REMOTE: Final = "192.0.2.6"
SUMMED_REMOTE: Final = "192.0.2.21"  # csum
NUMBERED_REMOTE: Final = "192.0.2.22"  # seq
FULL_REMOTE: Final = "192.0.2.23"  # csum, key and seq
GUARDED_REMOTE: Final = "192.0.2.24"  # allowed_sources
LOST_REMOTE: Final = "192.0.2.66"  # on link, but nobody answers for it
NOWHERE_REMOTE: Final = "203.0.113.9"  # no route
ASTRAY_REMOTE: Final = "203.0.113.20"  # routed to an interface without XDP
NESTED_REMOTE: Final = "203.0.113.30"  # routed into the tunnel "plain"
STRANGER: Final = "203.0.113.200"  # nobody's remote

# The same over IPv6; only those that a test names have a name.
LOCAL6: Final = "2001:db8:e::1"
OTHER_LOCAL6: Final = "2001:db8:e::11"  # where the tunnel "second6" ends
NO_LOCAL6: Final = "2001:db8:e::10"  # ours, but no tunnel ends there
GATEWAY6: Final = "2001:db8:e::fe"
REMOTE6: Final = "2001:db8:e::2"  # of tunnels "plain6" (no key) and "zero6" (key 0)
SECOND_REMOTE6: Final = "2001:db8:e::5"
LOST_REMOTE6: Final = "2001:db8:e::66"
ASTRAY_REMOTE6: Final = "2001:db8:ffff::20"
NESTED_REMOTE6: Final = "2001:db8:ffff::30"
STRANGER6: Final = "2001:db8:ffff::200"

KEY: Final = 77
ZERO_KEY: Final = 0
IKEY: Final = 5
OKEY: Final = 0xC0000209

# Hosts: on the LAN, and behind the tunnels (each tunnel routes 10.N/16 and 2001:db8:N::/48).
HOST4: Final = "10.1.0.2"
HOST6: Final = "2001:db8:a::2"
SITE: Final = {
    "plain": ("10.20.0.2", "2001:db8:20::2"),
    "keyed": ("10.21.0.2", "2001:db8:21::2"),
    "zero": ("10.22.0.2", "2001:db8:22::2"),
    "split": ("10.23.0.2", "2001:db8:23::2"),
    "inherit": ("10.24.0.2", "2001:db8:24::2"),
    "fixed": ("10.25.0.2", "2001:db8:25::2"),
    "second": ("10.26.0.2", "2001:db8:26::2"),
    "lost": ("10.27.0.2", "2001:db8:27::2"),
    "nowhere": ("10.28.0.2", "2001:db8:28::2"),
    "astray": ("10.29.0.2", "2001:db8:29::2"),
    "nested": ("10.30.0.2", "2001:db8:30::2"),
    "narrow": ("10.31.0.2", "2001:db8:31::2"),
    "summed": ("10.32.0.2", "2001:db8:32::2"),
    "numbered": ("10.33.0.2", "2001:db8:33::2"),
    "full": ("10.34.0.2", "2001:db8:34::2"),
    "guarded": ("10.35.0.2", "2001:db8:35::2"),
    "plain6": ("10.36.0.2", "2001:db8:36::2"),
    "zero6": ("10.37.0.2", "2001:db8:37::2"),
    "keyed6": ("10.38.0.2", "2001:db8:38::2"),
    "split6": ("10.39.0.2", "2001:db8:39::2"),
    "inherit6": ("10.40.0.2", "2001:db8:40::2"),
    "fixed6": ("10.41.0.2", "2001:db8:41::2"),
    "second6": ("10.42.0.2", "2001:db8:42::2"),
    "lost6": ("10.43.0.2", "2001:db8:43::2"),
    "nowhere6": ("10.44.0.2", "2001:db8:44::2"),
    "astray6": ("10.45.0.2", "2001:db8:45::2"),
    "nested6": ("10.46.0.2", "2001:db8:46::2"),
    "summed6": ("10.47.0.2", "2001:db8:47::2"),
    "numbered6": ("10.48.0.2", "2001:db8:48::2"),
    "full6": ("10.49.0.2", "2001:db8:49::2"),
    "tap": ("10.50.0.2", "2001:db8:50::2"),
    "tapfull": ("10.51.0.2", "2001:db8:51::2"),
    "tapinherit": ("10.52.0.2", "2001:db8:52::2"),
    "tapfixed": ("10.53.0.2", "2001:db8:53::2"),
    "tap6": ("10.54.0.2", "2001:db8:54::2"),
    "tapfull6": ("10.55.0.2", "2001:db8:55::2"),
    "tapinherit6": ("10.56.0.2", "2001:db8:56::2"),
    "behind": ("10.57.0.2", "2001:db8:57::2"),
    "behind6": ("10.58.0.2", "2001:db8:58::2"),
    "behindtwo": ("10.59.0.2", "2001:db8:59::2"),
}
SITE4, SITE6 = SITE["plain"]


@dataclass(frozen=True)
class End:
    """Both ends of a tunnel, the next hop to the far one, and the keys of sent and received GRE."""

    remote: str = REMOTE
    local: str = LOCAL
    mac: str = REMOTE_MAC
    okey: int | None = None
    ikey: int | None = None

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.local


ENDS: Final = {
    "plain": End(),
    "keyed": End(FAR_REMOTE, mac=GATEWAY_MAC, okey=KEY, ikey=KEY),
    "zero": End(okey=ZERO_KEY, ikey=ZERO_KEY),
    "split": End(SPLIT_REMOTE, mac=GATEWAY_MAC, okey=OKEY, ikey=IKEY),
    "inherit": End(INHERIT_REMOTE),
    "fixed": End(FIXED_REMOTE),
    "second": End(SECOND_REMOTE, local=OTHER_LOCAL),
    "narrow": End(NARROW_REMOTE),
    "summed": End(SUMMED_REMOTE),
    "numbered": End(NUMBERED_REMOTE),
    "full": End(FULL_REMOTE, okey=KEY, ikey=KEY),
    "guarded": End(GUARDED_REMOTE),
    "plain6": End(REMOTE6, LOCAL6),
    "zero6": End(REMOTE6, LOCAL6, okey=ZERO_KEY, ikey=ZERO_KEY),
    "keyed6": End("2001:db8:f::7", LOCAL6, GATEWAY_MAC, okey=KEY, ikey=KEY),
    "split6": End("2001:db8:f::8", LOCAL6, GATEWAY_MAC, okey=OKEY, ikey=IKEY),
    "inherit6": End("2001:db8:e::3", LOCAL6),
    "fixed6": End("2001:db8:e::4", LOCAL6),
    "second6": End(SECOND_REMOTE6, OTHER_LOCAL6),
    "lost6": End(LOST_REMOTE6, LOCAL6),
    "nowhere6": End("2001:db8:ffff::9", LOCAL6),
    "astray6": End(ASTRAY_REMOTE6, LOCAL6),
    "nested6": End(NESTED_REMOTE6, LOCAL6),
    "summed6": End("2001:db8:e::21", LOCAL6),
    "numbered6": End("2001:db8:e::22", LOCAL6),
    "full6": End("2001:db8:e::23", LOCAL6, okey=KEY, ikey=KEY),
    "tap": End("192.0.2.31"),
    "tapfull": End("192.0.2.32", okey=KEY, ikey=KEY),
    "tapinherit": End("192.0.2.33"),
    "tapfixed": End("192.0.2.34"),
    "tap6": End("2001:db8:e::31", LOCAL6),
    "tapfull6": End("2001:db8:e::32", LOCAL6, okey=KEY, ikey=KEY),
    "tapinherit6": End("2001:db8:e::33", LOCAL6),
    # Their remotes are behind VLANs, which tests/program/vlans.py makes.
    "behind": End("198.18.9.2"),
    "behind6": End("2001:db8:f9::2", LOCAL6),
    "behindtwo": End("198.18.98.2"),
}

# The offsets of headers in a frame of ours: the outer IPv4 header, GRE, and what GRE carries.
OUTER_AT: Final = 14
GRE_AT: Final = 34
INNER_AT: Final = 38  # without a checksum, a key or a sequence number
GRE_AT6: Final = 54  # behind an outer IPv6 header


def payload(length: int) -> Raw:
    """That many octets, none of them zero and no two neighbours alike."""
    return Raw(bytes(1 + (7 * i) % 251 for i in range(length)))


def udp(
    src: str, dst: str, length: int = 26, *, ttl: int = 64, tos: int = 0, **ip: object
) -> Packet:
    """An IPv4 or IPv6 packet that carries ``length`` octets in UDP; ``ip`` are header fields."""
    if ":" in dst:
        header = IPv6(src=src, dst=dst, hlim=ttl, tc=tos, **ip)
    else:
        header = IP(**{"src": src, "dst": dst, "ttl": ttl, "tos": tos, "id": 7, **ip})
    # Read back, so that every length and checksum is there.
    return type(header)(bytes(header / UDP(sport=53, dport=4242) / payload(length)))


def to_site(tunnel: str, version: int, length: int = 26, **ip: object) -> Packet:
    """A packet from the LAN to the site behind a tunnel."""
    return udp({4: HOST4, 6: HOST6}[version], _site(tunnel, version), length, **ip)


def to_lan(tunnel: str, version: int, length: int = 26, **ip: object) -> Packet:
    """A packet from the site behind a tunnel to the LAN."""
    return udp(_site(tunnel, version), {4: HOST4, 6: HOST6}[version], length, **ip)


def of_bytes(
    packet_bytes: int, make: Callable[..., Packet], *where: object, **ip: object
) -> Packet:
    """A packet of that many bytes, from its IP header on, as ``make`` makes them."""
    empty = make(*where, 0, **ip)
    return make(*where, packet_bytes - len(empty), **ip)


def _site(tunnel: str, version: int) -> str:
    return SITE[tunnel][0 if version == 4 else 1]


def spent(packet: Packet) -> Packet:
    """The packet one hop later, its checksum made anew."""
    packet = packet.copy()
    if isinstance(packet, IPv6):
        packet.hlim -= 1
    else:
        packet.ttl -= 1
        packet.chksum = None
    return type(packet)(bytes(packet))


def ethertype(packet: Packet | bytes) -> int:
    """0x0800 or 0x86DD; 0x8847 of a label stack, and 0x6558 of a frame, which octets are."""
    if isinstance(packet, MPLS):
        return 0x8847
    if isinstance(packet, bytes | Ether | Dot3):
        return 0x6558
    return 0x86DD if isinstance(packet, IPv6) else 0x0800


def on_lan(packet: Packet, dst: str = LAN_MAC) -> Packet:
    """A frame from a host of the LAN to the gateway."""
    return Ether(src=HOST_MAC, dst=dst, type=ethertype(packet)) / packet


def out_of_lan(packet: Packet) -> Packet:
    """The frame in which the gateway sends a packet to a host of the LAN."""
    return Ether(src=LAN_MAC, dst=HOST_MAC, type=ethertype(packet)) / packet


def onto_device(packet: Packet, mac: str) -> Packet:
    """The frame in which a packet arrives on a tunnel's device."""
    return Ether(src=mac, dst=mac, type=ethertype(packet)) / packet


def gre(inner: Packet | bytes, key: int | None = None, **header: object) -> Packet:
    """GRE and what it carries; ``header`` are scapy's fields."""
    if key is not None:
        header = {"key_present": 1, "key": key, **header}
    return GRE(**{"proto": ethertype(inner), **header}) / inner


def received(
    carried: Packet, tunnel: str = "plain", *, mac: str = UNDERLAY_MAC, **ip: object
) -> Packet:
    """The frame in which GRE arrives from a tunnel's remote; ``ip`` are fields of its header."""
    end = ENDS[tunnel]
    header = outer({"src": end.remote, "dst": end.local, "id": 99, "ttl": 61, **ip})
    return Ether(src=end.mac, dst=mac, type=ethertype(header)) / header / carried


def came(
    tunnel: str, inner: Packet | bytes, header: dict[str, object] | None = None, **ip: object
) -> Packet:
    """The frame in which something arrives through a tunnel; ``header`` are fields of GRE."""
    return received(gre(inner, ENDS[tunnel].ikey, **(header or {})), tunnel, **ip)


def sent(carried: Packet, tunnel: str = "plain", **ip: object) -> Packet:
    """The frame in which the gateway sends GRE to a tunnel's remote; by default DF and TTL 64."""
    end = ENDS[tunnel]
    header = outer({"src": end.local, "dst": end.remote, "id": 0, "ttl": 64, **ip})
    return Ether(src=UNDERLAY_MAC, dst=end.mac, type=ethertype(header)) / header / carried


def outer(ip: dict[str, object]) -> Packet:
    """An outer header of the family of its ends; IPv6 takes ``ttl`` and ``tos``, and no ``id``."""
    if ":" not in str(ip["dst"]):
        return IP(**{"proto": 47, "flags": "DF", **ip})
    names = {"ttl": "hlim", "tos": "tc"}
    fields = {names.get(name, name): value for name, value in ip.items() if name != "id"}
    return IPv6(**{"nh": 47, **fields})


def flow_label(frame: bytes) -> int:
    """Of a frame's IPv6 header."""
    return int.from_bytes(frame[OUTER_AT : OUTER_AT + 4], "big") & 0xFFFFF


def tagged(frame: Packet | bytes, *tags: tuple[int, int]) -> bytes:
    """The frame with VLAN tags, the outer first; each a protocol and a TCI (mostly an ID)."""
    raw = bytes(frame)
    words = b"".join(word.to_bytes(2, "big") for tag in tags for word in tag)
    return raw[:12] + words + raw[12:]


def cut(frame: Packet, length: int) -> bytes:
    """The first octets of a frame, whose outer IP header says that this is all there is."""
    raw = bytearray(bytes(frame)[:length])
    if raw[OUTER_AT] >> 4 == 6:
        raw[OUTER_AT + 4 : OUTER_AT + 6] = (length - GRE_AT6).to_bytes(2, "big")
        return bytes(raw)
    short = Ether(bytes(raw))
    short[IP].len = length - len(Ether())
    short[IP].chksum = None
    return bytes(short)


def patched(frame: Packet | bytes, at: int, octets: bytes) -> bytes:
    """The frame with other octets at an offset, and nothing made to fit them."""
    raw = bytearray(bytes(frame))
    raw[at : at + len(octets)] = octets
    return bytes(raw)
