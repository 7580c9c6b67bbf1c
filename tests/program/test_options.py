"""Checksums and sequence numbers that a tunnel asks for, and the inner sources it allows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

import pytest
from scapy.layers.inet6 import UDP, IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.packet import Packet, Raw

import packets as p
from gre_xdp import abi, bpf
from program.bench import Bench, decapsulated, dropped, encapsulated

T = TypeVar("T")
VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])
LENGTHS = [0, 1, 2, 3, 26, 483, 484, 485, 486, 1000, 1399, 1400]
CHECKSUM = {"chksum_present": 1}


def numbered(number: int) -> dict[str, int]:
    return {"seqnum_present": 1, "sequence_number": number}


def sent_number(frame: bytes) -> int:
    return int(Ether(frame)[GRE].sequence_number)


def tunnel_id(bench: Bench, name: str) -> int:
    return next(i for i in range(len(p.SITE)) if bench.data_path.tunnel(i).name.decode() == name)


@pytest.fixture(autouse=True)
def _fresh_sequences(bench: Bench) -> None:
    """Each test starts where a new tunnel does."""
    for name in ("numbered", "full"):
        bench.data_path.reset_sequences(tunnel_id(bench, name))


class TestSending:
    """Duty 6: checksum and reserved1, key, sequence, in this order."""

    @VERSIONS
    @pytest.mark.parametrize("length", LENGTHS)
    def test_checksum(self, bench: Bench, version: int, length: int) -> None:
        """The checksum covers GRE header and payload, whatever their length."""
        inner = p.to_site("summed", version, length)
        expected = p.sent(p.gre(p.spent(inner), **CHECKSUM), "summed")
        assert bench.port(p.on_lan(inner), "eth1") == encapsulated("summed", expected, inner)

    def test_largest(self, bench: Bench) -> None:
        """A packet of the tunnel's MTU, 1472 bytes, is summed to its end."""
        inner = p.of_bytes(1472, p.to_site, "summed", 4)
        expected = p.sent(p.gre(p.spent(inner), **CHECKSUM), "summed")
        assert bench.port(p.on_lan(inner), "eth1") == encapsulated("summed", expected, inner)

    @VERSIONS
    def test_all_words(self, bench: Bench, version: int) -> None:
        """Checksum, key and sequence together; the checksum covers the other two."""
        inner = p.to_site("full", version)
        for number in range(3):
            header = {**CHECKSUM, **numbered(number)}
            expected = p.sent(p.gre(p.spent(inner), p.KEY, **header), "full")
            assert bench.port(p.on_lan(inner), "eth1") == encapsulated("full", expected, inner)

    def test_numbers_start_at_zero_and_rise_by_one(self, bench: Bench) -> None:
        """Duty 11: the sender starts at 0."""
        frame = p.on_lan(p.to_site("numbered", 4))
        assert [sent_number(bench.port(frame, "eth1").frame) for _ in range(5)] == [0, 1, 2, 3, 4]

    def test_numbers_wrap(self, bench: Bench) -> None:
        """Duty 11: after 2^32 - 1 comes 0."""
        start(bench, sent=2**32 - 2)
        frame = p.on_lan(p.to_site("numbered", 4))
        numbers = [sent_number(bench.port(frame, "eth1").frame) for _ in range(4)]
        assert numbers == [2**32 - 2, 2**32 - 1, 0, 1]

    def test_host_and_lan_share_one_count(self, bench: Bench) -> None:
        """Packets of this host and of the LAN are numbered together."""
        inner = p.to_site("numbered", 4)
        bench.port(p.on_lan(inner), "eth1")
        outcome = bench.inner(p.onto_device(inner, bench.mac("numbered")), "gx-numbered")
        assert sent_number(outcome.frame) == 1


def start(bench: Bench, *, sent: int = 0, received: int | None = None) -> None:
    """Set the numbers of the tunnel "numbered" as if it had run for long."""
    value = abi.Sequences(
        sent=sent, received=0 if received is None else abi.SEQUENCE_SEEN | received
    )
    path = bench.data_path.pins.maps / abi.MAPS[abi.MapIndex.SEQUENCES].name
    with bpf.owned(bpf.get(path)) as fd:
        bpf.map_update(fd, abi.u32(tunnel_id(bench, "numbered")), bytes(value))


def came(tunnel: str, inner: Packet, **header: int) -> Packet:
    return p.received(p.gre(inner, p.ENDS[tunnel].ikey, **header), tunnel)


class TestReceivingChecksums:
    """Duty 5: a tunnel with ``icsum`` takes nothing without a right checksum."""

    @VERSIONS
    @pytest.mark.parametrize("length", LENGTHS)
    def test_right(self, bench: Bench, version: int, length: int) -> None:
        """A right checksum is accepted, whatever the length."""
        inner = p.to_lan("summed", version, length)
        expected = decapsulated("summed", p.out_of_lan(p.spent(inner)))
        assert bench.port(came("summed", inner, **CHECKSUM), "eth0") == expected

    @VERSIONS
    def test_missing(self, bench: Bench, version: int) -> None:
        """Without one the packet is dropped, and the counter says that csum differs."""
        frame = came("summed", p.to_lan("summed", version))
        assert bench.port(frame, "eth0") == dropped("gre_checksum_missing")

    def test_wrong(self, bench: Bench) -> None:
        """A wrong one is another reason."""
        frame = came("summed", p.to_lan("summed", 4), **CHECKSUM, chksum=1)
        assert bench.port(frame, "eth0") == dropped("gre_checksum")


class TestReceivingSequences:
    """Duty 11: newer numbers are accepted, in a window of 2^31."""

    @staticmethod
    def outcome(bench: Bench, number: int) -> str:
        inner = p.to_lan("numbered", 4)
        got = bench.port(came("numbered", inner, **numbered(number)), "eth0")
        if got == decapsulated("numbered", p.out_of_lan(p.spent(inner))):
            return "accepted"
        assert got == dropped("gre_sequence")
        return "old"

    @pytest.mark.parametrize("first", [0, 1, 5, 2**31, 2**32 - 1])
    def test_any_first(self, bench: Bench, first: int) -> None:
        """Whatever the first number is, it is accepted, once."""
        assert [self.outcome(bench, first) for _ in range(3)] == ["accepted", "old", "old"]

    @pytest.mark.parametrize(
        ("last", "number", "fate"),
        [
            (5, 6, "accepted"),
            (5, 7, "accepted"),
            (5, 5, "old"),
            (5, 4, "old"),
            (5, 5 + 2**31 - 1, "accepted"),
            (5, 5 + 2**31, "old"),
            (0, 2**32 - 1, "old"),
            (2**32 - 1, 0, "accepted"),
            (2**32 - 1, 2**31 - 2, "accepted"),
            (2**31, 2**31 + 1, "accepted"),
            (2**31, 2**31 - 1, "old"),
        ],
    )
    def test_window(self, bench: Bench, last: int, number: int, fate: str) -> None:
        """Gaps are accepted, repetitions and what is older are not; numbers wrap."""
        start(bench, received=last)
        assert self.outcome(bench, number) == fate

    def test_missing(self, bench: Bench) -> None:
        """A packet without a number has a reason of its own."""
        frame = came("numbered", p.to_lan("numbered", 4))
        assert bench.port(frame, "eth0") == dropped("gre_sequence_missing")

    def test_a_dropped_packet_uses_up_no_number(self, bench: Bench) -> None:
        """What is dropped for another reason does not make the next one old."""
        inner = p.to_lan("numbered", 4)
        broken = bytearray(bytes(came("numbered", inner, **numbered(9))))
        broken[-len(inner)] = 0x55
        assert bench.port(bytes(broken), "eth0") == dropped("inner_malformed")
        assert self.outcome(bench, 9) == "accepted"

    def test_full(self, bench: Bench) -> None:
        """Checksum, key and number together."""
        inner = p.to_lan("full", 4)
        frame = came("full", inner, **CHECKSUM, **numbered(3))
        expected = decapsulated("full", p.out_of_lan(p.spent(inner)))
        assert bench.port(frame, "eth0") == expected
        assert bench.port(frame, "eth0") == dropped("gre_sequence")


class TestSources:
    """A tunnel with ``allowed_sources`` brings nothing else."""

    @pytest.mark.parametrize(
        ("source", "is_allowed"),
        [
            ("10.35.0.2", True),
            ("10.35.255.255", True),
            ("10.36.1.0", True),
            ("10.36.0.255", False),
            ("10.36.2.0", False),
            ("10.34.255.255", False),
            ("198.51.100.99", False),
            ("2001:db8:35::2", True),
            ("2001:db8:35:ffff::1", True),
            ("2001:db8:36::", False),
            ("::a23:2", False),
        ],
    )
    def test_sources(self, bench: Bench, source: str, is_allowed: bool) -> None:
        """Inside the prefixes is forwarded, outside is dropped as inner_source."""
        inner = p.udp(source, p.HOST6 if ":" in source else p.HOST4)
        expected = (
            decapsulated("guarded", p.out_of_lan(p.spent(inner)))
            if is_allowed
            else dropped("inner_source")
        )
        assert bench.port(came("guarded", inner), "eth0") == expected

    def test_link_local_sources_are_the_remote_itself(self, bench: Bench) -> None:
        """Routing protocols of the remote speak from there, to this host."""
        inner = IPv6(
            bytes(IPv6(src="fe80::2", dst="ff02::5", hlim=1) / UDP(sport=1, dport=2) / Raw(b"x"))
        )
        expected = decapsulated("guarded", p.onto_device(inner, bench.mac("guarded")), "multicast")
        assert bench.port(came("guarded", inner), "eth0") == expected

    def test_another_tunnels_sources_are_its_own(self, bench: Bench) -> None:
        """A prefix that one tunnel may bring says nothing about another."""
        inner = p.udp("10.35.0.2", p.HOST4)
        expected = decapsulated("plain", p.out_of_lan(p.spent(inner)))
        assert bench.port(came("plain", inner), "eth0") == expected


class TestReceiveQueues:
    """Each receive queue runs the program on a CPU of its own; a tunnel has one count for all."""

    RUNS = 3000

    @pytest.fixture
    def run(self, bench: Bench) -> Iterator[Callable[[bytes, str], bpf.RunResult]]:
        """Runs the port program without looking at counters, which all CPUs share."""
        [digest] = bench.data_path.pinned_digests()
        indices = {name: bench.ifindex(name) for name in ("eth0", "eth1")}
        with bench.data_path.open_program(digest, "port") as program:
            yield lambda frame, name: bpf.prog_run(program, frame, indices[name])
        bench.moved()

    def test_no_number_is_sent_twice(self, run: Callable[[bytes, str], bpf.RunResult]) -> None:
        """Duty 11: two CPUs that send at once use every number once, and leave none out."""
        frame = bytes(p.on_lan(p.to_site("numbered", 4)))

        def send(cpu: int) -> list[int]:
            os.sched_setaffinity(threading.get_native_id(), {cpu})
            sent = [run(frame, "eth1").frame for _ in range(self.RUNS)]
            return [int.from_bytes(each[p.GRE_AT + 4 : p.GRE_AT + 8], "big") for each in sent]

        numbers = on_all_cpus(send)
        assert sorted(chain.from_iterable(numbers)) == list(range(sum(map(len, numbers))))

    def test_no_number_is_accepted_twice(self, run: Callable[[bytes, str], bpf.RunResult]) -> None:
        """Duty 11: of the same number on two CPUs at once, one is taken and the other refused."""
        frames = [
            bytes(came("numbered", p.to_lan("numbered", 4), **numbered(number)))
            for number in range(self.RUNS)
        ]

        def receive(cpu: int) -> list[str]:
            os.sched_setaffinity(threading.get_native_id(), {cpu})
            return [run(frame, "eth0").verdict for frame in frames]

        verdicts = on_all_cpus(receive)
        for number, fates in enumerate(zip(*verdicts, strict=True)):
            # A CPU that is ahead makes the other's numbers old: never more than one is taken.
            assert fates.count("redirect") <= 1, number
        assert sum(verdict.count("redirect") for verdict in verdicts) >= 1


def on_all_cpus(work: Callable[[int], T]) -> list[T]:
    """Do the work on each CPU at the same time; system calls do not hold Python's lock."""
    cpus = sorted(os.sched_getaffinity(0))
    with ThreadPoolExecutor(len(cpus)) as pool:
        return list(pool.map(work, cpus))
