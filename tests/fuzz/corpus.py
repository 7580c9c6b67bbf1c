"""Good frames of every kind that the gateway meets, for mutations to begin with."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP, TCP, IPOption_NOP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    PadN,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet, Raw

import packets as p
from gre_xdp.resources import Program
from program import gateway, repair
from program.vlans import U9, U98, V7, V78, C, S, Vlan

CHECKSUM, SEQUENCE = {"chksum_present": 1}, {"seqnum_present": 1}
OPTIONS = [IPOption_NOP()] * 8
UNDERLAYS = {"behind": U9, "behind6": U9, "behindtwo": U98}
# Above a page, around where its first piece ends, and as long as the links take.
LONG = (3440, 3500, 4000, 4100, 7600, 8900, 8950)


class Seed(NamedTuple):
    """A frame, where it comes in, and where its GRE sequence number stands (0: nowhere)."""

    program: Program
    interface: str
    frame: bytes
    sequence_at: int = 0


class Corpus(NamedTuple):
    """Frames of one page, and longer ones."""

    short: list[Seed]
    long: list[Seed]


def corpus() -> Corpus:
    """All of them; the same ones in the same order every time."""
    seeds = [*_gre(), *_lan(), *_hosts()]
    return Corpus(
        [seed for seed in seeds if len(seed.frame) < min(LONG)],
        [seed for seed in seeds if len(seed.frame) >= min(LONG)],
    )


def _arrived(frame: Packet | bytes) -> Seed:
    raw = bytes(frame)
    return Seed("port", "eth0", raw, repair.find_sequence(raw))


def _syn(src: str, dst: str) -> Packet:
    """The beginning of a connection, with more MSS than any tunnel carries."""
    header = IPv6(src=src, dst=dst) if ":" in dst else IP(src=src, dst=dst)
    options = [("NOP", None), ("MSS", 65000), ("WScale", 7)]
    return type(header)(bytes(header / TCP(dport=80, flags="S", options=options)))


def _stack(packet: Packet) -> Packet:
    return MPLS(bytes(MPLS(label=16, s=0, ttl=9) / MPLS(label=17, s=1, ttl=9) / packet))


def _bridged(length: int = 26) -> Iterator[bytes]:
    """Frames between two stations behind Ethernet tunnels."""
    stations = {"src": p.HOST_MAC, "dst": p.STRANGER_MAC}
    ipv4, ipv6 = p.udp("10.0.0.1", "10.0.0.2", length), p.udp("fd00::1", "fd00::2", length)
    yield bytes(Ether(**stations) / ipv4)
    yield p.tagged(Ether(**stations) / ipv4, (S, 7), (C, 8))
    yield p.tagged(Ether(**stations) / ipv6, (C, 7))
    yield bytes(Ether(**stations) / _syn("10.0.0.1", "10.0.0.2"))
    arp = ARP(hwsrc=p.HOST_MAC, psrc="10.0.0.1", pdst="10.0.0.2")
    yield bytes(Ether(src=p.HOST_MAC, dst="ff:ff:ff:ff:ff:ff") / arp)


def _words(tunnel: str) -> dict[str, object]:
    """What of GRE a tunnel asks for."""
    keys = gateway.ALL_TUNNELS[tunnel]
    return (CHECKSUM if "csum = true" in keys else {}) | (SEQUENCE if "seq = true" in keys else {})


# --- through tunnels ------------------------------------------------------------------------------


def _gre() -> Iterator[Seed]:
    names = list(p.ENDS)
    for name, other in zip(names, names[7:] + names[:7], strict=True):
        underlay = UNDERLAYS.get(name)
        for carried in _carried(name, other):
            mac = underlay.mac if underlay else p.UNDERLAY_MAC
            frame = p.came(name, carried, _words(name), mac=mac)
            yield _arrived(p.tagged(frame, *underlay.tags) if underlay else frame)
    for name in ("plain", "plain6", "keyed6", "full"):
        for inner in _to_anywhere(name):
            yield _arrived(p.came(name, inner, _words(name)))
    yield from map(_arrived, _odd_gre())
    for name in ("plain", "summed", "full", "plain6", "summed6", "full6"):
        for length in LONG:
            inner = p.of_bytes(length, p.to_lan, name, 4 + length % 4)
            yield _arrived(p.came(name, inner, _words(name)))
        relay = p.of_bytes(8900, p.udp, p.SITE[name][0], p.SITE["summed6"][0])
        yield _arrived(p.came(name, relay, _words(name)))
    for name in ("tap", "tapfull6"):
        for frame in _bridged(8800):
            yield _arrived(p.came(name, frame, _words(name)))


def _carried(name: str, other: str) -> Iterator[Packet | bytes]:
    if name in gateway.ETHERNET:
        yield from _bridged()
        return
    yield p.to_lan(name, 4, tos=2)
    yield p.to_lan(name, 6, 25)
    yield p.udp(p.SITE[name][0], p.SITE[other][0])
    yield p.udp(p.SITE[name][1], p.SITE[other][1], tos=1)
    yield _syn(p.SITE[name][0], p.HOST4)
    yield _stack(p.udp("10.0.0.1", "10.0.0.2"))


def _to_anywhere(name: str) -> Iterator[Packet]:
    """From behind a tunnel to wherever a gateway may have to send it."""
    site4, site6 = p.SITE[name]
    for host in (
        *("10.1.0.1", "10.1.0.77", "10.9.0.2", "10.3.0.1", "10.99.0.1", "172.16.0.1", "224.0.0.5"),
        *(V7.neighbours[0], V78.neighbours[0], site4, p.LOCAL, p.SITE["lost"][0]),
        *(p.SITE["nowhere6"][0], p.SITE["astray"][0], p.SITE["nested6"][0], p.SITE["tap"][0]),
    ):
        yield p.udp(site4, host)
    for host in (
        *("2001:db8:a::1", "2001:db8:a::77", "2001:db8:9::2", "2001:db8:3::1", "2001:db8:99::1"),
        *("fd77::1", "ff02::5", "fe80::1", V7.neighbours[1], V78.neighbours[1], site6, p.LOCAL6),
        *(p.SITE["lost6"][1], p.SITE["nowhere"][1], p.SITE["astray6"][1], p.SITE["nested"][1]),
    ):
        yield p.udp(site6, host)
    for length in (1301, 1401):
        yield p.of_bytes(length, p.udp, site4, "10.3.0.1")
        yield p.of_bytes(length, p.udp, site6, "2001:db8:3::1")
        yield p.of_bytes(length, p.udp, site4, p.SITE["narrow"][0])
    yield p.to_lan(name, 4, ttl=1)
    yield p.to_lan(name, 6, ttl=1)
    yield p.to_lan(name, 4, options=OPTIONS)
    yield IPv6(src=site6, dst=p.HOST6) / IPv6ExtHdrHopByHop(options=[RouterAlert()])
    yield p.udp("127.0.0.1", p.HOST4)
    yield IP(bytes(IP(src=site4, dst=p.LOCAL) / p.gre(p.udp(site4, p.HOST4))))
    yield _syn(site6, p.HOST6)
    yield _syn(site4, p.SITE["plain6"][0])


def _odd_gre() -> Iterator[Packet | bytes]:
    inner, inner6 = p.to_lan("plain", 4), p.to_lan("plain6", 6)
    for header in (
        *(CHECKSUM, SEQUENCE, CHECKSUM | SEQUENCE, {"version": 1}, {"version": 5}),
        *(
            {"routing_present": 1},
            {"strict_route_source": 1},
            {"proto": 0x880B},
            {"key_present": 1},
        ),
    ):
        yield p.came("plain", inner, header)
        yield p.came("plain6", inner6, header)
    for mark in (1, 3):
        yield p.came("plain", p.to_lan("plain", 4, tos=2), tos=mark)
        yield p.came("plain6", inner6, tos=mark)
    yield p.came("plain", inner, tos=0xFF)
    yield p.came("plain", inner, options=OPTIONS)
    yield p.came("plain", inner, flags="MF")
    yield p.came("plain", inner, frag=7)
    yield p.came("plain", inner, src=p.STRANGER)
    yield p.came("plain", inner, dst=p.NO_LOCAL)
    yield p.came("plain6", inner6, src=p.STRANGER6)
    yield p.came("plain6", inner6, dst=p.NO_LOCAL6)
    yield p.came("plain", inner, mac=p.STRANGER_MAC)
    for name in ("summed", "numbered", "summed6", "numbered6"):
        yield p.came(name, p.to_lan(name, 4))  # without the word that the tunnel asks for
    yield p.came("guarded", p.to_lan("plain", 4))
    yield p.came("guarded", _stack(inner))
    yield bytes(p.came("plain", inner)) + b"\xa5" * 9
    for tags in (((C, 100),), ((S, 100), (C, 200)), ((C, 0xE000),), ((C, 1), (C, 2), (C, 3))):
        yield p.tagged(p.came("keyed", p.to_lan("keyed", 4)), *tags)
        yield p.tagged(p.came("plain6", p.to_lan("plain6", 4)), *tags)
        yield p.tagged(p.came("tap6", next(_bridged())), *tags)
    # RFC 2473's Tunnel Encapsulation Limit, then others that GRE may hide behind.
    for number, extension in (
        (60, Raw(bytes.fromhex("2f00040104010100"))),
        (60, Raw(bytes.fromhex("2f00040104000000"))),
        (60, IPv6ExtHdrDestOpt(nh=47, options=[PadN(optdata=bytes(4))])),
        (44, IPv6ExtHdrFragment(nh=47, id=1)),
        (44, IPv6ExtHdrFragment(nh=47, id=1, m=1)),
        (0, IPv6ExtHdrHopByHop(nh=47, options=[RouterAlert()])),
    ):
        header = IPv6(src=p.REMOTE6, dst=p.LOCAL6, nh=number)
        inner = p.gre(p.to_lan("plain6", 4))
        yield p.on_lan(header / extension / inner, dst=p.UNDERLAY_MAC)


# --- for tunnels ----------------------------------------------------------------------------------


def _of_vlan(packet: Packet, vlan: Vlan) -> bytes:
    return p.tagged(p.on_lan(packet, dst=vlan.mac), *vlan.tags)


def _lan() -> Iterator[Seed]:
    for frame in _lan_frames():
        yield Seed("port", "eth1", bytes(frame))


def _lan_frames() -> Iterator[Packet | bytes]:
    for name in p.SITE:
        yield p.on_lan(p.to_site(name, 4, tos=1))
        yield p.on_lan(p.to_site(name, 6, 25))
    for name in ("plain", "inherit", "fixed", "full", "plain6", "fixed6", "full6", "tap"):
        yield p.on_lan(_syn(p.HOST4, p.SITE[name][0]))
        yield p.on_lan(_syn(p.HOST6, p.SITE[name][1]))
        yield p.on_lan(p.to_site(name, 4, ttl=1))
        yield p.on_lan(p.to_site(name, 4, flags="DF", tos=0xFF))
        yield p.on_lan(p.to_site(name, 4, options=OPTIONS))
        for vlan in (V7, V78):
            ends = vlan.neighbours[0], p.SITE[name][0]
            yield _of_vlan(p.udp(*ends), vlan)
            yield p.tagged(p.on_lan(p.udp(*ends)), (C, 100))
    hop_by_hop = IPv6ExtHdrHopByHop(options=[RouterAlert()])
    yield p.on_lan(IPv6(src=p.HOST6, dst=p.SITE6) / hop_by_hop)
    yield p.tagged(p.on_lan(p.to_site("plain", 4)), (C, 0xE000))
    yield p.on_lan(p.to_site("plain", 4), dst=p.STRANGER_MAC)
    yield p.on_lan(p.udp("127.0.0.1", p.SITE4))
    yield p.on_lan(p.udp(p.HOST4, "224.0.0.5"))
    yield bytes(p.on_lan(p.to_site("plain", 6))) + b"\xa5" * 9
    for length in (1299, 1300, 1301):
        yield p.on_lan(p.of_bytes(length, p.to_site, "narrow", 4))
    for name in ("plain", "summed", "narrow", "plain6", "full6"):
        for length in (*LONG, 8977, 9000):
            yield p.on_lan(p.of_bytes(length, p.to_site, name, 4 + 2 * (length % 4 == 0)))


def _hosts() -> Iterator[Seed]:
    for name in gateway.ALL_TUNNELS:
        for frame in _host_frames(name):
            yield Seed("inner", f"gx-{name}", bytes(frame))
    for length in (1283, 1500, 8990):
        for name in ("narrow", "plain", "plain6"):
            inner = p.of_bytes(length, p.to_site, name, 4)
            yield Seed("inner", f"gx-{name}", bytes(p.onto_device(inner, p.STRANGER_MAC)))
        for frame in _bridged(length):
            yield Seed("inner", "gx-tapfixed", frame)
    for name in ("plain", "full6", "tap"):
        for length in LONG:
            inner = p.of_bytes(length, p.to_site, name, 4)
            yield Seed("inner", f"gx-{name}", bytes(p.onto_device(inner, p.STRANGER_MAC)))


def _host_frames(name: str) -> Iterable[Packet | bytes]:
    if name in gateway.ETHERNET:
        return _bridged()
    inner = p.to_site(name, 4, flags="DF")
    sent = [
        *(inner, p.to_site(name, 6, tos=3), _stack(inner)),
        *(_syn(p.HOST4, p.SITE[name][0]), _syn(p.HOST6, p.SITE[name][1])),
    ]
    return [p.onto_device(packet, p.STRANGER_MAC) for packet in sent]
