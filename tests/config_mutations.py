"""Configuration files of any kind from good ones, thousands a second.

Bytes, tokens and lines are changed: the first makes what is no text or no TOML, the second what is
TOML and wrong, the third (a key and its value have a line of their own) what is nearly right.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, TypeVar

T = TypeVar("T")

_TOKEN: Final = re.compile(r'"[^"\n]*"|[A-Za-z0-9_.:/-]+|\n|.')
_HEADER: Final = re.compile(r"^\[\[(\w+)\]\]", re.MULTILINE)
_PAIR: Final = re.compile(r"^(\w+) = ([^\n]*)", re.MULTILINE)
KEYS: Final = (
    *("unknown_gre", "bypass_firewall", "drift", "exporter", "interface", "tunnel", "name", "mode"),
    *("local", "remote", "backing", "payload", "key", "ikey", "okey", "csum", "icsum", "ocsum"),
    *("seq", "iseq", "oseq", "ttl", "tos", "pmtudisc", "mtu", "mss_clamp", "mtu_probe", "device"),
    *(
        "addresses",
        "routes",
        "allowed_sources",
        "both_key",
        "hoplimit",
        "nexthop",
        "keyy",
        '"x y"',
        "a.b",
    ),
)
# Values that some key takes, and those beside them.
VALUES: Final = (
    *("true", "false", "0", "1", "-1", "64", "68", "88", "255", "256", "1280", "1476", "65535"),
    *("65536", "4294967295", "4294967296", "18446744073709551616", "0x40", "1.5", "nan", "[]"),
    *("{}", "{ name = 1 }", "1979-05-27", "07:32:00", '""', '"auto"', '"inherit"', '"drop"'),
    *('"pass"', '"repair"', '"report"', '"veth"', '"kernel"', '"ip"', '"ethernet"', '"native"'),
    *('"skb"', '"eth0"', '"eth1"', '"eth7"', '"fra1"', '"fra2"', '"gx-fra1"', '"lo"', '"a/b"'),
    *('"aaaaaaaaaaaaaaaa"', '"%d"', '"é"', '"192.0.2.1"', '"192.0.2.2"', '"192.0.2.3"'),
    *('"198.51.100.7"', '"0.0.0.0"', '"255.255.255.255"', '"127.0.0.1"', '"224.0.0.1"', '"::1"'),
    *('"2001:db8::1"', '"2001:db8::2"', '"::ffff:192.0.2.1"', '"fe80::1"', '"0.0.0.77"'),
    *('["10.0.0.1/30"]', '["192.0.2.0/24"]', '["192.0.2.2/32"]', '["::/0"]', '["0.0.0.0/0"]'),
    *('["fd00:10::9/64", "169.254.9.1/31"]', '["10.9.0.0/16", "10.9.0.0/16"]', '["10.0.0.1/8"]'),
    *(
        '["fe80::9/64"]',
        '["224.0.0.0/4"]',
        '["127.0.0.0/8"]',
        "[1]",
        '["10.2.0.0/24", 7]',
        '[[""]]',
    ),
    *('"127.0.0.1:9747"', '"[::1]:0"', '":1"'),
)
# Values that are of the key's own type, and still wrong, or contradict others.
OWN_VALUES: Final = {
    "name": ('"fra1"', '"eth0"', '"a/b"', '"gx-fra1"'),
    "local": ('"192.0.2.1"', '"198.51.100.7"', '"2001:db8::1"'),
    "remote": ('"192.0.2.1"', '"198.51.100.7"', '"2001:db8::2"'),
    "backing": ('"kernel"', '"veth"'),
    "payload": ('"ethernet"', '"ip"'),
    "mtu": ("68", "1280", "1476", "65535"),
    "key": ("0", "77", '"0.0.0.77"', "4294967296"),
    "addresses": ('["198.51.100.1/24"]', '["192.0.2.9/24"]', '["fd00::1/64"]', '["224.0.0.1/4"]'),
    "routes": ('["198.51.100.7/32"]', '["192.0.2.2/32"]', '["192.0.2.0/24"]', '["10.1.0.0/24"]'),
    "allowed_sources": ('["10.0.0.0/8"]', '["10.0.0.1/8"]'),
    "mtu_probe": ("true", "false"),
    "device": ('"pop0"', '"fra1"', '"eth0"', '"a/b"'),
    "nexthop": ('"fe80::7"', '"fe80::8"', '"10.0.0.2"', '"0.0.0.0"', '"127.0.0.1"'),
    "exporter": ('""', '"localhost"', '"a b:1"'),
}
PIECES: Final = (
    *("\n", "\r", "\r\n", "\t", "\0", '"', '"""', "'''", "\\", "[", "]", "[[", "]]", "{", "}", "="),
    *(",", ".", "#", "\ufeff", "\u202e", "é", "[[tunnel]]\n", "[tunnel]\n", "[[interface]]\n"),
)
ENCODINGS: Final = ("utf-16", "utf-16-le", "utf-32", "utf-8-sig")


class Mutator:
    """An endless supply of files; the same random numbers make the same ones."""

    def __init__(self, seeds: Sequence[str], random: Random) -> None:
        self._seeds, self._random = seeds, random

    def file(self) -> bytes:
        """A file with a few changes of one kind."""
        text = self._choose(self._seeds)
        kinds = (self._by_bytes, self._by_tokens, *[self._by_lines] * 4)
        kind = self._choose(kinds)
        return kind(text)

    def nearly_right(self) -> str:
        """A text with one or two changes of whole lines."""
        return self._lines(self._choose(self._seeds), 1 + self._random.getrandbits(1))

    def _choose(self, options: Sequence[T]) -> T:
        return options[int(self._random.random() * len(options))]

    def _below(self, limit: int) -> int:
        return int(self._random.random() * limit)

    # --- bytes ---

    def _by_bytes(self, text: str) -> bytes:
        if self._below(32) == 0:
            return text.encode(self._choose(ENCODINGS))
        raw = bytearray(text.encode())
        for _ in range(1 + self._below(3)):
            at, length = self._below(len(raw) or 1), 1 + self._below(40)
            match self._below(8):
                case 0 | 1 if raw:
                    raw[at] ^= 1 << self._random.getrandbits(3)
                case 2 if raw:
                    raw[at] = self._random.getrandbits(8)
                case 3:
                    raw[at:at] = self._choose(PIECES).encode()
                case 4:
                    del raw[at : at + length]
                case 5:
                    raw[at:at] = raw[at : at + length]
                case 6:
                    del raw[at:]
                case _:
                    raw[at:at] = self._random.randbytes(1 + length % 8)
        return bytes(raw)

    # --- tokens ---

    def _by_tokens(self, text: str) -> bytes:
        tokens = _TOKEN.findall(text)
        for _ in range(1 + self._below(3)):
            at = self._below(len(tokens))
            # Blanks and newlines are most tokens, and nothing is wrong with more or less of them.
            while tokens[at] == " ":
                at = self._below(len(tokens))
            match self._below(6):
                case 0 | 1:
                    tokens[at] = self._choose(VALUES if tokens[at][0] == '"' else KEYS)
                case 2:
                    tokens[at] = self._choose((*VALUES, *PIECES))
                case 3:
                    tokens.insert(at, self._choose(PIECES))
                case 4:
                    tokens[at] = ""
                case _:
                    other = self._below(len(tokens))
                    tokens[at], tokens[other] = tokens[other], tokens[at]
            tokens = [token for token in tokens if token] or ["\n"]
            if set(tokens) == {" "}:
                break
        return "".join(tokens).encode()

    # --- lines ---

    def _by_lines(self, text: str) -> bytes:
        return self._lines(text, 1 + self._below(4)).encode()

    def _lines(self, text: str, changes: int) -> str:
        kinds: tuple[Callable[[str], str], ...] = (
            *(self._another_value, self._another_value, self._own_value, self._own_value),
            *(
                self._one_more_pair,
                self._one_more_own_pair,
                self._without_line,
                self._moved_line,
                self._another_key,
            ),
            *(self._one_more_table, self._without_table, self._one_bracket, self._inline),
        )
        for _ in range(changes):
            text = self._choose(kinds)(text)
        return text

    def _replaced(
        self, text: str, pattern: re.Pattern[str], new: Callable[[re.Match[str]], str]
    ) -> str:
        found = list(pattern.finditer(text))
        if not found:
            return text
        match = self._choose(found)
        return text[: match.start()] + new(match) + text[match.end() :]

    def _another_value(self, text: str) -> str:
        return self._replaced(text, _PAIR, lambda pair: f"{pair[1]} = {self._choose(VALUES)}")

    def _own_value(self, text: str) -> str:
        def another(pair: re.Match[str]) -> str:
            return f"{pair[1]} = {self._choose(OWN_VALUES.get(pair[1], (pair[2],)))}"

        return self._replaced(text, _PAIR, another)

    def _one_more_own_pair(self, text: str) -> str:
        key = self._choose(tuple(OWN_VALUES))
        added = f"{key} = {self._choose(OWN_VALUES[key])}"
        return self._replaced(text, _PAIR, lambda pair: f"{pair[0]}\n{added}")

    def _another_key(self, text: str) -> str:
        return self._replaced(text, _PAIR, lambda pair: f"{self._choose(KEYS)} = {pair[2]}")

    def _one_more_pair(self, text: str) -> str:
        def both(pair: re.Match[str]) -> str:
            return f"{pair[0]}\n{self._choose(KEYS)} = {self._choose(VALUES)}"

        return self._replaced(text, _PAIR, both)

    def _without_line(self, text: str) -> str:
        return self._replaced(text, _PAIR, lambda _: "")

    def _moved_line(self, text: str) -> str:
        lines = text.split("\n")
        line = lines.pop(self._below(len(lines)))
        lines.insert(self._below(len(lines) + 1), line)
        return "\n".join(lines)

    def _tables(self, text: str) -> list[str]:
        return re.split(r"^(?=\[)", text, flags=re.MULTILINE)

    def _one_more_table(self, text: str) -> str:
        tables = self._tables(text)
        tables.append(self._choose(self._tables(self._choose(self._seeds))))
        return "\n".join(tables)

    def _without_table(self, text: str) -> str:
        tables = self._tables(text)
        del tables[self._below(len(tables))]
        return "".join(tables)

    def _one_bracket(self, text: str) -> str:
        return self._replaced(text, _HEADER, lambda header: f"[{header[1]}]")

    def _inline(self, text: str) -> str:
        """The last table as an inline one, at the top of the file."""
        tables = self._tables(text)
        header = _HEADER.match(tables[-1])
        pairs = ", ".join(pair[0].partition(" #")[0] for pair in _PAIR.finditer(tables[-1]))
        if header is None:
            return text
        return f"{header[1]} = [{{ {pairs} }}]\n{''.join(tables[:-1])}"
