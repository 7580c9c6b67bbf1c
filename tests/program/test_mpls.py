"""MPLS in GRE (RFC 4023): a label stack and what is below, between the tunnel and its device."""

from __future__ import annotations

import pytest
from scapy.contrib.mpls import MPLS
from scapy.layers.inet import IP
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw

import packets as p
from packets import came
from program.bench import Bench, Outcome, dropped, encapsulated, to_device, unrelated

GATEWAY_TUNNELS = (
    *("plain", "keyed", "full", "inherit", "fixed", "guarded"),
    *("plain6", "keyed6", "full6", "inherit6", "fixed6"),
)

TUNNELS = pytest.mark.parametrize("tunnel", ["plain", "keyed", "plain6", "keyed6"])
OUTERS = pytest.mark.parametrize("tunnel", ["plain", "plain6"], ids=["over-ipv4", "over-ipv6"])
CHECKSUM = {"chksum_present": 1}
IPV4, IPV6 = p.udp("10.0.0.1", "10.0.0.2", tos=0x48, ttl=7), p.udp("fd00::1", "fd00::2", tos=1)
STACKS = {
    "ipv4": MPLS(label=16, s=1, ttl=9) / IPV4,
    "ipv6": MPLS(label=16, s=1, ttl=9) / IPV6,
    "two-labels": MPLS(label=16, s=0, ttl=9) / MPLS(label=1048575, s=1, ttl=8) / IPV4,
    "explicit-null": MPLS(label=0, s=1, ttl=1) / IPV4,
    "last-hop": MPLS(label=16, s=1, ttl=0) / IPV4,
    "pseudowire": MPLS(label=17, s=1, ttl=2) / Raw(bytes(4) + bytes(Ether() / IPV4)),
    "no-bottom": MPLS(label=16, s=0, ttl=9) / Raw(b"\xff" * 8),
    "looks-like-ipv4": MPLS(label=0x45000, s=1, ttl=9) / IPV4,
    "martian": MPLS(label=16, s=1, ttl=9) / p.udp("127.0.0.1", "10.0.0.2"),
    "syn": MPLS(label=16, s=1, ttl=9)
    / IP(bytes.fromhex("4500002c000700004006") + b"\0\0" + bytes([10, 0, 0, 1, 10, 0, 0, 2]))
    / Raw(bytes.fromhex("00010002000000000000000060020000000000000204ffff")),
}
ANY_STACK = pytest.mark.parametrize("stack", STACKS.values(), ids=STACKS)


@pytest.fixture(autouse=True)
def _fresh_sequences(bench: Bench) -> None:
    """Each test starts where a new tunnel does."""
    bench.reset_sequences("full", "full6")


def whole(stack: Packet) -> Packet:
    """The same octets, read back: every length and checksum is there."""
    return MPLS(bytes(stack))


def from_host(bench: Bench, tunnel: str, stack: Packet | bytes) -> Outcome:
    """What becomes of a stack that the host sends into a tunnel's device."""
    frame = Ether(src=p.HOST_MAC, dst=p.STRANGER_MAC, type=0x8847) / stack
    return bench.inner(frame, f"gx-{tunnel}")


class TestDecap:
    """The kernel has the tables for labels: the stack arrives on the tunnel's device."""

    @ANY_STACK
    def test_only_some_sources_allowed(self, bench: Bench, stack: Packet) -> None:
        """Behind labels no source can be seen: where only some are allowed, none is."""
        frame = came("guarded", whole(stack))
        assert bench.port(frame, "eth0") == dropped("inner_source")

    @ANY_STACK
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @TUNNELS
    def test_delivered(
        self, bench: Bench, tunnel: str, header: dict[str, object], stack: Packet
    ) -> None:
        """Duties 1, 5: octet by octet, in a frame of ethertype 0x8847."""
        stack = whole(stack)
        frame = bytes(came(tunnel, stack, header)) + b"\xa5" * 3
        assert bench.port(frame, "eth0") == to_device(bench, tunnel, stack, "mpls")

    @pytest.mark.parametrize("ecn", range(4), ids=["not-ect", "ect1", "ect0", "ce"])
    @OUTERS
    def test_no_mark(self, bench: Bench, tunnel: str, ecn: int) -> None:
        """Duty 24: what is below the labels is not looked at, be the path congested or not."""
        stack = whole(STACKS["ipv4"])
        frame = came(tunnel, stack, tos=0xB8 | ecn)
        assert bench.port(frame, "eth0") == to_device(bench, tunnel, stack, "mpls")

    @pytest.mark.parametrize("padding", [0, 60], ids=["", "padded"])
    @pytest.mark.parametrize("header", [{}, CHECKSUM], ids=["bare", "C"])
    @OUTERS
    def test_shorter_than_a_label(
        self, bench: Bench, tunnel: str, header: dict[str, object], padding: int
    ) -> None:
        """Four octets are a label, and none of less are."""
        for length in range(5):
            gre = GRE(proto=0x8847, **header) / Raw(b"\0\x01\x01\x09"[:length])
            frame = bytes(p.received(gre, tunnel)) + b"\xa5" * padding
            expected = dropped("inner_malformed")
            if length == 4:
                expected = to_device(bench, tunnel, MPLS(b"\0\x01\x01\x09"), "mpls")
            assert bench.port(frame, "eth0") == expected, length

    @pytest.mark.parametrize("tunnel", ["full", "full6"])
    def test_all_words(self, bench: Bench, tunnel: str) -> None:
        """Duties 5, 6, 11: checksum, key and sequence number mean what they mean for IP."""
        stack = whole(STACKS["two-labels"])
        frame = came(tunnel, stack, CHECKSUM | {"seqnum_present": 1, "sequence_number": 3})
        assert bench.port(frame, "eth0") == to_device(bench, tunnel, stack, "mpls")
        assert bench.port(frame, "eth0") == dropped("gre_sequence")
        frame = came(tunnel, stack, {"seqnum_present": 1, "sequence_number": 4})
        assert bench.port(frame, "eth0") == dropped("gre_checksum_missing")

    @pytest.mark.parametrize("protocol", [0x8848, 0x4788], ids=["multicast", "other-byte-order"])
    @OUTERS
    def test_unknown_protocol(self, bench: Bench, tunnel: str, protocol: int) -> None:
        """Duty 7: labels of MPLS multicast (0x8848) are not carried."""
        frame = p.received(GRE(proto=protocol) / whole(STACKS["ipv4"]), tunnel)
        assert bench.port(frame, "eth0") == dropped("unknown_protocol")

    @pytest.mark.parametrize(("tunnel", "mtu"), [("plain", 1476), ("plain6", 1456)])
    def test_longest_for_the_device(self, bench: Bench, tunnel: str, mtu: int) -> None:
        """Duty 17: labels are of the MTU; what is longer would be lost on the device."""
        stack = whole(MPLS(label=16, s=1, ttl=9) / p.payload(mtu - 4))
        assert bench.port(came(tunnel, stack), "eth0") == to_device(bench, tunnel, stack, "mpls")
        stack = whole(MPLS(label=16, s=1, ttl=9) / p.payload(mtu - 3))
        assert bench.port(came(tunnel, stack), "eth0") == dropped("too_big")


class TestEncap:
    """What the kernel labels and sends into the device leaves with protocol type 0x8847."""

    @staticmethod
    def went(
        tunnel: str, stack: Packet, header: dict[str, int] | None = None, **outer: object
    ) -> Outcome:
        gre = p.gre(stack, p.ENDS[tunnel].okey, **(header or {}))
        return encapsulated(tunnel, p.sent(gre, tunnel, **outer), stack)

    @ANY_STACK
    @pytest.mark.parametrize(
        "tunnel", ["plain", "keyed", "inherit", "plain6", "keyed6", "inherit6"]
    )
    def test_from_this_host(self, bench: Bench, tunnel: str, stack: Packet) -> None:
        """Duties 1, 12: nothing is inherited: TTL 64, TOS 0, flow label 0."""
        stack = whole(stack)
        outcome = from_host(bench, tunnel, stack)
        assert outcome == self.went(tunnel, stack)

    @pytest.mark.parametrize("tunnel", ["fixed", "fixed6"])
    def test_configured_outer_header(self, bench: Bench, tunnel: str) -> None:
        """Duties 12, 13, 25: TTL and DSCP as configured; no DF without ``pmtudisc``."""
        stack = whole(STACKS["ipv4"])
        outcome = from_host(bench, tunnel, stack)
        outer = {"ttl": 9, "tos": 0xB8}
        if tunnel == "fixed":
            outer |= {"flags": 0, "id": int.from_bytes(outcome.frame[18:20], "big")}
        assert outcome == self.went(tunnel, stack, **outer)

    @pytest.mark.parametrize("tunnel", ["full", "full6"])
    def test_all_words(self, bench: Bench, tunnel: str) -> None:
        """Duties 5, 6, 11: checksum, key and sequence number, in this order."""
        stack = whole(STACKS["pseudowire"])
        for number in range(3):
            outcome = from_host(bench, tunnel, stack)
            header = CHECKSUM | {"seqnum_present": 1, "sequence_number": number}
            assert outcome == self.went(tunnel, stack, header)

    @OUTERS
    @pytest.mark.parametrize("length", range(4))
    def test_shorter_than_a_label(self, bench: Bench, tunnel: str, length: int) -> None:
        """Less than a label is none."""
        assert from_host(bench, tunnel, bytes(length)) == dropped("inner_malformed")

    @OUTERS
    def test_tagged(self, bench: Bench, tunnel: str) -> None:
        """An IP tunnel's device carries no VLANs."""
        frame = p.tagged(Ether(type=0x8847) / whole(STACKS["ipv4"]), (0x8100, 7))
        assert bench.inner(frame, f"gx-{tunnel}") == dropped("inner_malformed")

    @pytest.mark.parametrize(("tunnel", "mtu"), [("plain", 1476), ("plain6", 1456)])
    def test_largest(self, bench: Bench, tunnel: str, mtu: int) -> None:
        """Duty 17: labels are of the MTU."""
        stack = whole(MPLS(label=16, s=1, ttl=9) / p.payload(mtu - 4))
        outcome = from_host(bench, tunnel, stack)
        assert outcome == self.went(tunnel, stack)
        assert len(outcome.frame) == 1514
        stack = whole(MPLS(label=16, s=1, ttl=9) / p.payload(mtu - 3))
        assert from_host(bench, tunnel, stack) == dropped("too_big")


@pytest.mark.parametrize("interface", ["eth0", "eth1"])
def test_on_a_port(bench: Bench, interface: str) -> None:
    """Labels that come in by a port, not in GRE, are none of our business."""
    frame = Ether(src=p.HOST_MAC, dst=bench.mac(interface), type=0x8847) / whole(STACKS["ipv4"])
    assert bench.port(frame, interface) == unrelated(frame)
