"""MSS clamping (duty 27): a SYN's maximum segment size is lowered to what the tunnel carries."""

from __future__ import annotations

import socket

import pytest
from scapy.layers.inet import IP, TCP, Ether
from scapy.layers.inet6 import IPv6
from scapy.packet import Packet, Raw

import packets as p
from program.bench import Bench, passed, to_device

# The MSS of IPv4 and of IPv6 in each tunnel: 1500 less its headers, less 40 or 60.
MOST = {
    "plain": (1436, 1416),
    "keyed": (1432, 1412),
    "summed": (1432, 1412),
    "numbered": (1432, 1412),
    "full": (1424, 1404),
    "plain6": (1416, 1396),
    "keyed6": (1412, 1392),
    "summed6": (1412, 1392),
    "numbered6": (1412, 1392),
    "full6": (1404, 1384),
}
# The same for frames; "tap" and "tap6" are in tests/program/test_ethernet.py.
MOST_IN_FRAMES = {"tapfull": (1410, 1390), "tapfull6": (1390, 1370)}
GATEWAY_TUNNELS = (*MOST, *MOST_IN_FRAMES)

TUNNELS = pytest.mark.parametrize("tunnel", MOST)
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
DIRECTIONS = pytest.mark.parametrize("is_inbound", [False, True], ids=["encap", "decap"])
FLAGS = pytest.mark.parametrize("flags", ["S", "SA"], ids=["syn", "syn-ack"])

C, S = 0x8100, 0x88A8
TAGS = {
    "untagged": (),
    "vlan": ((C, 7),),
    "priority": ((C, 0xE000),),
    "two-vlans": ((S, 7), (C, 8)),
}
TAGGED = pytest.mark.parametrize("tags", TAGS.values(), ids=TAGS)
Tags = tuple[tuple[int, int], ...]

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


@pytest.fixture(autouse=True)
def _fresh_sequences(bench: Bench) -> None:
    """Each test starts where a new tunnel does."""
    bench.reset_sequences("numbered", "full", "numbered6", "full6", *MOST_IN_FRAMES)


def most(tunnel: str, version: int) -> int:
    return (MOST | MOST_IN_FRAMES)[tunnel][version == 6]


def having(options: bytes, mss: int) -> bytes:
    """The option list with another MSS than 1460 in it."""
    return options.replace(b"\x02\x04\x05\xb4", b"\x02\x04" + mss.to_bytes(2, "big"))


def is_summed(tunnel: str) -> bool:
    return "summed" in tunnel or "full" in tunnel


def carried_by(tunnel: str, frame: bytes) -> bytes:
    """What GRE carries in a frame that leaves through a tunnel; its checksum must be right."""
    end = p.ENDS[tunnel]
    gre_at = p.GRE_AT6 if end.is_ipv6 else p.GRE_AT
    words = is_summed(tunnel) + (end.okey is not None) + ("numbered" in tunnel or "full" in tunnel)
    if is_summed(tunnel):
        assert checksum(frame[gre_at:]) == b"\0\0"
    return frame[gre_at + 4 + 4 * words :]


def outbound(bench: Bench, tunnel: str, packet: Packet, *tags: tuple[int, int]) -> bytes:
    """The inner packet that leaves in GRE for a packet from the LAN, its hop given back."""
    frame = p.tagged(p.on_lan(packet), *tags)
    return unspent(carried_by(tunnel, bench.port(frame, "eth1").frame))


def inbound(bench: Bench, tunnel: str, packet: Packet, *tags: tuple[int, int]) -> bytes:
    """The packet that goes to the LAN for one that came in GRE, its hop given back."""
    frame = p.tagged(arrived(tunnel, packet), *tags)
    return unspent(bench.port(frame, "eth0").frame[14:])


def arrived(tunnel: str, carried: Packet | bytes, number: int = 0) -> Packet:
    """The frame in which something arrives through a tunnel, with all that is asked of it."""
    header: dict[str, object] = {"chksum_present": 1} if is_summed(tunnel) else {}
    if "numbered" in tunnel or "full" in tunnel:
        header |= {"seqnum_present": 1, "sequence_number": number}
    return p.came(tunnel, carried, header)


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
@DIRECTIONS
def test_lowered(
    bench: Bench, tunnel: str, version: int, flags: str, options: bytes, is_inbound: bool
) -> None:
    """Duty 27: 1460 becomes what the tunnel takes, the checksum fits, and nothing else changes."""
    packet = syn(tunnel, version, options, flags, inbound=is_inbound)
    lowered = having(options, most(tunnel, version))
    expected = bytes(syn(tunnel, version, lowered, flags, inbound=is_inbound))
    send = inbound if is_inbound else outbound
    assert send(bench, tunnel, packet) == expected


@VERSIONS
@pytest.mark.parametrize("options", OTHER_LISTS.values(), ids=OTHER_LISTS)
@DIRECTIONS
def test_left_alone(bench: Bench, version: int, options: bytes, is_inbound: bool) -> None:
    """A list without an MSS, or a malformed one, is sent on octet by octet."""
    packet = syn("plain", version, options, inbound=is_inbound)
    send = inbound if is_inbound else outbound
    assert send(bench, "plain", packet) == bytes(packet)


@TUNNELS
@VERSIONS
@FLAGS
@DIRECTIONS
def test_never_raised(
    bench: Bench, tunnel: str, version: int, flags: str, is_inbound: bool
) -> None:
    """Duty 27: a smaller MSS, or one that just fits, stays; one more than that does not."""
    send = inbound if is_inbound else outbound
    fits = most(tunnel, version)
    for mss in (0, 1, 536, 1220, fits - 1, fits):
        bench.reset_sequences("numbered", "full", "numbered6", "full6")
        options = having(LISTS["mss-first"], mss)
        packet = syn(tunnel, version, options, flags, inbound=is_inbound)
        assert send(bench, tunnel, packet) == bytes(packet), mss
    bench.reset_sequences("numbered", "full", "numbered6", "full6")
    over, just = (
        syn(tunnel, version, having(LISTS["mss-first"], mss), flags, inbound=is_inbound)
        for mss in (fits + 1, fits)
    )
    assert send(bench, tunnel, over) == bytes(just)


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


@pytest.mark.parametrize(("source", "target"), [("plain", "full6"), ("full6", "plain")])
@VERSIONS
@FLAGS
def test_from_tunnel_to_tunnel(
    bench: Bench, source: str, target: str, version: int, flags: str
) -> None:
    """Duty 27: what both tunnels take, whichever takes less."""
    least = min(most(source, version), most(target, version))
    raw = bytearray(bytes(syn(source, version, LISTS["mss-first"], flags, inbound=True)))
    at, size = (24, 16) if version == 6 else (16, 4)
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    raw[at : at + size] = socket.inet_pton(family, p.SITE[target][version == 6])
    packet = with_checksums(bytes(raw))
    lowered = with_checksums(having(bytes(packet), least))
    frame = bench.port(arrived(source, packet), "eth0").frame
    assert unspent(carried_by(target, frame)) == bytes(lowered)


class TestTaggedLinks:
    """Tags of the frame that carries a SYN move what is clamped, and are not carried on."""

    @pytest.mark.parametrize("tags", [TAGS["priority"]], ids=["priority"])
    @TUNNELS
    @VERSIONS
    def test_encap(self, bench: Bench, version: int, tunnel: str, tags: Tags) -> None:
        """Duty 27: a LAN that marks its frames with a priority."""
        packet = syn(tunnel, version, LISTS["as-linux-sends-it"])
        lowered = having(LISTS["as-linux-sends-it"], most(tunnel, version))
        assert outbound(bench, tunnel, packet, *tags) == bytes(syn(tunnel, version, lowered))

    @TAGGED
    @TUNNELS
    @VERSIONS
    def test_decap(self, bench: Bench, version: int, tunnel: str, tags: Tags) -> None:
        """Duty 27: GRE arrives with tags of the underlay."""
        packet = syn(tunnel, version, LISTS["at-an-odd-offset"], inbound=True)
        lowered = having(LISTS["at-an-odd-offset"], most(tunnel, version))
        expected = bytes(syn(tunnel, version, lowered, inbound=True))
        assert inbound(bench, tunnel, packet, *tags) == expected


class TestFrames:
    """SYNs in frames, where GRE has all its words before them."""

    @pytest.mark.parametrize("options", LISTS.values(), ids=LISTS)
    @TAGGED
    @pytest.mark.parametrize("tunnel", MOST_IN_FRAMES)
    @VERSIONS
    def test_lowered(
        self, bench: Bench, version: int, tunnel: str, tags: Tags, options: bytes
    ) -> None:
        """Duty 27: both ways, SYN and SYN-ACK, with the frame's own tags left where they are."""
        for number, flags in enumerate(("S", "SA")):
            frame, lowered = (
                p.tagged(p.on_lan(syn(tunnel, version, each, flags), p.STRANGER_MAC), *tags)
                for each in (options, having(options, most(tunnel, version)))
            )
            sent = bench.inner(frame, f"gx-{tunnel}").frame
            assert carried_by(tunnel, sent) == lowered
            expected = to_device(bench, tunnel, lowered, "ethernet")
            assert bench.port(arrived(tunnel, frame, number), "eth0") == expected

    @pytest.mark.parametrize("tunnel", MOST_IN_FRAMES)
    @TAGGED
    @VERSIONS
    def test_never_raised(self, bench: Bench, version: int, tags: Tags, tunnel: str) -> None:
        """Duty 27: what just fits stays."""
        options = having(LISTS["mss-first"], most(tunnel, version))
        frame = p.tagged(p.on_lan(syn(tunnel, version, options), p.STRANGER_MAC), *tags)
        assert carried_by(tunnel, bench.inner(frame, f"gx-{tunnel}").frame) == frame
        expected = to_device(bench, tunnel, frame, "ethernet")
        assert bench.port(arrived(tunnel, frame), "eth0") == expected


# What may stand between an IPv6 header and TCP: next header, and the octets.
EXTENSIONS = {
    "destination-options": (60, bytes([6, 0, 1, 4, 0, 0, 0, 0])),
    "two-of-them": (60, bytes([60, 0, 1, 4, 0, 0, 0, 0, 6, 0, 1, 4, 0, 0, 0, 0])),
    "routing": (43, bytes([6, 0, 4, 0, 0, 0, 0, 0])),
    "fragment": (44, bytes([6, 0, 0, 1, 0, 0, 0, 7])),
    "whole-fragment": (44, bytes([6, 0, 0, 0, 0, 0, 0, 7])),
    "authentication": (51, bytes([6, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1])),
    # As long as a TCP header with an MSS option, and looking like one.
    "like-a-syn": (60, bytes.fromhex("06020002000000000000000060020000" + "0104020405b40000")),
}


class TestExtensionHeaders:
    """A SYN that is not right behind its IP header is sent on octet by octet."""

    @staticmethod
    def behind(extension: tuple[int, bytes], tunnel: str, *, inbound: bool) -> Packet:
        first, octets = extension
        raw = bytearray(bytes(syn(tunnel, 6, LISTS["mss-first"], inbound=inbound)))
        raw[6] = first
        raw[4:6] = (len(raw) - 40 + len(octets)).to_bytes(2, "big")
        return IPv6(bytes(raw[:40]) + octets + bytes(raw[40:]))

    @pytest.mark.parametrize("extension", EXTENSIONS.values(), ids=EXTENSIONS)
    @pytest.mark.parametrize("tunnel", ["plain", "full", "plain6", "full6"])
    @DIRECTIONS
    def test_not_corrupted(
        self, bench: Bench, tunnel: str, extension: tuple[int, bytes], is_inbound: bool
    ) -> None:
        """Duty 27: nothing but the hop limit changes."""
        packet = self.behind(extension, tunnel, inbound=is_inbound)
        send = inbound if is_inbound else outbound
        assert send(bench, tunnel, packet) == bytes(packet)

    @pytest.mark.parametrize("tunnel", ["plain", "full6"])
    def test_hop_by_hop(self, bench: Bench, tunnel: str) -> None:
        """Duty 27: what every router has to read is the kernel's, as it is."""
        extension = (0, bytes([6, 0, 1, 4, 0, 0, 0, 0]))
        frame = p.on_lan(self.behind(extension, tunnel, inbound=False))
        assert bench.port(frame, "eth1") == passed(frame, "ip_options")

    @pytest.mark.parametrize("tunnel", ["plain", "full6"])
    def test_ipv4_options(self, bench: Bench, tunnel: str) -> None:
        """Duty 14: IPv4 options as well."""
        raw = bytearray(bytes(syn(tunnel, 4, LISTS["mss-first"])))
        raw[0] = 0x46
        raw[2:4] = (len(raw) + 4).to_bytes(2, "big")
        raw[20:20] = bytes([1, 1, 1, 0])
        raw[10:12] = b"\0\0"
        raw[10:12] = checksum(bytes(raw[:24]))
        frame = p.on_lan(IP(bytes(raw)))
        assert bench.port(frame, "eth1") == passed(frame, "ip_options")
