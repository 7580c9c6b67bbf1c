"""Why a packet did not take the fast path: the Python side of ``bpf/reasons.h``, with meanings.

Numbers are stable and never reused. docs/reasons.md is made from this list, and a test proves that
the C enumeration has the same names and numbers.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Verdict(enum.Enum):
    """What happens to a packet for a reason."""

    DROP = "drop"
    PASS = "pass"  # noqa: S105 - no password


@dataclass(frozen=True, slots=True)
class Reason:
    """One outcome: its stable number, its name, what it means and what to do about it."""

    code: int
    name: str
    verdict: Verdict
    meaning: str
    remedy: str


UNRELATED_CODE = 0
FIRST_PASS_CODE = 64
# What is no reason but the fast path, by its code (``enum reason`` from REASON_FIRST_FORWARD on).
FORWARDED = {128: "decap", 129: "encap", 130: "relay"}


def _drop(code: int, name: str, meaning: str, remedy: str) -> Reason:
    return Reason(code, name, Verdict.DROP, meaning, remedy)


def _pass(code: int, name: str, meaning: str, remedy: str) -> Reason:
    return Reason(code, name, Verdict.PASS, meaning, remedy)


REASONS: tuple[Reason, ...] = (
    _drop(
        1,
        "unknown_tunnel",
        "GRE to a local address of ours from a remote that no tunnel has.",
        "Expected on the Internet. If the sender is yours, configure a tunnel with its address as"
        " remote.",
    ),
    _drop(
        2,
        "key_mismatch",
        "The local and remote are known, but the key is another one, missing or unexpected.",
        "Set the same key on both ends; no key and key 0 are different.",
    ),
    _drop(
        3,
        "gre_version",
        "GRE version 2 to 7 to a local address of ours; only version 0 exists for us.",
        "Alarming if it persists: find out what the sender runs.",
    ),
    _drop(
        4,
        "gre_routing_bit",
        "The routing bit of RFC 1701 is set, which RFC 2784 has receivers discard.",
        "Switch source routing off at the remote.",
    ),
    _drop(
        5,
        "gre_reserved_bits",
        "Reserved bit 4 or 5 is set, which RFC 2784 has receivers discard.",
        "Alarming: the remote sends something that is not GRE of RFC 2784.",
    ),
    _drop(
        6,
        "gre_truncated",
        "The packet ends before its GRE header does.",
        "Alarming: something on the path damages packets, or somebody forges them.",
    ),
    _drop(
        7,
        "gre_checksum",
        "The GRE checksum does not match header and payload.",
        "Alarming: something on the path damages packets.",
    ),
    _drop(
        8,
        "gre_checksum_missing",
        "The tunnel expects a checksum and the packet has none.",
        "Set csum alike on both ends.",
    ),
    _drop(
        9,
        "gre_sequence",
        "The sequence number is not newer than the last one accepted.",
        "Expected in small numbers where the path reorders; else set seq alike on both ends.",
    ),
    _drop(
        10,
        "gre_sequence_missing",
        "The tunnel expects a sequence number and the packet has none.",
        "Set seq alike on both ends.",
    ),
    _drop(
        11,
        "unknown_protocol",
        "The GRE protocol type is none that this tunnel carries.",
        "Expected for routers' keepalives and OSI routing; switch them off at the remote.",
    ),
    _drop(
        12,
        "inner_malformed",
        "The inner IP header is not whole: version, lengths or checksum.",
        "Alarming if it persists: the remote encapsulates damaged packets.",
    ),
    _drop(
        13,
        "inner_source",
        "The inner source is one that no packet on a wire may have, or is not allowed here.",
        "Expected when somebody spoofs sources; else extend allowed_sources.",
    ),
    _drop(
        14,
        "ecn_ce_not_ect",
        "The path marked congestion on a packet whose sender does not know ECN (RFC 6040).",
        "Expected under congestion: the drop is the signal.",
    ),
    _drop(
        15,
        "nested_tunnel",
        "GRE inside GRE to ourselves, or the way to a remote leads into a tunnel.",
        "Give the remote a route outside the tunnel.",
    ),
    _drop(
        16,
        "looped_back",
        "The inner destination is the tunnel's own local address (RFC 2784 section 3), or its route"
        " leads back into the tunnel it came from.",
        "Correct the routes: both ends think that the other one has that destination.",
    ),
    _drop(
        17,
        "outer_fragment",
        "A fragment of an outer packet: reassembly needs a kernel GRE tunnel.",
        "Lower the MTU of the remote's tunnel so that it does not fragment outer packets.",
    ),
    _drop(
        18,
        "no_headroom",
        "The driver left no room in front of the frame for the outer header.",
        'Use mode = "skb" on that interface.',
    ),
    _drop(
        19,
        "no_neighbour",
        "The link address of the next hop towards the remote is not known.",
        "Expected for a moment after a change. If it persists, the next hop is down.",
    ),
    _drop(
        20,
        "no_route",
        "The kernel has no route to the remote.",
        "Add a route to the remote.",
    ),
    _drop(
        21,
        "too_big",
        "The packet is longer than the tunnel's MTU, at a place where nobody can answer.",
        "Make the tunnel's MTU the same on both ends; look at the underlay's MTU.",
    ),
    _drop(
        22,
        "egress_unattached",
        "The route to the remote leaves by an interface that is not in the configuration.",
        "Add an [[interface]] for it.",
    ),
    _drop(
        23,
        "no_tunnel",
        "The tunnel or its device was being removed at that moment.",
        "Expected while a tunnel is removed; else run gre-xdp apply.",
    ),
    _drop(
        24,
        "split_headers",
        "The driver put the frame into pieces, and the headers are not in the first of them.",
        "Lower the MTU of the interface until its driver uses one buffer for a frame.",
    ),
    _drop(
        25,
        "too_big_unanswered",
        "Too big for the tunnel, and its sender has just been told so often enough: 10 times a"
        " second, after 64 at once.",
        "Find out why the sender does not heed Frag Needed or Packet Too Big: they may be blocked"
        " on the way to it.",
    ),
    _drop(
        26,
        "next_hop_unknown",
        "Routed to a shared device by a next hop that is none of its tunnels'; also the host's own"
        " multicast there, which is for no tunnel in particular.",
        "Route it via the nexthop of one of the device's tunnels; gre-xdp show tunnels lists them.",
    ),
    _pass(
        64,
        "too_big",
        "Longer than the tunnel's MTU: the kernel fragments it or answers with its MTU.",
        "Expected while senders learn the MTU.",
    ),
    _pass(
        65,
        "ttl_expired",
        "TTL or hop limit spent: the kernel answers Time Exceeded.",
        "Expected with traceroute; else look for a routing loop.",
    ),
    _pass(
        66,
        "ip_options",
        "IPv4 options or an IPv6 hop-by-hop header, which routers must read.",
        "Expected with multicast and router alerts; rare otherwise.",
    ),
    _pass(
        67,
        "for_this_host",
        "For an address of this host, or for one that it has no route to: it delivers or answers.",
        "Expected: routing protocols, ping and management through the tunnel.",
    ),
    _pass(
        68,
        "multicast",
        "Multicast or broadcast through the tunnel.",
        "Expected with routing protocols such as OSPF.",
    ),
    _pass(
        69,
        "no_neighbour",
        "The link address of the destination or next hop on the LAN is not known yet.",
        "Expected for the first packet to a host; if it grows, that host does not answer.",
    ),
    _pass(
        70,
        "no_route",
        "The route to the inner destination is unreachable, prohibit or blackhole.",
        "Change that route on this gateway, or stop sending there at the remote.",
    ),
    _pass(
        71,
        "egress_unattached",
        "The inner destination is behind an interface that is not in the configuration.",
        "Add an [[interface]] for it to take the fast path.",
    ),
    _pass(
        72,
        "unknown_tunnel",
        'Like the drop of this name, with unknown_gre = "pass": the kernel gets it.',
        'Expected where the kernel has GRE tunnels; else set unknown_gre = "drop".',
    ),
    _pass(
        73,
        "key_mismatch",
        'Like the drop of this name, with unknown_gre = "pass": the kernel gets it.',
        "Set the same key on both ends, unless a kernel tunnel has that key.",
    ),
    _pass(
        74,
        "gre_version",
        "GRE version 1 (PPTP) to a local address of ours: the kernel gets it.",
        "Expected where PPTP is in use.",
    ),
    _pass(
        75,
        "mpls",
        "An MPLS packet came out of the tunnel: the kernel routes labels, on the tunnel's device.",
        "Expected with MPLS. The device needs net.mpls.conf.DEVICE.input = 1.",
    ),
    _pass(
        76,
        "ethernet",
        "A frame came out of an Ethernet tunnel, for its device or the bridge there; or a packet is"
        " routed into one, and the kernel makes the frame.",
        "Expected with Ethernet tunnels.",
    ),
)

DROP_REASONS = tuple(reason for reason in REASONS if reason.verdict is Verdict.DROP)
PASS_REASONS = tuple(reason for reason in REASONS if reason.verdict is Verdict.PASS)


def to_markdown() -> str:
    """The table that docs/reasons.md is."""
    lines = [
        "# Reasons",
        "",
        "Why a packet did not take the fast path. Numbers and names never change their meaning.",
        "`gre-xdp show drops` and `gre-xdp show passes` list them with counts; the metrics are",
        "`gre_xdp_drops_total{reason}` and `gre_xdp_passes_total{reason}`.",
        "This file is made from `gre_xdp/reasons.py` by `python docs/generate.py`.",
    ]
    for title, group in (
        ("Drops", DROP_REASONS),
        ("Passes (handed to the kernel)", PASS_REASONS),
    ):
        lines += ["", f"## {title}", "", "| code | reason | meaning | what to do |"]
        lines += ["|---|---|---|---|"]
        lines += [f"| {r.code} | `{r.name}` | {r.meaning} | {r.remedy} |" for r in group]
    return "\n".join(lines) + "\n"
