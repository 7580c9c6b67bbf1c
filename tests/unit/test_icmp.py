"""Reports of packets that were too big: read as they come, and told on to whom they concern."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from gre_xdp import icmp
from gre_xdp.icmp import TooBig, parse_too_big, too_big_for_sender

ENDS = {4: ("192.0.2.1", "198.51.100.7"), 6: ("2001:db8:f1::1", "2001:db8:f2::7")}
HOSTS = {4: ("10.1.0.2", "10.2.0.2"), 6: ("2001:db8:a::2", "2001:db8:b::2")}
PROTOCOLS = {4: 0x0800, 6: 0x86DD}
TCP, UDP, ICMPV4, ICMPV6 = 6, 17, 1, 58
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])


def packed(address: str) -> bytes:
    return ip_address(address).packed


def internet_sum(data: bytes) -> int:
    """RFC 1071, written down once more so that it is not the code under test."""
    total = sum(
        int.from_bytes(data[i : i + 2].ljust(2, b"\0"), "big") for i in range(0, len(data), 2)
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def ip(
    version: int,
    ends: tuple[str, str],
    protocol: int,
    payload: bytes,
    *,
    length: int | None = None,
    fragment: int = 0x4000,
    words: int = 5,
) -> bytes:
    """An IP packet; its header may say another length, and an IPv4 one has so many words."""
    addresses = packed(ends[0]) + packed(ends[1])
    if version == 6:
        length = len(payload) if length is None else length - 40
        return struct.pack("!IHBB", 6 << 28, length, protocol, 64) + addresses + payload
    header = 4 * max(words, 5)
    length = header + len(payload) if length is None else length
    raw = struct.pack("!BBHHHBBH", 0x40 | words, 0, length, 7, fragment, 64, protocol, 0)
    return raw + addresses + b"\1" * (header - 20) + payload


def gre(
    protocol: int,
    payload: bytes,
    *,
    checksum: bool = False,
    key: int | None = None,
    sequence: bool = False,
    gre_version: int = 0,
) -> bytes:
    flags = 0x8000 * checksum | 0x2000 * (key is not None) | 0x1000 * sequence | gre_version
    words = [b"\xab\xcd\0\0"] * checksum
    words += [] if key is None else [key.to_bytes(4, "big")]
    words += [b"\0\0\0\5"] * sequence
    return struct.pack("!HH", flags, protocol) + b"".join(words) + payload


def report(version: int, mtu: int, quote: bytes) -> bytes:
    """Frag Needed or Packet Too Big."""
    if version == 6:
        # Its checksum covers addresses that are not here; sockets have checked it.
        return struct.pack("!BBHI", 2, 0, 0, mtu) + quote
    message = struct.pack("!BBHHH", 3, 4, 0, 0, mtu) + quote
    return message[:2] + internet_sum(message).to_bytes(2, "big") + message[4:]


INNER = {
    version: ip(version, HOSTS[version], UDP, bytes(range(1, 41)), length=1476)
    for version in (4, 6)
}


def outer(version: int, carried: bytes, **changes: int) -> bytes:
    return ip(version, ENDS[version], 47, carried, **{"length": 1500, **changes})


def genuine(version: int, mtu: int = 1400, **words: bool | int) -> bytes:
    """What a router says about an outer packet of 1,500 bytes that carries IPv4."""
    return report(version, mtu, outer(version, gre(0x0800, INNER[4], **words)))


class TestReading:
    """``parse_too_big``."""

    @pytest.mark.parametrize("checksum", [False, True], ids=["", "C"])
    @pytest.mark.parametrize("key", [None, 0, 77, 2**32 - 1], ids=["", "K0", "K77", "Kmax"])
    @pytest.mark.parametrize("sequence", [False, True], ids=["", "S"])
    @pytest.mark.parametrize("inner", [4, 6], ids=["of-ipv4", "of-ipv6"])
    @VERSIONS
    def test_good(
        self, version: int, inner: int, sequence: bool, key: int | None, checksum: bool
    ) -> None:
        """Duty 16: ends, MTU, key and inner packet, wherever GRE's words put them."""
        carried = gre(PROTOCOLS[inner], INNER[inner], checksum=checksum, key=key, sequence=sequence)
        local, remote = map(ip_address, ENDS[version])
        assert parse_too_big(version, report(version, 1400, outer(version, carried))) == TooBig(
            local, remote, 1400, key is not None, key, PROTOCOLS[inner], INNER[inner]
        )

    @pytest.mark.parametrize(
        ("length", "mtu"),
        [
            (1500, 1492),
            (1492, 1006),
            (9000, 8166),
            (65535, 32000),
            (576, 508),
            (69, 68),
            (68, None),
        ],
    )
    def test_a_router_that_states_no_mtu(self, length: int, mtu: int | None) -> None:
        """RFC 1191 section 7: the next plateau below the packet that was too long."""
        found = parse_too_big(4, report(4, 0, outer(4, gre(0x0800, INNER[4]), length=length)))
        assert (found and found.mtu) == mtu

    @VERSIONS
    def test_a_quote_that_ends_before_the_key(self, version: int) -> None:
        """Duty 16: RFC 792 asks for eight octets only, which end before a key behind a checksum."""
        message = genuine(version, checksum=True, key=77)
        ip_bytes = {4: 20, 6: 40}[version]
        short = message[: 8 + ip_bytes + 8]
        if version == 4:
            short = report(4, 1400, short[8:])
        found = parse_too_big(version, short)
        assert found is not None
        assert (found.has_key, found.key, found.inner) == (True, None, b"")

    @pytest.mark.parametrize("words", [{}, {"key": 5}, {"checksum": True, "sequence": True}])
    @VERSIONS
    def test_cut_off_anywhere(self, version: int, words: dict[str, bool | int]) -> None:
        """A message that ends anywhere is read without an error, and says nothing before GRE."""
        whole = genuine(version, **words)
        needed = 8 + {4: 20, 6: 40}[version] + 4
        for length in range(len(whole)):
            message = whole[:length]
            if version == 4 and length > 8:
                message = report(4, 1400, message[8:])
            found = parse_too_big(version, message)
            assert (found is None) == (length < needed), length

    @pytest.mark.parametrize(
        "message",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\3" + genuine(4)[1:2], id="two-octets"),
            *(
                pytest.param(bytes([kind]) + genuine(4)[1:], id=f"type-{kind}")
                for kind in (0, 2, 5, 8, 11, 12)
            ),
            *(
                pytest.param(genuine(4)[:1] + bytes([code]) + genuine(4)[2:], id=f"code-{code}")
                for code in (0, 1, 2, 3, 5, 13)
            ),
            pytest.param(report(4, 1400, outer(6, gre(0x0800, INNER[4]))), id="quotes-ipv6"),
            pytest.param(
                report(4, 1400, ip(4, ENDS[4], UDP, INNER[4], length=1500)), id="quotes-udp"
            ),
            pytest.param(report(4, 1400, outer(4, gre(0x0800, INNER[4]), fragment=0)), id="no-df"),
            pytest.param(
                report(4, 1400, outer(4, gre(0x0800, INNER[4]), fragment=0x4001)),
                id="later-fragment",
            ),
            pytest.param(genuine(4, gre_version=1), id="pptp"),
            pytest.param(genuine(4, gre_version=7), id="version-7"),
            pytest.param(genuine(4, mtu=1500), id="would-have-fitted"),
            pytest.param(genuine(4, mtu=65535), id="more-than-that"),
            *(
                pytest.param(
                    report(4, 1400, outer(4, gre(0x0800, INNER[4]), words=words)),
                    id=f"header-of-{words}-words",
                )
                for words in range(5)
            ),
        ],
    )
    def test_no_report_over_ipv4(self, message: bytes) -> None:
        """Duty 16: other messages, and what quotes no packet that we could have sent."""
        assert parse_too_big(4, message) is None

    @pytest.mark.parametrize(
        "message",
        [
            pytest.param(b"", id="empty"),
            pytest.param(b"\2\0", id="two-octets"),
            *(
                pytest.param(bytes([kind]) + genuine(6)[1:], id=f"type-{kind}")
                for kind in (1, 3, 4, 128, 129, 137)
            ),
            pytest.param(report(6, 1400, outer(4, gre(0x0800, INNER[4]))), id="quotes-ipv4"),
            pytest.param(
                report(6, 1400, ip(6, ENDS[6], UDP, INNER[4], length=1500)), id="quotes-udp"
            ),
            pytest.param(
                report(6, 1400, ip(6, ENDS[6], 60, bytes([47, 0, 1, 4, 0, 0, 0, 0]) + INNER[4])),
                id="extension-header",
            ),
            pytest.param(genuine(6, gre_version=1), id="pptp"),
            pytest.param(genuine(6, mtu=1500), id="would-have-fitted"),
            pytest.param(genuine(6, mtu=2**32 - 1), id="more-than-that"),
        ],
    )
    def test_no_report_over_ipv6(self, message: bytes) -> None:
        """Duty 16: other messages, and what quotes no packet that we could have sent."""
        assert parse_too_big(6, message) is None

    def test_a_wrong_checksum(self) -> None:
        """RFC 1122 section 3.2.2: discarded; raw IPv4 sockets hear ICMP before it is checked."""
        message = bytearray(genuine(4))
        message[7] ^= 1
        assert parse_too_big(4, bytes(message)) is None

    @given(version=st.sampled_from([4, 6]), message=st.binary(max_size=200))
    def test_any_octets(self, version: int, message: bytes) -> None:
        """Duty 16: nothing that anybody sends raises an error."""
        answered(parse_too_big(version, message))

    @given(
        version=st.sampled_from([4, 6]),
        start=st.binary(max_size=4),
        octets=st.binary(max_size=120),
        length=st.integers(0, 300),
    )
    def test_nearly_genuine(self, version: int, start: bytes, octets: bytes, length: int) -> None:
        """Duty 16: nor does what looks like a report for as long as it can."""
        quote = outer(version, start + gre(0x0800, b"")[len(start) :] + octets)[:length]
        answered(parse_too_big(version, report(version, 1400, quote)))


def answered(found: TooBig | None) -> None:
    """A report can be told on, whatever it quotes."""
    if found is not None:
        too_big_for_sender(found, 1376)


def heard(inner: bytes, protocol: int, version: int = 4) -> TooBig:
    """A report that quotes so much of an inner packet."""
    local, remote = map(ip_address, ENDS[version])
    return TooBig(local, remote, 1400, False, None, protocol, inner)


class TestTelling:
    """``too_big_for_sender``."""

    @pytest.mark.parametrize("words", [5, 6, 15], ids=["no-options", "options", "most-options"])
    @pytest.mark.parametrize("protocol", [TCP, UDP, 47], ids=["tcp", "udp", "gre"])
    def test_ipv4(self, protocol: int, words: int) -> None:
        """Duty 18: Frag Needed with the tunnel's MTU, the header and eight octets behind it."""
        inner = ip(4, HOSTS[4], protocol, bytes(range(100)), length=1476, words=words)
        told = too_big_for_sender(heard(inner, 0x0800), 1376)
        assert told is not None
        sender, message = told
        assert sender == ip_address(HOSTS[4][0])
        assert (message[:2], message[4:8]) == (b"\3\4", struct.pack("!HH", 0, 1376))
        assert message[8:] == inner[: 4 * words + 8]
        assert internet_sum(message) == 0

    @pytest.mark.parametrize("quoted", [48, 100, 1232, 1400], ids=lambda n: f"{n}-octets")
    def test_ipv6(self, quoted: int) -> None:
        """Duty 18: Packet Too Big, whose quote leaves it at 1,280 bytes at most."""
        inner = ip(6, HOSTS[6], UDP, bytes(1400), length=1476)[:quoted]
        told = too_big_for_sender(heard(inner, 0x86DD), 1376)
        assert told is not None
        sender, message = told
        assert sender == ip_address(HOSTS[6][0])
        assert message == struct.pack("!BBHI", 2, 0, 0, 1376) + inner[:1232]
        assert len(message) + 40 <= 1280

    @pytest.mark.parametrize("kind", [0, 8], ids=["echo-reply", "echo-request"])
    def test_about_icmp_queries(self, kind: int) -> None:
        """Duty 26: an echo is no error."""
        inner = ip(4, HOSTS[4], ICMPV4, bytes([kind]) + bytes(20), length=1476)
        assert too_big_for_sender(heard(inner, 0x0800), 1376) is not None
        echo = ip(6, HOSTS[6], ICMPV6, bytes([kind // 8 + 128]) + bytes(20), length=1476)
        assert too_big_for_sender(heard(echo, 0x86DD), 1376) is not None

    @pytest.mark.parametrize(
        ("inner", "protocol"),
        [
            *(
                pytest.param(
                    ip(4, HOSTS[4], ICMPV4, bytes([kind]) + bytes(20), length=1476),
                    0x0800,
                    id=f"icmp-{kind}",
                )
                for kind in (3, 4, 5, 11, 12)
            ),
            *(
                pytest.param(
                    ip(6, HOSTS[6], ICMPV6, bytes([kind]) + bytes(20), length=1476),
                    0x86DD,
                    id=f"icmpv6-{kind}",
                )
                for kind in (1, 2, 3, 4, 127)
            ),
            pytest.param(ip(4, HOSTS[4], UDP, bytes(20), fragment=0), 0x0800, id="no-df"),
            pytest.param(
                ip(4, HOSTS[4], UDP, bytes(20), fragment=0x4010), 0x0800, id="later-fragment"
            ),
            *(
                pytest.param(ip(4, ends, UDP, bytes(20)), 0x0800, id=f"{ends[0]}-{ends[1]}")
                for ends in (
                    ("10.1.0.2", "224.0.0.5"),
                    ("224.0.0.5", "10.2.0.2"),
                    ("0.0.0.0", "10.2.0.2"),
                    ("127.0.0.1", "10.2.0.2"),
                    ("10.1.0.2", "255.255.255.255"),
                    ("255.255.255.255", "10.2.0.2"),
                )
            ),
            *(
                pytest.param(ip(6, ends, UDP, bytes(20)), 0x86DD, id=f"{ends[0]}-{ends[1]}")
                for ends in (
                    ("ff02::1", "2001:db8:b::2"),
                    ("::", "2001:db8:b::2"),
                    ("::1", "2001:db8:b::2"),
                )
            ),
            pytest.param(ip(4, HOSTS[4], UDP, bytes(7)), 0x0800, id="ipv4-seven-octets"),
            pytest.param(ip(6, HOSTS[6], UDP, bytes(7)), 0x86DD, id="ipv6-seven-octets"),
            pytest.param(INNER[6], 0x0800, id="said-to-be-ipv4"),
            pytest.param(INNER[4], 0x86DD, id="said-to-be-ipv6"),
            pytest.param(bytes(14) + INNER[4], 0x6558, id="a-frame"),
            pytest.param(b"\0\1\1\x40" + INNER[4], 0x8847, id="labels"),
            pytest.param(b"", 0x0800, id="nothing"),
            *(
                pytest.param(
                    ip(4, HOSTS[4], UDP, bytes(60), words=words), 0x0800, id=f"{words}-words"
                )
                for words in range(5)
            ),
        ],
    )
    def test_nobody_is_told(self, inner: bytes, protocol: int) -> None:
        """Duty 26: nothing about errors, later fragments, and ends that are not one host."""
        assert too_big_for_sender(heard(inner, protocol), 1376) is None

    @pytest.mark.parametrize("words", [5, 6, 15])
    @pytest.mark.parametrize("protocol", [UDP, ICMPV4], ids=["udp", "icmp"])
    def test_a_quote_that_ends_in_the_inner_options(self, protocol: int, words: int) -> None:
        """Duty 26: what is not quoted cannot be told on, and is no reason to fail."""
        whole = ip(4, HOSTS[4], protocol, bytes([8]) + bytes(20), words=words)
        for length in range(4 * words + 8):
            assert too_big_for_sender(heard(whole[:length], 0x0800), 1376) is None, length

    @example(inner=b"\x4f\0\0\x1c\0\0\x40\0\x40\1" + bytes(18), protocol=0x0800)
    @given(inner=st.binary(max_size=120), protocol=st.sampled_from([0x0800, 0x86DD, 0x6558]))
    def test_any_octets(self, inner: bytes, protocol: int) -> None:
        """Duty 16: whatever a report quotes, telling it on raises no error."""
        too_big_for_sender(heard(inner, protocol), 1376)

    @given(st.binary(max_size=80), st.sampled_from([4, 6]))
    def test_octets_behind_a_version(self, octets: bytes, version: int) -> None:
        """Duty 16: nor does what begins like a packet, whatever its header's length."""
        for first in (version << 4 | words for words in range(16)):
            too_big_for_sender(heard(bytes([first]) + octets, PROTOCOLS[version]), 1376)


@given(st.binary(max_size=100))
def test_checksum(message: bytes) -> None:
    """RFC 1071: with its checksum in place a message sums up to all ones."""
    blank = message[:2].ljust(2, b"\0") + b"\0\0" + message[4:]
    assert internet_sum(blank[:2] + icmp.checksum(blank) + blank[4:]) == 0
