"""Whether two receivers of one frame did the same, and what each of them did, in a few words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from interop import wire
from interop.stand import HOST, LOCAL, NARROW_MTU, OURS, TUNNELS, Kernel, Tunnel
from program.bench import Outcome

ACCEPTED, REFUSED, DIFFERENT = "accepted", "refused", "different"
LOCALS = {wire.address(a) for a in (*LOCAL.values(), *OURS.values())} | {
    wire.address(a.partition("/")[0]) for t in TUNNELS.values() for a in t.addresses
}
SITES = [(ip_network(route), tunnel) for tunnel in TUNNELS.values() for route in tunnel.routes]
LANS = [ip_network("10.1.0.0/24"), ip_network("2001:db8:a::/64")]
UNREACHABLES = [ip_network("10.99.0.0/16"), ip_network("2001:db8:99::/48")]
NARROWS = [ip_network("10.3.0.0/16"), ip_network("2001:db8:3::/48")]


def our_words(ours: Outcome) -> str:
    """E.g. "decap", "pass ttl_expired", "drop gre_checksum", "unrelated"."""
    [words] = ours.reasons
    return words


def their_words(theirs: Kernel) -> str:
    """What the kernel did: "refuses", "takes" into a tunnel's device but no further, "forwards"."""
    if theirs.sent:
        return "forwards"
    return "takes" if theirs.seen else "refuses"


# --- what the gateways' routes make of a packet ---------------------------------------------------


def _is_in(packet: wire.Packet, networks: list) -> bool:
    return any(ip_address(packet.dst) in network for network in networks)


def site_of(packet: wire.Packet) -> Tunnel | None:
    """The tunnel that leads to the packet's destination."""
    destination = ip_address(packet.dst)
    return next((tunnel for network, tunnel in SITES if destination in network), None)


def _is_multicast(packet: wire.Packet) -> bool:
    if packet.version == 6:
        return packet.dst[0] == 0xFF
    return packet.dst[0] >> 4 == 14 or packet.dst == b"\xff" * 4


def _has_options(packet: wire.Packet) -> bool:
    if packet.version == 6:
        return packet.protocol == wire.HOP_BY_HOP
    return packet.header_bytes > 20


def _is_to_host(packet: wire.Packet) -> bool:
    return packet.dst == wire.address(HOST[packet.version])


def _is_for_gateway(packet: wire.Packet) -> bool:
    """An address of the gateway, of its links alone, or one that it has no unicast route to."""
    if packet.version == 6 and any(
        a[0] == 0xFE and a[1] >> 6 == 2 for a in (packet.src, packet.dst)
    ):
        return True
    is_onward = _is_to_host(packet) or _is_in(packet, NARROWS) or site_of(packet)
    return packet.dst in LOCALS or not is_onward


def _is_silent(packet: wire.Packet) -> bool:
    return _is_in(packet, LANS) and not _is_to_host(packet)


def _is_too_long(packet: wire.Packet) -> bool:
    site = site_of(packet)
    mtu = site.mtu if site else NARROW_MTU if _is_in(packet, NARROWS) else 1 << 16
    return packet.length > mtu


def _is_for_ethernet(packet: wire.Packet) -> bool:
    site = site_of(packet)
    return site is not None and site.payload == "ethernet"


# Does what a pass reason says hold? One that held always would let a gateway hand over everything.
HOLDS: dict[str, Callable[[wire.Packet], bool]] = {
    "pass multicast": _is_multicast,
    "pass ttl_expired": lambda packet: packet.ttl <= 1,
    "pass ip_options": _has_options,
    "pass for_this_host": _is_for_gateway,
    "pass no_neighbour": _is_silent,
    "pass no_route": lambda packet: _is_in(packet, UNREACHABLES),
    "pass too_big": _is_too_long,
    "pass ethernet": _is_for_ethernet,
}


def is_martian(packet: wire.Packet) -> bool:
    """A source that no packet on a wire has (RFC 1812 section 5.3.7, RFC 4291)."""
    source = ip_address(packet.src)
    if source.version == 4:
        return source.packed[0] in (0, 127) or source.packed[0] >= 224
    return bool(
        source.is_multicast or source.is_loopback or source.ipv4_mapped or source.is_unspecified
    )


# --- the verdict ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Verdict:
    """``kind`` is ACCEPTED, REFUSED or DIFFERENT; why, of the last."""

    kind: str
    why: str = ""


def judge(raw: bytes, ours: Outcome, theirs: Kernel) -> Verdict:
    """Compare what two gateways made of one frame."""
    words = our_words(ours)
    if ours.verdict == "drop":
        return _refused(raw, words, theirs)
    if ours.verdict == "pass":
        return _left_alone(raw, ours, theirs)
    if len(theirs.seen) != 1:
        return Verdict(DIFFERENT, "only we accept it")
    if words == "decap":
        return _forwarded(ours, theirs)
    if words == "relay":
        return _relayed(ours, theirs)
    return _delivered(raw, words, ours, theirs)


def _forwarded(ours: Outcome, theirs: Kernel) -> Verdict:
    if not theirs.sent:
        return Verdict(DIFFERENT, "only we forward it")
    is_same = theirs.sent == (ours.frame[14:],)
    return Verdict(ACCEPTED) if is_same else Verdict(DIFFERENT, "forwarded otherwise")


def _relayed(ours: Outcome, theirs: Kernel) -> Verdict:
    """Into the same other tunnel; its headers are each sender's own business."""
    mine = wire.Frame(ours.frame)
    sent = [frame for frame in map(wire.Frame, theirs.answers) if frame.outer.upper == wire.GRE]
    if [_content(frame) for frame in sent].count(_content(mine)) != 1:
        return Verdict(DIFFERENT, "relayed otherwise")
    return Verdict(ACCEPTED)


def _content(frame: wire.Frame) -> tuple[bytes, int | None, int, bytes]:
    return frame.outer.dst, frame.key, frame.protocol, frame.carried


def _delivered(raw: bytes, words: str, ours: Outcome, theirs: Kernel) -> Verdict:
    """To the tunnel's device, whose kernel goes on from there: the same must be on it."""
    frame = wire.Frame(raw)
    seen, packet = theirs.seen[0], ours.frame[14:]
    if frame.protocol == wire.TEB:
        is_same, holds = ours.frame == seen, words == "pass ethernet"
    elif frame.protocol == wire.MPLS:
        is_same, holds = packet == seen, words == "pass mpls"
    else:
        # What follows the packet the kernel cuts off a step later.
        is_same = packet == seen[: len(packet)] and len(packet) == wire.Packet(packet).length
        holds = words in HOLDS and HOLDS[words](wire.Packet(packet))
    if not is_same:
        return Verdict(DIFFERENT, "delivered otherwise")
    return Verdict(ACCEPTED) if holds else Verdict(DIFFERENT, "handed over for a wrong reason")


def _refused(raw: bytes, words: str, theirs: Kernel) -> Verdict:
    if theirs.sent:
        return Verdict(DIFFERENT, "only the kernel forwards it")
    if theirs.seen and not _is_refused_behind(raw, words, theirs):
        return Verdict(DIFFERENT, "only the kernel accepts it")
    return Verdict(REFUSED)


def _is_refused_behind(raw: bytes, words: str, theirs: Kernel) -> bool:
    """A tunnel's device takes in what its IP layer then drops without a word."""
    protocol, packet = wire.Frame(raw).protocol, wire.Packet(theirs.seen[0])
    is_whole = packet.is_whole and protocol == {4: wire.IPV4, 6: wire.IPV6}[packet.version]
    holds = {
        "drop unknown_protocol": protocol not in (wire.IPV4, wire.IPV6),
        "drop inner_malformed": not is_whole,
        "drop inner_source": is_whole and is_martian(packet),
    }
    return holds.get(words, False) and not _is_answered(theirs)


def _is_answered(theirs: Kernel) -> bool:
    """Whether the kernel quotes what it took in; answers to earlier packets may come late."""
    beginning = theirs.seen[0][:8]
    return len(beginning) == 8 and any(beginning in answer for answer in theirs.answers)


def _left_alone(raw: bytes, ours: Outcome, theirs: Kernel) -> Verdict:
    """Passed as it came, so our kernel may do what the other one did."""
    if ours.frame != raw:
        return Verdict(DIFFERENT, "passed, but changed")
    if theirs.seen or theirs.sent:
        return Verdict(DIFFERENT, "left to the kernel, which accepts it")
    return Verdict(REFUSED)
