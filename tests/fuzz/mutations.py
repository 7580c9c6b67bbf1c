"""Frames of any kind from good ones, many thousands a second."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import NamedTuple, TypeVar

from fuzz.corpus import Corpus, Seed
from gre_xdp.resources import Program
from program.repair import repaired

FRAME_BYTES_MIN, FRAME_BYTES_MAX = 14, 9014
PORTS = ("eth0", "eth1", "eth2")
# Where headers start and end in untagged frames, over IPv4 and IPv6.
HEADS = (14, 18, 34, 38, 42, 46, 54, 58, 62, 66, 74, 94)
WORDS = [
    word.to_bytes(2, "big")
    for word in (
        *(0, 1, 47, 0xFFFF, 0x4500, 0x6000, 0x2000, 0xB000),
        *(0x0800, 0x86DD, 0x6558, 0x8847, 0x8100, 0x88A8),
    )
]
# Of 64 frames: arbitrary bytes, a good head and arbitrary bytes, made of a long frame.
ARBITRARY, HEADED, LONG = 2, 5, 1
ELSEWHERE = 3  # of 64: come in by another interface than it should
LEFT_BROKEN = 16  # of 64: lengths and checksums stay as the mutations left them
SPLIT = 2  # of 64: have a short first piece
SPLIT_ROOM = 160


class Case(NamedTuple):
    """A frame, the program it is for, and where it comes in.

    ``first`` are the bytes of its first piece, if that is shorter than need be; else 0.
    """

    program: Program
    interface: str
    frame: bytearray
    first: int = 0

    def __str__(self) -> str:
        where = f"program {self.program}, interface {self.interface}, first piece {self.first}"
        return f"{where}\nframe {self.frame.hex()}"


T = TypeVar("T")


class Mutator:
    """An endless supply of frames; the same random numbers make the same ones."""

    def __init__(self, corpus: Corpus, random: Random) -> None:
        self._short, self._long = corpus
        self._devices = sorted({seed.interface for seed in self._short if seed.program == "inner"})
        self._real, self._bits, self._octets = random.random, random.getrandbits, random.randbytes

    def case(self, number: int) -> Case:
        """A frame; ``number`` rises, and with it sequence numbers, before they are mutated."""
        chosen = self._bits(6)
        seed = self._choose(self._long if chosen < LONG else self._short)
        raw = bytearray(seed.frame)
        if chosen >= 64 - ARBITRARY:
            raw = bytearray(self._octets(FRAME_BYTES_MIN + self._below(200)))
        elif chosen >= 64 - ARBITRARY - HEADED:
            del raw[self._choose(HEADS) :]
            raw += self._octets(self._below(120))
        else:
            if seed.sequence_at:
                raw[seed.sequence_at : seed.sequence_at + 4] = number.to_bytes(4, "big")
            for _ in range(self._bits(2)):
                self._mutate(raw)
        del raw[FRAME_BYTES_MAX:]
        if self._bits(6) >= LEFT_BROKEN:
            raw = repaired(raw)
        raw += bytes(max(0, FRAME_BYTES_MIN - len(raw)))
        first = 0
        if self._bits(6) < SPLIT:
            first = FRAME_BYTES_MIN + self._below(min(len(raw) - FRAME_BYTES_MIN, SPLIT_ROOM))
        return Case(seed.program, self._interface(seed), raw, first)

    def _below(self, limit: int) -> int:
        return int(self._real() * limit)

    def _choose(self, options: Sequence[T]) -> T:
        return options[int(self._real() * len(options))]

    def _interface(self, seed: Seed) -> str:
        if self._bits(6) >= ELSEWHERE:
            return seed.interface
        if seed.program == "port":
            return self._choose(PORTS)
        return self._choose(self._devices) if self._bits(2) else "eth1"

    def _mutate(self, raw: bytearray) -> None:
        """Do one thing to a frame, mostly to its headers."""
        where = self._bits(3)
        start, room = (0, 14) if where == 0 else (14, 124) if where < 5 else (30, 48)
        at = start + self._below(room)
        if at >= len(raw):
            at = self._below(len(raw) or 1)
        match self._bits(4):
            case 0 | 1 | 2 | 3 | 4:
                raw[at : at + 1] = bytes([(raw[at] if raw else 0) ^ 1 << self._bits(3)])
            case 5 | 6 | 7:
                raw[at : at + 1] = bytes([self._bits(8)])
            case 8 | 9 | 10:
                raw[at & ~1 : (at & ~1) + 2] = self._choose(WORDS)
            case 11:
                del raw[at:]
            case 12:
                raw += self._octets(self._below(64))
            case 13:
                raw[at:at] = self._octets(1 + self._bits(3))
            case 14:
                del raw[at : at + 1 + self._bits(3)]
            case _:
                other = self._choose(self._short).frame
                raw[at : at + 4] = other[at : at + 4]
