"""Where our gateway and a stock kernel (ip_gre and ip6_gre of Linux 6.1) knowingly do not agree.

Each difference says of which frames it is true, what both do with them, and why; and it has an
example whose last frame shows it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace

from interop import wire
from interop.cases import Case, Generator
from interop.judge import LOCALS, is_martian, our_words, site_of, their_words
from interop.stand import LOCAL, OURS, TUNNELS, Kernel, Tunnel
from program.bench import Outcome

ACCEPTS = "accepts"  # sends it on, or hands what was inside to the kernel
LEAVES = "unrelated"  # passes it as it came
CE = {"tos": 3}


@dataclass(frozen=True)
class Difference:
    """``ours`` is ACCEPTS, LEAVES or the words of a drop; ``theirs`` are the kernel's words.

    ``is_so`` is None where it takes several frames to see the difference.
    """

    name: str
    ours: str
    theirs: tuple[str, ...]
    why: str
    is_so: Callable[[wire.Frame], bool] | None
    example: Callable[[Generator], list[Case]]

    def is_seen(self, ours: Outcome, theirs: Kernel) -> bool:
        """Whether this is what both did."""
        words = ACCEPTS if ours.verdict == "redirect" else our_words(ours)
        return words == self.ours and their_words(theirs) in self.theirs

    def explains(self, raw: bytes, ours: Outcome, theirs: Kernel) -> bool:
        """Whether this is what both did, with a frame of which it is true."""
        is_seen = self.is_seen(ours, theirs)
        return is_seen and self.is_so is not None and self.is_so(wire.Frame(raw))


# --- of what kind a frame is ----------------------------------------------------------------------


@functools.cache
def _tunnels_of(remote: bytes) -> list[Tunnel]:
    return [tunnel for tunnel in TUNNELS.values() if wire.address(tunnel.remote) == remote]


def _has_low_bits(frame: wire.Frame) -> bool:
    return frame.outer.version == 4 and bool(frame.flags & 0x78)


def _is_sum_unasked(frame: wire.Frame) -> bool:
    asked = {t.csum for t in _tunnels_of(frame.outer.src) if t.key == frame.key}
    return bool(frame.flags & wire.CHECKSUM) and frame.is_sum_right and asked == {False}


def _is_key(frame: wire.Frame, key: int | None, *, where: int | None) -> bool:
    """An outer IPv6 packet with this key, of a remote whose tunnel expects the other one."""
    expected = {t.key for t in _tunnels_of(frame.outer.src)}
    return frame.outer.version == 6 and frame.key == key and where in expected


def _is_in_a_vlan(frame: wire.Frame) -> bool:
    return any(tag & 0xFFF for tag in frame.tags)


def _is_extended(frame: wire.Frame) -> bool:
    """More than one fragment header or Tunnel Encapsulation Limit between IPv6 and GRE."""
    if frame.outer.version != 6 or not frame.outer.extension_headers:
        return False
    if frame.outer.extension_headers == [wire.FRAGMENT]:
        return False
    is_alone = frame.outer.extension_headers == [wire.DESTINATION]
    return not (is_alone and frame.outer.raw[41:44] == b"\0\x04\x01")


def _is_packet(frame: wire.Frame) -> bool:
    return frame.protocol in (wire.IPV4, wire.IPV6) and frame.inner.is_whole


def _is_for_local(frame: wire.Frame) -> bool:
    return _is_packet(frame) and frame.inner.dst == frame.outer.dst


def _is_back(frame: wire.Frame) -> bool:
    return _is_packet(frame) and site_of(frame.inner) in _tunnels_of(frame.outer.src)


def _is_nested(frame: wire.Frame) -> bool:
    is_gre = _is_packet(frame) and frame.inner.protocol == wire.GRE
    return is_gre and frame.inner.dst in LOCALS


def _is_from_us(frame: wire.Frame) -> bool:
    is_packet = _is_packet(frame) and frame.inner.version == 4
    return is_packet and frame.inner.src in LOCALS


def _bridged(frame: wire.Frame) -> wire.Frame | None:
    """The frame that is carried, where it claims to hold IP behind at most two tags."""
    if frame.protocol != wire.TEB:
        return None
    inner = wire.Frame(frame.carried)
    return inner if inner.ethertype in (wire.IPV4, wire.IPV6) else None


def _is_bridged_stump(frame: wire.Frame) -> bool:
    inner = _bridged(frame)
    if inner is None:
        return False
    return len(inner.outer.raw) < {wire.IPV4: 20, wire.IPV6: 40}[inner.ethertype]


def _is_marked_behind_tag(frame: wire.Frame) -> bool:
    inner = wire.Frame(frame.carried)
    return frame.protocol == wire.TEB and bool(inner.tags) and bool(frame.outer.ecn)


def _is_marked_and_broken(frame: wire.Frame) -> bool:
    """Marked outside, and inside is no whole IP packet of the version that its frame says."""
    inner = _bridged(frame)
    if inner is None or inner.tags or not frame.outer.ecn:
        return False
    version = {wire.IPV4: 4, wire.IPV6: 6}[inner.ethertype]
    return inner.outer.version != version or not inner.outer.is_whole


def _is_longer_than_device(frame: wire.Frame) -> bool:
    """A device takes its MTU, an Ethernet header and a tag."""
    tunnels = (t for t in _tunnels_of(frame.outer.src) if t.key == frame.key)
    return frame.protocol == wire.TEB and any(len(frame.carried) > t.mtu + 18 for t in tunnels)


# --- examples -------------------------------------------------------------------------------------


def _one(tunnel: str, version: int = 4, **fields: object) -> Callable[[Generator], list[Case]]:
    return lambda generator: [replace(generator.case(tunnel, version), **fields)]


def _numbered(tunnel: str, *numbers: int) -> Callable[[Generator], list[Case]]:
    return lambda generator: [replace(generator.case(tunnel), sequence=n) for n in numbers]


def _two_fragments(tunnel: str) -> Callable[[Generator], list[Case]]:
    """A good packet in two halves, the first of which ends within the inner packet."""

    def build(generator: Generator) -> list[Case]:
        case = generator.case(tunnel)
        outer = wire.Frame(generator.made(case).raw).outer
        gre = outer.raw[outer.header_bytes :]
        if case.tunnel.outer == 4:
            first, last = {"fragment": 0x2000}, {"fragment": 32 // 8}
            return [
                replace(case, whole=gre[:32], outer=first),
                replace(case, whole=gre[32:], outer=last),
            ]
        ident = case.number.to_bytes(4, "big")
        return [
            replace(case, whole=gre[:32], extensions=((wire.FRAGMENT, b"\0\x01" + ident),)),
            replace(case, whole=gre[32:], extensions=((wire.FRAGMENT, b"\0\x20" + ident),)),
        ]

    return build


def _after_a_refused_one(generator: Generator) -> list[Case]:
    """Two packets in the wrong order, of which the first is dropped for its congestion mark."""
    late, early = generator.case("numbered4"), generator.case("numbered4")
    numbers = late.number + 1001, late.number + 1000
    return [
        replace(early, sequence=numbers[0], outer=CE, inner={"tos": 0}),
        replace(late, sequence=numbers[1]),
    ]


_TAG = (0x8100_0005,)
_UNKNOWN_OPTION = ((wire.DESTINATION, b"\x1e\x04\0\0\0\0"),)

DIFFERENCES = (
    Difference(
        "reserved bits",
        "drop gre_reserved_bits",
        ("takes", "forwards"),
        "RFC 2784 section 2.3 has receivers discard packets with bits 4 and 5 set; the kernel"
        " looks at the routing bit and the version alone",
        lambda frame: bool(frame.flags & 0x0C00),
        _one("plain4", gre={"bits": 0x0800}),
    ),
    Difference(
        "ignored bits",
        ACCEPTS,
        ("refuses",),
        "RFC 2784 section 2.3: bits 6 to 12 must be ignored; the kernel takes the last seven bits"
        " for the version (gre_rcv in net/ipv4/gre_demux.c), though over IPv6 only the last three",
        _has_low_bits,
        _one("keyed4", gre={"bits": 0x0040}),
    ),
    Difference(
        "checksum that nobody asked for",
        ACCEPTS,
        ("refuses",),
        "RFC 2784 lets any sender add a checksum; the kernel wants its tunnel's icsum to say so",
        _is_sum_unasked,
        _one("plain6", 6, summed=True),
    ),
    Difference(
        "no key where key 0 is expected",
        "drop key_mismatch",
        ("takes", "forwards"),
        "RFC 2890: the key's absence is no key; ip6_gre cannot tell them apart",
        lambda frame: _is_key(frame, None, where=0),
        _one("zero6", has_key=False),
    ),
    Difference(
        "key 0 where no key is expected",
        "drop key_mismatch",
        ("takes", "forwards"),
        "RFC 2890: the key's absence is no key; ip6_gre cannot tell them apart",
        lambda frame: _is_key(frame, 0, where=None),
        _one("plain6", has_key=True),
    ),
    Difference(
        "outer fragments over IPv4",
        "drop outer_fragment",
        ("takes", "forwards"),
        "XDP sees one frame at a time: a veth-backed tunnel discards and counts delivery fragments,"
        " the kernel reassembles them",
        None,
        _two_fragments("plain4"),
    ),
    Difference(
        "outer fragments over IPv6",
        "drop outer_fragment",
        ("takes", "forwards"),
        "the same over IPv6",
        None,
        _two_fragments("plain6"),
    ),
    Difference(
        "tags of no VLAN",
        ACCEPTS,
        ("refuses",),
        "where no VLAN is configured on a port, tags mean nothing to us, as drivers hide them from"
        " XDP anyway; the kernel refuses frames of VLANs that it does not have",
        _is_in_a_vlan,
        _one("plain4", tags=_TAG),
    ),
    Difference(
        "extension headers",
        LEAVES,
        ("takes", "forwards"),
        "GRE is looked for behind the IPv6 header or one Tunnel Encapsulation Limit (RFC 2473), and"
        " what has other extension headers is left to the kernel",
        _is_extended,
        _one("plain6", extensions=_UNKNOWN_OPTION),
    ),
    Difference(
        "WCCP",
        "drop unknown_protocol",
        ("takes", "forwards"),
        "protocol type 0x883E is web cache redirection, which the kernel unwraps and we do not:"
        " RFC 2784 section 2.4 has unknown types discarded",
        lambda frame: frame.protocol == wire.WCCP,
        _one("plain4", protocol=wire.WCCP),
    ),
    Difference(
        "ERSPAN",
        "drop unknown_protocol",
        ("takes", "forwards"),
        "ip6_gre gives mirrored frames (protocol type 0x88BE) to an Ethernet tunnel without a key",
        lambda frame: frame.protocol in (0x88BE, 0x22EB),
        _one("frames6", protocol=0x88BE),
    ),
    Difference(
        "for the tunnel's own local address",
        "drop looped_back",
        ("takes",),
        "RFC 2784 section 3: nothing decapsulated goes to the address that it was sent to; the"
        " kernel delivers it to itself",
        _is_for_local,
        _one("plain4", inner_dst=LOCAL[4]),
    ),
    Difference(
        "routed back into the tunnel",
        "drop looped_back",
        ("takes",),
        "two gateways would play it back and forth; the kernel sends it back",
        _is_back,
        _one("plain4", inner_dst="10.20.0.9"),
    ),
    Difference(
        "GRE inside GRE to ourselves",
        "drop nested_tunnel",
        ("takes",),
        "it could repeat without end in one frame; the kernel decapsulates again",
        _is_nested,
        _one("plain4", 6, inner_dst=LOCAL[6], inner_protocol=wire.GRE),
    ),
    Difference(
        "odd IPv4 source",
        "drop inner_source",
        ("forwards", "takes"),
        "RFC 1812 section 5.3.7 has routers discard sources in 0/8 and 240/4; the kernel forwards"
        " them, as those networks might be used one day",
        lambda frame: _is_packet(frame) and frame.inner.version == 4 and is_martian(frame.inner),
        _one("plain4", inner_src="240.0.0.1"),
    ),
    Difference(
        "IPv4-mapped source",
        "drop inner_source",
        ("forwards", "takes"),
        "such addresses never are on a wire (RFC 6890); the kernel forwards them",
        lambda frame: _is_packet(frame) and frame.inner.version == 6 and is_martian(frame.inner),
        _one("plain4", 6, inner_src="::ffff:10.1.0.2"),
    ),
    Difference(
        "our own address as IPv4 source",
        ACCEPTS,
        ("takes",),
        "the FIB look-up of XDP does not validate sources, and allowed_sources is for that; the"
        " kernel has every address of its own for a martian source (IPv6 has no such check)",
        _is_from_us,
        _one("plain4", inner_src=OURS[4]),
    ),
    Difference(
        "stump of a packet in a frame",
        ACCEPTS,
        ("refuses",),
        "what is in a bridged frame is its receiver's to judge; the kernel wants a whole IP header"
        " there to read its congestion mark",
        _is_bridged_stump,
        _one("frames4", carried=wire.ethernet(b"\2" * 6, b"\4" * 6, wire.IPV4, b"E" * 19)),
    ),
    Difference(
        "frame longer than the device's MTU",
        "drop too_big",
        ("takes", "forwards"),
        "a veth takes no frame that is longer than its MTU, an Ethernet header and a tag; the"
        " kernel's tunnels receive what they would not send",
        _is_longer_than_device,
        _one("frames4", content=bytes(1412), rest=bytes(40)),
    ),
    Difference(
        "mark for a tagged packet",
        ACCEPTS,
        ("takes", "forwards"),
        "RFC 6040: the mark goes on to the packet behind the tag; the kernel takes the tag for the"
        " IP header, and changes the frame there",
        _is_marked_behind_tag,
        _one("frames4", outer=CE, inner={"tos": 2}, inner_tags=_TAG),
    ),
    Difference(
        "mark that a tagged packet cannot take",
        "drop ecn_ce_not_ect",
        ("takes", "forwards"),
        "the same for a sender who does not know ECN: RFC 6040 has the packet dropped",
        _is_marked_behind_tag,
        _one("frames4", outer=CE, inner={"tos": 0}, inner_tags=_TAG),
    ),
    Difference(
        "mark that a tag seems not to take",
        ACCEPTS,
        ("refuses",),
        "the same where the tag's last bits look like Not-ECT: the kernel drops the frame",
        _is_marked_behind_tag,
        _one("frames4", outer=CE, inner={"tos": 2}, inner_tags=(0x8100_0004,)),
    ),
    Difference(
        "mark for a broken packet in a frame",
        ACCEPTS,
        ("takes", "forwards"),
        "marks are for whole IP packets, others are bridged as they came; the kernel marks octets"
        " that it has not checked",
        _is_marked_and_broken,
        _one("frames4", outer=CE, inner={"tos": 2, "checksum_xor": 1}),
    ),
    Difference(
        "mark that a broken packet in a frame cannot take",
        ACCEPTS,
        ("refuses",),
        "the same where those octets look like Not-ECT: the kernel drops the frame",
        _is_marked_and_broken,
        _one("frames4", outer=CE, inner={"tos": 0, "checksum_xor": 1}),
    ),
    Difference(
        "number of a dropped packet",
        ACCEPTS,
        ("refuses",),
        "a packet that is dropped for another reason does not use up its sequence number here",
        None,
        _after_a_refused_one,
    ),
    Difference(
        "half of all numbers ahead",
        "drop gre_sequence",
        ("forwards",),
        "RFC 1982 leaves open whether a number 2^31 away is newer; RFC 2890 does not say",
        None,
        _numbered("leaps", 5, 5 + 2**31),
    ),
    Difference(
        "after the last of all numbers",
        "drop gre_sequence",
        ("forwards",),
        "the kernel keeps the next number, and 0 stands for none yet: after 2^32 - 1 it takes any",
        None,
        _numbered("wraps", 2**30, 2**31, 3 * 2**30, 2**32 - 1, 2**32 - 9),
    ),
)
