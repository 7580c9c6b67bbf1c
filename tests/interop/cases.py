"""GRE frames by the thousand for a comparison of two receivers: good ones, and what goes wrong.

A ``Case`` says everything about one frame. Each deviation changes a case; they are tried one at a
time on every tunnel, and then some at once, at random from a fixed seed. Besides, frames are cut
everywhere, and each bit of their headers is flipped.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from random import Random

from interop import wire
from interop.stand import (
    HOST,
    KEY,
    LOCAL,
    NARROW,
    NOWHERE,
    OURS,
    REMOTE_MAC,
    SILENT,
    TUNNELS,
    UNREACHABLE,
    Tunnel,
)

SEED = 2784
BRIDGED = (bytes.fromhex("02000000f00a"), bytes.fromhex("02000000f00b"))
NOP, ROUTER_ALERT = b"\x01", b"\x94\x04\x00\x00"
RECORD_ROUTE = b"\x07\x07\x04\x00\x00\x00\x00\x00"


@dataclass
class Case:
    """One frame to be; what is None follows from the tunnel."""

    tunnel: Tunnel
    number: int
    name: str = ""
    # The link header.
    to: str | None = None
    tags: tuple[int, ...] = ()
    trailer: bytes = b""
    # The outer header.
    src: str | None = None
    dst: str | None = None
    outer: dict[str, int] = field(default_factory=dict)
    outer_options: bytes = b""
    outer_protocol: int = wire.GRE
    extensions: tuple[tuple[int, bytes], ...] = ()  # kind, and what is behind its first two octets
    # GRE.
    gre: dict[str, int] = field(default_factory=dict)
    protocol: int | None = None
    has_key: bool | None = None
    key: int | None = None
    summed: bool | None = None
    sequence: int | None = None
    has_sequence: bool | None = None
    # The inner packet.
    version: int = 4
    inner_src: str | None = None
    inner_dst: str | None = None
    inner: dict[str, int] = field(default_factory=dict)
    inner_options: bytes = b""
    inner_extensions: tuple[tuple[int, bytes], ...] = ()
    inner_protocol: int = wire.UDP
    content: bytes = b"sixteen octets.."
    inner_tags: tuple[int, ...] = ()
    inner_kind: int | None = None
    carried: bytes | None = None
    rest: bytes = b""  # inside the outer packet, behind the inner one
    whole: bytes | None = None  # all that the outer header carries

    def build(self, mac: str) -> bytes:
        tunnel = self.tunnel
        gre = wire.gre(
            (self._protocol() if self.protocol is None else self.protocol),
            (self._carried() if self.carried is None else self.carried) + self.rest,
            summed=tunnel.csum if self.summed is None else self.summed,
            key=self._key(),
            sequence=self._sequence(),
            **self.gre,
        )
        gre = gre if self.whole is None else self.whole
        src = self.src or tunnel.remote
        dst = self.dst or LOCAL[tunnel.outer]
        if tunnel.outer == 4:
            outer = wire.ipv4(
                src,
                dst,
                self.outer_protocol,
                gre,
                options=self.outer_options,
                **{"ident": self.number, "ttl": 61, **self.outer},
            )
        else:
            kind, chain = _chain(self.extensions, self.outer_protocol, gre)
            label = {"label": self.number, "ttl": 61}
            outer = wire.ipv6(src, dst, kind, chain, **{**label, **self.outer})
        return (
            wire.ethernet(
                wire.mac(self.to or mac),
                wire.mac(REMOTE_MAC),
                {4: wire.IPV4, 6: wire.IPV6}[tunnel.outer],
                outer,
                self.tags,
            )
            + self.trailer
        )

    def _protocol(self) -> int:
        if self.tunnel.payload == "ethernet":
            return wire.TEB
        return {4: wire.IPV4, 6: wire.IPV6}[self.version]

    def _key(self) -> int | None:
        has_key = self.tunnel.key is not None if self.has_key is None else self.has_key
        if not has_key:
            return None
        return (self.tunnel.key or 0) if self.key is None else self.key

    def _sequence(self) -> int | None:
        has_sequence = self.tunnel.seq if self.has_sequence is None else self.has_sequence
        if not has_sequence:
            return None
        # Case numbers rise, so each is fresh, whatever became of those before.
        return FIRST_SEQUENCE + self.number if self.sequence is None else self.sequence

    def packet(self) -> bytes:
        """The inner IP packet."""
        version = self.version
        src = self.inner_src or self.tunnel.site(version)
        dst = self.inner_dst or HOST[version]
        content = self.content + self.number.to_bytes(4, "big")
        content = wire.udp(content) if self.inner_protocol == wire.UDP else content
        if version == 4:
            return wire.ipv4(
                src,
                dst,
                self.inner_protocol,
                content,
                options=self.inner_options,
                **{"ident": self.number, **self.inner},
            )
        kind, chain = _chain(self.inner_extensions, self.inner_protocol, content)
        return wire.ipv6(src, dst, kind, chain, **{"label": self.number, **self.inner})

    def _carried(self) -> bytes:
        packet = self.packet()
        if self.tunnel.payload != "ethernet":
            return packet
        kind = {4: wire.IPV4, 6: wire.IPV6}[self.version]
        kind = kind if self.inner_kind is None else self.inner_kind
        return wire.ethernet(*BRIDGED, kind, packet, self.inner_tags)


FIRST_SEQUENCE = 1000


def _chain(
    extensions: tuple[tuple[int, bytes], ...], protocol: int, content: bytes
) -> tuple[int, bytes]:
    """The first next-header value, and everything behind the fixed header."""
    kind = protocol
    for extension, octets in reversed(extensions):
        size = 0 if extension == wire.FRAGMENT else (len(octets) + 2) // 8 - 1
        content = bytes([kind, size]) + octets + content
        kind = extension
    return kind, content


# --- deviations -----------------------------------------------------------------------------------

Deviation = Callable[[Case, Random], None]
DEVIATIONS: dict[str, Deviation] = {}


def _deviation(function: Deviation) -> Deviation:
    DEVIATIONS[function.__name__] = function
    return function


def _any_bytes(random: Random, most: int) -> bytes:
    return random.randbytes(random.randint(1, most))


@_deviation
def nothing(case: Case, random: Random) -> None:
    pass


@_deviation
def long_content(case: Case, random: Random) -> None:
    case.content = random.randbytes(random.choice((700, 1001, 1300)))


@_deviation
def another_mac(case: Case, random: Random) -> None:
    case.to = "02:00:00:00:99:99"


@_deviation
def vlan_tag(case: Case, random: Random) -> None:
    case.tags = (random.choice((wire.VLAN, wire.SERVICE_VLAN)) << 16 | random.choice((5, 4094)),)


@_deviation
def padding(case: Case, random: Random) -> None:
    case.trailer = _any_bytes(random, 40)


@_deviation
def another_remote(case: Case, random: Random) -> None:
    case.src = {4: "192.0.2.200", 6: "2001:db8:f::200"}[case.tunnel.outer]


@_deviation
def another_protocol(case: Case, random: Random) -> None:
    case.outer_protocol = random.choice((4, 41, 17, 6, 46, 48, 137))


@_deviation
def outer_tos(case: Case, random: Random) -> None:
    case.outer["tos"] = random.randrange(256)


@_deviation
def outer_ttl(case: Case, random: Random) -> None:
    case.outer["ttl"] = random.choice((0, 1, 2, 255))


@_deviation
def outer_length(case: Case, random: Random) -> None:
    case.outer["extra_length"] = random.choice((-30, -20, -4, -3, -1, 1, 5, 100))


@_deviation
def outer_length_with_padding(case: Case, random: Random) -> None:
    case.trailer = random.randbytes(40)
    case.outer["extra_length"] = random.choice((-30, -4, -1, 1, 5, 39, 40))


@_deviation
def outer_version(case: Case, random: Random) -> None:
    case.outer["version"] = random.choice((0, 5, 4, 6, 15))


@_deviation
def outer_checksum(case: Case, random: Random) -> None:
    if case.tunnel.outer == 4:
        case.outer["checksum_xor"] = random.choice((1, 0x8000, 0xFFFF))


@_deviation
def outer_options(case: Case, random: Random) -> None:
    if case.tunnel.outer == 4:
        case.outer_options = random.choice((NOP * 4, ROUTER_ALERT, NOP * 40, RECORD_ROUTE))


@_deviation
def outer_header_words(case: Case, random: Random) -> None:
    if case.tunnel.outer == 4:
        case.outer["words"] = random.choice((0, 4, 6, 15))


@_deviation
def outer_fragment(case: Case, random: Random) -> None:
    """One of a datagram that never becomes whole."""
    if case.tunnel.outer == 4:
        case.outer["fragment"] = random.choice((0x2000, 0x2001, 0x0003, 0x6000, 0x1FFF))
    else:
        word = random.choice((0x0001, 0x0008, 0x0009))
        identification = case.number.to_bytes(4, "big")
        case.extensions = ((wire.FRAGMENT, word.to_bytes(2, "big") + identification),)


@_deviation
def outer_dont_fragment(case: Case, random: Random) -> None:
    if case.tunnel.outer == 4:
        case.outer["fragment"] = random.choice((0, 0x4000, 0x8000, 0xC000))


@_deviation
def encapsulation_limit(case: Case, random: Random) -> None:
    """As Linux sends it; and with three Pad1 for its PadN, and limits that mean nothing to us."""
    if case.tunnel.outer == 6:
        limit = bytes([4, 1, random.choice((0, 4, 255))])
        padding = random.choice((b"\x01\x01\x00", b"\x00\x00\x00"))
        case.extensions = ((wire.DESTINATION, limit + padding),)


@_deviation
def outer_extension(case: Case, random: Random) -> None:
    if case.tunnel.outer == 6:
        case.extensions = random.choice(
            (
                ((wire.HOP_BY_HOP, b"\x01\x04\0\0\0\0"),),
                ((wire.DESTINATION, b"\x01\x04\0\0\0\0"),),
                ((wire.DESTINATION, b"\x04\x01\x04\x01\x01\0" + b"\x01\x06" + bytes(6)),),
                ((wire.HOP_BY_HOP, b"\x01\x04\0\0\0\0"), (wire.DESTINATION, b"\x04\x01\4\1\1\0")),
                ((wire.DESTINATION, b"\x04\x01\4\1\1\0"), (wire.DESTINATION, b"\x04\x01\4\1\1\0")),
                ((wire.DESTINATION, b"\xc2\x04\0\0\0\0"),),
                ((wire.DESTINATION, b"\x04\x02\4\1\1\0"),),
                ((wire.ROUTING, b"\0\0\0\0\0\0"),),
                ((wire.DESTINATION, b"\x04\x01\4\1\1\0"), (wire.ROUTING, b"\0\0\0\0\0\0")),
            )
        )


@_deviation
def whole_outer_fragment(case: Case, random: Random) -> None:
    """A fragment header of what is no fragment (RFC 6946)."""
    if case.tunnel.outer == 6:
        case.extensions = ((wire.FRAGMENT, b"\0\0" + case.number.to_bytes(4, "big")),)


@_deviation
def gre_low_bits(case: Case, random: Random) -> None:
    """Bits 6 to 12, which are to be ignored."""
    case.gre["bits"] = case.gre.get("bits", 0) ^ 1 << random.randint(3, 9)


@_deviation
def gre_bits_6_to_8(case: Case, random: Random) -> None:
    case.gre["bits"] = case.gre.get("bits", 0) ^ random.choice((0x200, 0x100, 0x80, 0x380))


@_deviation
def gre_reserved_bits(case: Case, random: Random) -> None:
    case.gre["bits"] = case.gre.get("bits", 0) ^ random.choice((0x0800, 0x0400, 0x0C00))


@_deviation
def gre_routing_bit(case: Case, random: Random) -> None:
    case.gre["bits"] = case.gre.get("bits", 0) ^ wire.ROUTE


@_deviation
def gre_version(case: Case, random: Random) -> None:
    case.gre["bits"] = case.gre.get("bits", 0) ^ random.randint(1, 7)


@_deviation
def gre_presence_bits(case: Case, random: Random) -> None:
    """A bit that says a word is there, and it is not; or the other way round."""
    bits = random.choice((wire.CHECKSUM, wire.KEY, wire.SEQUENCE))
    case.gre["bits"] = case.gre.get("bits", 0) ^ bits


@_deviation
def wrong_key(case: Case, random: Random) -> None:
    case.has_key, case.key = True, random.choice((1, KEY + 1, KEY ^ 1 << 31, 0xFFFFFFFF))


@_deviation
def right_key_or_zero(case: Case, random: Random) -> None:
    case.has_key, case.key = True, random.choice((0, KEY))


@_deviation
def no_key(case: Case, random: Random) -> None:
    case.has_key = False


@_deviation
def with_checksum(case: Case, random: Random) -> None:
    case.summed = True
    case.gre["reserved"] = random.choice((0, 0, 1, 0xFFFF))


@_deviation
def without_checksum(case: Case, random: Random) -> None:
    case.summed = False


@_deviation
def wrong_checksum(case: Case, random: Random) -> None:
    case.summed = True
    case.gre["checksum_xor"] = random.choice((1, 0x0100, 0x8000))


@_deviation
def negative_zero_checksum(case: Case, random: Random) -> None:
    """Inverted, so wrong unless the sum is nothing."""
    case.summed = True
    case.gre["checksum_xor"] = 0xFFFF


@_deviation
def odd_and_summed(case: Case, random: Random) -> None:
    case.summed = True
    case.content = random.randbytes(random.choice((1, 511, 1023)))


@_deviation
def with_sequence(case: Case, random: Random) -> None:
    case.has_sequence = True


@_deviation
def without_sequence(case: Case, random: Random) -> None:
    case.has_sequence = False


@_deviation
def old_sequence(case: Case, random: Random) -> None:
    """Long before what every tunnel has accepted."""
    case.has_sequence, case.sequence = True, random.randint(1, FIRST_SEQUENCE - 1)


@_deviation
def unknown_protocol(case: Case, random: Random) -> None:
    case.protocol = random.choice((0, 0x0806, 0x88BE, 0x880B, 0x00FE, 0x8848, 0xFFFF, 0x8100))


@_deviation
def wccp(case: Case, random: Random) -> None:
    case.protocol = wire.WCCP


@_deviation
def the_other_payload(case: Case, random: Random) -> None:
    case.protocol = wire.IPV4 if case.tunnel.payload == "ethernet" else wire.TEB


@_deviation
def the_other_version(case: Case, random: Random) -> None:
    """The protocol type says IPv4 of IPv6, and the other way round."""
    swapped = {4: wire.IPV6, 6: wire.IPV4}[case.version]
    if case.tunnel.payload == "ethernet":
        case.inner_kind = swapped
    else:
        case.protocol = swapped


@_deviation
def mpls(case: Case, random: Random) -> None:
    label = random.choice((0x00010140, 0x000640FF, 0x00000000, 0x00012000))
    stack = label.to_bytes(4, "big") + case.packet()
    if case.tunnel.payload == "ethernet":
        case.carried = wire.ethernet(*BRIDGED, wire.MPLS, stack)
    else:
        case.protocol, case.carried = wire.MPLS, stack


@_deviation
def inner_tos(case: Case, random: Random) -> None:
    case.inner["tos"] = random.randrange(256)


@_deviation
def inner_ttl(case: Case, random: Random) -> None:
    case.inner["ttl"] = random.choice((0, 1, 2, 255))


@_deviation
def inner_length(case: Case, random: Random) -> None:
    case.inner["extra_length"] = random.choice((-40, -30, -20, -10, -1, 1, 2, 60))


@_deviation
def inner_length_with_rest(case: Case, random: Random) -> None:
    """Octets behind the inner packet inside the outer one, of which some may be meant."""
    case.rest = _any_bytes(random, 40)
    case.inner["extra_length"] = random.choice((0, 0, 1, len(case.rest), len(case.rest) + 1))


@_deviation
def inner_version(case: Case, random: Random) -> None:
    case.inner["version"] = random.choice((0, 4, 5, 6, 7, 15))


@_deviation
def inner_checksum(case: Case, random: Random) -> None:
    if case.version == 4:
        case.inner["checksum_xor"] = random.choice((1, 0x8000, 0xFFFF))


@_deviation
def inner_header_words(case: Case, random: Random) -> None:
    if case.version == 4:
        case.inner["words"] = random.choice((0, 1, 4, 6, 9, 15))


@_deviation
def inner_options(case: Case, random: Random) -> None:
    if case.version == 4:
        case.inner_options = random.choice((NOP * 4, ROUTER_ALERT, NOP * 40, b"\0" * 8))
    else:
        case.inner_extensions = random.choice(
            (((wire.HOP_BY_HOP, b"\x01\x04\0\0\0\0"),), ((wire.HOP_BY_HOP, b"\5\2\0\0\1\0"),))
        )


@_deviation
def inner_extension(case: Case, random: Random) -> None:
    if case.version == 6:
        case.inner_extensions = random.choice(
            (
                ((wire.DESTINATION, b"\x01\x04\0\0\0\0"),),
                ((wire.FRAGMENT, b"\0\x01" + case.number.to_bytes(4, "big")),),
                ((wire.FRAGMENT, b"\0\x09" + case.number.to_bytes(4, "big")),),
            )
        )


@_deviation
def inner_fragment(case: Case, random: Random) -> None:
    if case.version == 4:
        case.inner["fragment"] = random.choice((0, 0x2000, 0x2010, 0x0010, 0x8000, 0x6000))


@_deviation
def inner_protocol(case: Case, random: Random) -> None:
    case.inner_protocol = random.choice((1, 6, 50, 58, 59, 132, 253, 255, 4, 41))


@_deviation
def inner_gre(case: Case, random: Random) -> None:
    case.inner_protocol = wire.GRE
    case.content = wire.gre(random.choice((0, wire.IPV4)), b"anything")
    if random.random() < 0.5:
        case.inner_dst = LOCAL[case.version]


@_deviation
def for_the_gateway(case: Case, random: Random) -> None:
    choices = (OURS[case.version], LOCAL[case.version], case.tunnel.addresses[case.version == 6])
    case.inner_dst = random.choice(choices).partition("/")[0]


@_deviation
def to_nobody(case: Case, random: Random) -> None:
    choices = (SILENT, UNREACHABLE, NOWHERE)
    case.inner_dst = random.choice(choices)[case.version]


@_deviation
def to_another_site(case: Case, random: Random) -> None:
    """Out of one tunnel and into another, or back into the same."""
    other = TUNNELS[random.choice(list(TUNNELS))]
    case.inner_dst = other.site(case.version)
    if random.random() < 0.2:
        case.content = random.randbytes(1380)


@_deviation
def to_a_narrow_path(case: Case, random: Random) -> None:
    case.inner_dst = NARROW[case.version]
    case.content = random.randbytes(random.choice((100, 1228, 1300)))
    case.inner["fragment" if case.version == 4 else "ttl"] = random.choice((0, 0x40))


ODD_DESTINATIONS = {
    4: "224.0.0.5 239.1.2.3 255.255.255.255 10.1.0.255 10.1.0.0 127.0.0.1 0.0.0.0 240.0.0.1 "
    "169.254.7.7",
    6: "ff02::1 ff0e::1 fe80::7 ::1 :: ::ffff:10.1.0.2 2001:db8:a:: fec0::1 fd00::9",
}
ODD_SOURCES = {
    4: "224.0.0.5 255.255.255.255 127.0.0.1 0.0.0.0 240.0.0.1 0.1.2.3 169.254.9.9 192.0.2.99 "
    "10.1.0.5 203.0.113.9",
    6: "ff02::1 fe80::7 ::1 :: ::ffff:10.1.0.2 fec0::1 2001:db8:a::5 ::10.1.0.5 2001:db8:ffff::9",
}


@_deviation
def odd_destination(case: Case, random: Random) -> None:
    case.inner_dst = random.choice(ODD_DESTINATIONS[case.version].split())


@_deviation
def odd_source(case: Case, random: Random) -> None:
    case.inner_src = random.choice(ODD_SOURCES[case.version].split())


@_deviation
def our_source(case: Case, random: Random) -> None:
    case.inner_src = random.choice((OURS[case.version], LOCAL[case.version]))


@_deviation
def inner_vlan(case: Case, random: Random) -> None:
    if case.tunnel.payload == "ethernet":
        tag = random.choice((wire.VLAN, wire.SERVICE_VLAN)) << 16 | random.choice((5, 0xE005, 0))
        case.inner_tags = random.choice(((tag,), (wire.SERVICE_VLAN << 16 | 7, tag)))


@_deviation
def arp(case: Case, random: Random) -> None:
    request = bytes.fromhex("0001080006040001") + BRIDGED[1] + bytes(4) + bytes(6) + bytes(4)
    if case.tunnel.payload == "ethernet":
        case.carried = wire.ethernet(b"\xff" * 6, BRIDGED[1], wire.ARP, request)


@_deviation
def any_frame(case: Case, random: Random) -> None:
    """IEEE 802.3 lengths, loopback tests, spanning tree, and types that nobody knows."""
    if case.tunnel.payload == "ethernet":
        kind = random.choice((20, 0x9000, 0x88CC, 0x05FF, 0xFFFF, 0))
        case.carried = wire.ethernet(*BRIDGED, kind, case.content)


@_deviation
def arbitrary_content(case: Case, random: Random) -> None:
    case.carried = random.randbytes(random.choice((14, 20, 40, 60)))


# --- all of them ----------------------------------------------------------------------------------

MAY_BE_COMBINED = [name for name in DEVIATIONS if name != "nothing"]
SINGLE_TRIES, COMBINED = 4, 40_000
SHARED = [name for name, tunnel in TUNNELS.items() if not tunnel.is_apart]
# Not those with sequence numbers: a flipped bit there is a leap.
FLIPPED = [name for name in SHARED if not TUNNELS[name].seq]
# What decides whether there is an inner mark to look at.
MARKED = ("nothing", "inner_vlan", "inner_checksum", "inner_length", "inner_version")
MARKED += ("inner_options", "inner_fragment", "the_other_version", "mpls", "arp")


@dataclass
class Made:
    """A frame and what it was meant to be."""

    name: str
    raw: bytes


class Generator:
    """Hands out cases whose numbers rise."""

    def __init__(self, mac: str) -> None:
        self.mac = mac
        self.random = Random(SEED)  # noqa: S311 - the same frames each time
        self._number = 0

    def case(self, tunnel: str, version: int = 4) -> Case:
        self._number += 1
        return Case(TUNNELS[tunnel], self._number, f"{tunnel} IPv{version}", version=version)

    def made(self, case: Case) -> Made:
        return Made(case.name, case.build(self.mac))

    def deviating(self, tunnel: str, version: int, names: list[str]) -> Made:
        case = self.case(tunnel, version)
        for name in names:
            DEVIATIONS[name](case, self.random)
        case.name += " " + "+".join(names)
        return self.made(case)

    def singles(self) -> Iterator[Made]:
        """Each deviation alone, on every tunnel, with IPv4 and IPv6 inside."""
        for name in DEVIATIONS:
            for tunnel in SHARED:
                for version in (4, 6):
                    for _ in range(SINGLE_TRIES):
                        yield self.deviating(tunnel, version, [name])

    def combined(self) -> Iterator[Made]:
        """Two to four deviations at once."""
        names = MAY_BE_COMBINED
        for _ in range(COMBINED):
            some = self.random.sample(names, self.random.choice((2, 2, 2, 3, 4)))
            yield self.deviating(self.random.choice(SHARED), self.random.choice((4, 6)), some)

    def congestion(self) -> Iterator[Made]:
        """All sixteen cells of RFC 6040's figure 4, in whole packets and in others."""
        for tunnel in SHARED:
            for version in (4, 6):
                for name in MARKED:
                    for cell in range(16):
                        case = self.case(tunnel, version)
                        case.outer["tos"], case.inner["tos"] = 0x28 | cell >> 2, 0xB8 | cell & 3
                        DEVIATIONS[name](case, self.random)
                        case.name += f" {name}, outer ECN {cell >> 2}, inner {cell & 3}"
                        yield self.made(case)

    def cuts(self) -> Iterator[Made]:
        """Frames that end anywhere, with the outer length as it was or made right."""
        for tunnel in SHARED:
            for version in (4, 6):
                whole = len(self.made(self.case(tunnel, version)).raw)
                for length in range(14, whole):
                    for is_corrected in (False, True):
                        made = self.made(self.case(tunnel, version))
                        raw = bytearray(made.raw[:length])
                        if is_corrected:
                            repair_outer(raw)
                        yield Made(
                            f"{made.name} cut to {length}" + " ok" * is_corrected, bytes(raw)
                        )

    def flips(self) -> Iterator[Made]:
        """Each bit of the headers flipped, with checksums as they were or made right."""
        for tunnel in FLIPPED:
            for version in (4, 6):
                headers = len(self.made(self.case(tunnel, version)).raw) - 20
                for bit in range(8 * 12, 8 * headers):
                    for is_repaired in (False, True):
                        made = self.made(self.case(tunnel, version))
                        raw = bytearray(made.raw)
                        raw[bit // 8] ^= 0x80 >> bit % 8
                        if is_repaired:
                            repair(raw)
                        name = f"{made.name} octet {bit // 8} bit {bit % 8} flipped"
                        yield Made(name + " ok" * is_repaired, bytes(raw))

    def everything(self) -> Iterator[Made]:
        """Good frames first: they tell sequence numbers where to begin."""
        for family in (self.singles, self.congestion, self.cuts, self.flips, self.combined):
            yield from (made for made in family() if not self._is_leap(made))

    def _is_leap(self, made: Made) -> bool:
        """Whoever took this sequence number would take none of those that follow."""
        frame = wire.Frame(made.raw)
        if not frame.is_gre or not frame.has_gre_header or frame.sequence is None:
            return False
        return frame.sequence > FIRST_SEQUENCE + self._number


def repair_outer(raw: bytearray) -> int:
    """Make the outer header's length and checksum right; returns where it ends, 0 if it is none."""
    if len(raw) < 34 or raw[14] >> 4 not in (4, 6):
        return 0
    if raw[14] >> 4 == 6:
        raw[18:20] = (max(0, len(raw) - 54)).to_bytes(2, "big")
        return 54
    end = 14 + 4 * (raw[14] & 15)
    raw[16:18] = (len(raw) - 14).to_bytes(2, "big")
    _sum(raw, 24, raw[14:end])
    return end


def _sum(raw: bytearray, at: int, covered: bytes) -> None:
    """Put the checksum of what is covered to its place there."""
    old = int.from_bytes(raw[at : at + 2], "big")
    summed = wire.total(bytes(covered) + (0xFFFF ^ old).to_bytes(2, "big"))
    raw[at : at + 2] = (0xFFFF ^ summed).to_bytes(2, "big")


def repair(raw: bytearray) -> None:
    """Outer and inner IPv4 header and GRE checksum made right: else nearly all ends there."""
    end = repair_outer(raw)
    frame = wire.Frame(bytes(raw))
    if not end or not frame.is_gre or not frame.has_gre_header:
        return
    at = end + frame.gre_header_bytes + 14 * (frame.protocol == wire.TEB)
    inner_end = at + 4 * (raw[at] & 15) if at < len(raw) else 0
    if inner_end >= at + 20 and inner_end <= len(raw) and raw[at] >> 4 == 4:
        _sum(raw, at + 10, raw[at:inner_end])
    if frame.flags & wire.CHECKSUM and len(raw) >= end + 8:
        _sum(raw, end + 4, raw[end:])
