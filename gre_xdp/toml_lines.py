"""Where in a TOML text things stand: tomllib gives the values but not their places.

Only what moves lines and keys is told apart: strings, comments, brackets, table headers, and
``key =``. What tomllib has not accepted is read in linear time, too, and means what it may.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, NamedTuple

from gre_xdp.values import Loc

_TOKEN: Final = re.compile(
    r"""
      (?P<blank>   [ \t\r]++ | \#[^\n]*+ )
    | (?P<newline> \n )
    | (?P<string>  \"{3} (?: \\. | [^\\] )*? (?: \"{3,5} | \Z ) | '{3} .*? (?: '{3,5} | \Z )
                 | " (?: \\. | [^"\\\n] )*+ "?+ | ' [^'\n]*+ '?+ )
    | (?P<word>    [A-Za-z0-9_-]++ )
    | (?P<mark>    . )
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENING, _CLOSING = ("[", "{"), ("]", "}")


class Token(NamedTuple):
    """A piece of a header or a pair; ``line`` is counted from 1, ``start`` is its first offset."""

    kind: str
    text: str
    line: int
    start: int

    @property
    def end(self) -> int:
        """The offset behind it."""
        return self.start + len(self.text)


class Locator:
    """The line, counted from 1, of every table, key and array element of one TOML text."""

    def __init__(self, text: str) -> None:
        self._lines: dict[Loc, int] = {(): 1}
        self._last: dict[Loc, int] = {}  # index of the last table of each array of tables
        table: Loc = ()
        for statement in statements(text):
            if statement[0].text == "[":
                table = self._open_table(statement)
            else:
                self._note_pair(table, statement)

    def line(self, path: Loc) -> int:
        """The line of ``path``, else of the nearest thing that would hold it, else 1.

        ``path`` is one of the model's: ``("tunnel", 1, "remote")`` is the second tunnel's.
        """
        while path not in self._lines:
            path = path[:-1]
        return self._lines[path]

    def _open_table(self, header: Sequence[Token]) -> Loc:
        is_array = header[1].text == "["
        keys = key_path(header[1 + is_array :])
        for depth in range(1, len(keys)):  # [a.b] makes a, too
            self._lines.setdefault(self._resolve(keys[:depth]), header[0].line)
        path = (*self._resolve(keys[:-1]), keys[-1])
        self._lines.setdefault(path, header[0].line)
        if is_array:
            self._last[path] = self._last.get(path, -1) + 1
        table = self._resolve(keys)
        self._lines.setdefault(table, header[0].line)
        return table

    def _resolve(self, keys: Iterable[str]) -> Loc:
        """The path that the keys of a header mean: an array of tables means its last table."""
        path: Loc = ()
        for key in keys:
            path = (*path, key)
            if path in self._last:
                path = (*path, self._last[path])
        return path

    def _note_pair(self, path: Loc, pair: Sequence[Token]) -> None:
        path = self._note_key(path, pair)
        value = pair[[token.text for token in pair].index("=") + 1 :]
        if value[0].text in _OPENING:
            self._note_inside(path, value)

    def _note_key(self, path: Loc, pair: Sequence[Token]) -> Loc:
        for key in key_path(pair):
            path = (*path, key)
            self._lines.setdefault(path, pair[0].line)
        return path

    def _note_inside(self, path: Loc, value: Iterable[Token]) -> None:
        """Note the elements of an array, the keys of an inline table, and what is inside these."""
        holders: list[_Holder] = []
        key: list[Token] = []
        is_first = False  # of an element or a pair
        for token in value:
            if token.text in _CLOSING:
                holders.pop()
                is_first = False
                continue
            if is_first and holders[-1].is_array:
                path = (*holders[-1].path, holders[-1].index)
                self._lines[path] = token.line
                is_first = False
            elif is_first:
                key.append(token)
                if token.text == "=":
                    path = self._note_key(holders[-1].path, key)
                    is_first = False
                continue
            if token.text in _OPENING:
                holders.append(_Holder(path, token.text == "["))
                key, is_first = [], True
            elif token.text == ",":
                holders[-1].index += 1
                key, is_first = [], True


@dataclass(slots=True)
class _Holder:
    """An open bracket: what it is the value of, and how many elements have ended."""

    path: Loc
    is_array: bool
    index: int = 0


def deepest_line(text: str) -> int:
    """The line of the bracket that is inside of the most others; the text need not be TOML."""
    depth = deepest = 0
    line = found = 1
    for match in _TOKEN.finditer(text):
        depth = max(0, depth + (match[0] in _OPENING) - (match[0] in _CLOSING))
        if depth > deepest:
            deepest, found = depth, line
        line += match[0].count("\n")
    return found


def long_number_line(text: str, digits: int) -> int:
    """The line of the first number with more digits; the text need not be TOML."""
    for match in _TOKEN.finditer(text):
        if match.lastgroup == "word" and len(match[0]) > digits and match[0][0].isdecimal():
            return text.count("\n", 0, match.start()) + 1
    return 1


def statements(text: str) -> Iterator[list[Token]]:
    """The tokens of each header and each pair, which end at a newline outside all brackets."""
    statement: list[Token] = []
    line = 1
    depth = 0
    for match in _TOKEN.finditer(text):
        kind, token = str(match.lastgroup), match[0]
        if kind == "newline" and depth == 0 and statement:
            yield statement
            statement = []
        elif kind not in ("newline", "blank"):
            depth += (token in _OPENING) - (token in _CLOSING)
            statement.append(Token(kind, token, line, match.start()))
        line += token.count("\n")
    if statement:
        yield statement


def key_path(tokens: Iterable[Token]) -> list[str]:
    """The parts of the dotted key that the tokens begin with."""
    parts = takewhile(lambda token: token.text not in ("=", "]"), tokens)
    return [
        tomllib.loads(f"key = {token.text}")["key"] if token.kind == "string" else token.text
        for token in parts
        if token.kind != "mark"
    ]
