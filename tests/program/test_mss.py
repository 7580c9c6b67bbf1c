"""MSS clamping (duty 27): a SYN's maximum segment size is lowered to what the tunnel carries."""

from __future__ import annotations

import pytest
from scapy.layers.inet import IP, TCP, Ether
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

import packets as p
from program.bench import Bench

# MSS of the tunnels "plain" (MTU 1476) and "keyed" (1472), by inner IP version.
MOST = {("plain", 4): 1436, ("plain", 6): 1416, ("keyed", 4): 1432, ("keyed", 6): 1412}
TUNNELS = pytest.mark.parametrize("tunnel", ["plain", "keyed"])
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
FLAGS = pytest.mark.parametrize("flags", ["S", "SA"], ids=["syn", "syn-ack"])

# Option lists with an MSS of 1460 in them, and its offset in the list.
LISTS = {
    "mss-first": b"\x02\x04\x05\xb4",
    "as-linux-sends-it": bytes.fromhex("020405b40402080a0001e240000000000103030a"),
    "behind-an-even-option": bytes.fromhex("0402020405b40000"),
    "at-an-odd-offset": bytes.fromhex("01020405b4000000"),
    "behind-many-nops": b"\x01" * 36 + b"\x02\x04\x05\xb4",
    "behind-nops-and-odd": b"\x01" * 35 + b"\x02\x04\x05\xb4\x00",
}
# Lists in which there is nothing that could be lowered.
OTHER_LISTS = {
    "no-options": b"",
    "no-mss": bytes.fromhex("0402080a0001e24000000000") + b"\x00" * 4,
    "mss-behind-the-end": bytes.fromhex("00020405b4000000"),
    "mss-too-short": bytes.fromhex("0203050000000000"),
    "mss-too-long": bytes.fromhex("02050005b4000000"),
    "length-zero": bytes.fromhex("0300020405b40000"),
    "length-one": bytes.fromhex("0301020405b40000"),
    "length-beyond-the-list": bytes.fromhex("03ff020405b40000"),
    "kind-without-length": bytes.fromhex("0101010101010102"),
    "mss-cut-off": bytes.fromhex("0101010101020405"),
}


def syn(
    tunnel: str, version: int, options: bytes, flags: str = "S", *, inbound: bool = False
) -> Packet:
    """A TCP segment between the LAN and the site behind a tunnel, with octets as its options."""
    assert len(options) % 4 == 0
    here, there = (p.HOST4, p.HOST6)[version == 6], p.SITE[tunnel][version == 6]
    source, destination = (there, here) if inbound else (here, there)
    ip = (
        IPv6(src=source, dst=destination, hlim=64, nh=6)
        if version == 6
        else IP(src=source, dst=destination, ttl=64, id=7, proto=6)
    )
    # Options as octets: scapy would mend what is malformed in them.
    tcp = bytes(TCP(sport=1, dport=2, seq=1, flags=flags, dataofs=5 + len(options) // 4))
    return with_checksums(bytes(ip / Raw(tcp[:20] + options)))


def with_checksums(raw: bytes) -> Packet:
    """The packet with IPv4 and TCP checksums made over its octets."""
    octets = bytearray(raw)
    is_ipv6 = octets[0] >> 4 == 6
    at = 40 if is_ipv6 else 20
    octets[at + 16 : at + 18] = b"\0\0"
    if is_ipv6:
        pseudo = bytes(octets[8:40]) + (len(octets) - at).to_bytes(4, "big") + b"\0\0\0\x06"
    else:
        octets[10:12] = b"\0\0"
        octets[10:12] = checksum(bytes(octets[:20]))
        pseudo = bytes(octets[12:20]) + b"\0\x06" + (len(octets) - at).to_bytes(2, "big")
    octets[at + 16 : at + 18] = checksum(pseudo + bytes(octets[at:]))
    return (IPv6 if is_ipv6 else IP)(bytes(octets))


def checksum(data: bytes) -> bytes:
    """RFC 1071, written down once more so that it is not the code under test."""
    total = sum(
        int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2)
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return (0xFFFF - total).to_bytes(2, "big")


def outbound(bench: Bench, tunnel: str, packet: Packet) -> bytes:
    """The inner packet that leaves in GRE for a packet from the LAN, its hop given back."""
    frame = bench.port(p.on_lan(packet), "eth1").frame
    header = 14 + 20 + (8 if tunnel == "keyed" else 4)
    return unspent(frame[header:])


def inbound(bench: Bench, tunnel: str, packet: Packet) -> bytes:
    """The packet that goes to the LAN for one that came in GRE, its hop given back."""
    frame = p.received(p.gre(packet, p.ENDS[tunnel].ikey), tunnel)
    return unspent(bench.port(frame, "eth0").frame[14:])


def unspent(raw: bytes) -> bytes:
    octets = bytearray(raw)
    octets[7 if octets[0] >> 4 == 6 else 8] += 1
    if octets[0] >> 4 == 4:
        octets[10:12] = b"\0\0"
        octets[10:12] = checksum(bytes(octets[:20]))
    return bytes(octets)


@TUNNELS
@VERSIONS
@FLAGS
@pytest.mark.parametrize("options", LISTS.values(), ids=LISTS)
@pytest.mark.parametrize("is_inbound", [False, True], ids=["encap", "decap"])
def test_lowered(
    bench: Bench, tunnel: str, version: int, flags: str, options: bytes, is_inbound: bool
) -> None:
    """1460 becomes what the tunnel's MTU leaves, the checksum fits, and nothing else changes."""
    packet = syn(tunnel, version, options, flags, inbound=is_inbound)
    lowered = options.replace(
        b"\x02\x04\x05\xb4", b"\x02\x04" + MOST[tunnel, version].to_bytes(2, "big")
    )
    expected = bytes(syn(tunnel, version, lowered, flags, inbound=is_inbound))
    send = inbound if is_inbound else outbound
    assert send(bench, tunnel, packet) == expected


@VERSIONS
@pytest.mark.parametrize("options", OTHER_LISTS.values(), ids=OTHER_LISTS)
@pytest.mark.parametrize("is_inbound", [False, True], ids=["encap", "decap"])
def test_left_alone(bench: Bench, version: int, options: bytes, is_inbound: bool) -> None:
    """A list without an MSS, or a malformed one, is sent on octet by octet."""
    packet = syn("plain", version, options, inbound=is_inbound)
    send = inbound if is_inbound else outbound
    assert send(bench, "plain", packet) == bytes(packet)


@VERSIONS
@pytest.mark.parametrize("mss", [0, 1, 536, 1220, 1415, 1416])
def test_never_raised(bench: Bench, version: int, mss: int) -> None:
    """A smaller MSS, or one that just fits, stays."""
    packet = syn("plain", version, b"\x02\x04" + mss.to_bytes(2, "big"))
    assert outbound(bench, "plain", packet) == bytes(packet)


@VERSIONS
@pytest.mark.parametrize("flags", ["A", "PA", "F", "R"])
def test_only_syns(bench: Bench, version: int, flags: str) -> None:
    """What looks like an MSS option in another segment is nobody's business."""
    packet = syn("plain", version, LISTS["mss-first"], flags)
    assert outbound(bench, "plain", packet) == bytes(packet)


def test_fragments_are_left_alone(bench: Bench) -> None:
    """A later fragment has no TCP header, however its octets look."""
    raw = bytearray(bytes(syn("plain", 4, LISTS["mss-first"])))
    raw[6:8] = (0x2000 | 10).to_bytes(2, "big")
    raw[10:12] = b"\0\0"
    raw[10:12] = checksum(bytes(raw[:20]))
    packet = IP(bytes(raw))
    assert outbound(bench, "plain", packet) == bytes(packet)


@pytest.mark.parametrize("length", range(0, 24))
def test_a_short_segment_is_left_alone(bench: Bench, length: int) -> None:
    """A packet that ends inside its TCP header, or inside its options, is sent on as it is."""
    raw = bytearray(bytes(syn("plain", 4, LISTS["mss-first"]))[: 20 + length])
    raw[2:4] = len(raw).to_bytes(2, "big")
    raw[10:12] = b"\0\0"
    raw[10:12] = checksum(bytes(raw[:20]))
    padded = bytes(Ether(src=p.HOST_MAC, dst=p.LAN_MAC, type=0x0800)) + bytes(raw) + b"\0" * 60
    frame = bench.port(padded, "eth1").frame
    assert unspent(frame[14 + 20 + 4 :]) == bytes(raw)
