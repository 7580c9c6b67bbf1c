"""Edits of one tunnel in the text of a configuration file: text in, text out.

The text is not written anew: only the lines and values that an edit is about are, so comments,
order and formatting of everything else stay as they are, to the byte. Whether the result is a
configuration is for ``config.parse`` to say.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_interface
from itertools import takewhile
from typing import Any, Final, NamedTuple, TypeAlias

from gre_xdp import config
from gre_xdp.errors import ConfigError, ConfigErrors
from gre_xdp.model import Tunnel
from gre_xdp.toml_lines import Token, key_path, statements

Value: TypeAlias = str | int | bool
_ORDER: Final = tuple(item.alias or name for name, item in Tunnel.model_fields.items())
# A shorthand sets both directions and excludes its two keys: key stands for ikey and okey.
_SHORTHANDS: Final = ("key", "csum", "seq")


@dataclass(frozen=True, slots=True)
class Change:
    """What a tunnel is to have, by the keys of ``[[tunnel]]``.

    ``values``: a key and its value; None: not to have it. ``added`` and ``removed``: a key that
    holds a list, and an element.
    """

    values: Mapping[str, Value | None] = field(default_factory=dict)
    added: Sequence[tuple[str, str]] = ()
    removed: Sequence[tuple[str, str]] = ()


def names(text: str, source: str) -> list[str]:
    """The names of all tunnels, in their order; ``source`` names the text in errors.

    Raises ``ConfigError`` or ``ConfigErrors`` when the text is too wrong to tell.
    """
    return [str(name) for name in _Document(text, source).names if name is not None]


def add(text: str, name: str, wanted: Change, source: str) -> str:
    """The text with one more tunnel, behind the last one.

    Raises ``ConfigError`` when there is a tunnel of that name, else as ``names`` does.
    """
    document = _Document(_without_empty_array(text), source)
    text = document.text
    if name in document.names:
        raise ConfigError(
            f'there is a tunnel "{name}" already',
            remedy=f"gre-xdp tunnel set {name} changes it",
            where=f"{source}:{document.find(name).line}",
        )
    newline = _newline(text)
    last = document.tunnels[-1] if document.tunnels else None
    table = _empty_table(text[last.start : last.end] if last else "", name, newline)
    table = _changed(table, wanted, source)
    place = document.place_behind(last)
    if place == 0:
        return table + (newline + text if text else "")
    if not text[:place].endswith("\n"):
        # As the file ends: without a newline.
        return f"{text}{newline}{newline}{table.removesuffix(newline)}"
    return f"{text[:place]}{newline}{table}{text[place:]}"


def change(text: str, name: str, wanted: Change, source: str) -> str:
    """The text with a tunnel changed. What it has already is left as it is written.

    Raises ``ConfigError`` when there is no such tunnel or element, else as ``names`` does.
    """
    found = _Document(text, source).find(name)
    table = _changed(text[found.start : found.end], wanted, f"{source}:{found.line}")
    return text[: found.start] + table + text[found.end :]


def remove(text: str, name: str, source: str) -> str:
    """The text without a tunnel, one blank line above it, and the comments that are its own.

    Its own are those directly above and directly below. Those that may belong to something else
    stay: what follows another table's lines directly, precedes another's header directly, or
    begins the file. Raises ``ConfigError`` when there is no such tunnel, else as ``names`` does.
    """
    document = _Document(text, source)
    found = document.find(name)
    floor = max(section.end for section in document.sections if section.end <= found.start)
    start, end = _above(text, found.start, floor, "#"), _comments_below(text, found.end)
    if start == floor:
        start = found.start
    if start == 0:
        return text[_line_end(text, end) if _is_line(text, end, "") else end :]
    start = _above(text, start, floor, "", most=1)
    if end == len(text) and not text.endswith("\n"):
        # The line before becomes the last one, and ends as the file did.
        return text[:start].removesuffix("\n").removesuffix("\r")
    return text[:start] + text[end:]


# --- tables in the file ---------------------------------------------------------------------------


class _Section(NamedTuple):
    """Whole lines from a header to the last pair below it; the first section has no header."""

    start: int
    end: int
    line: int
    is_tunnel: bool


class _Document:
    """A text, its values, and where its tables stand.

    Raises ``ConfigErrors`` for what is not TOML, ``ConfigError`` for tunnels without headers.
    """

    def __init__(self, text: str, source: str) -> None:
        self.text = text
        self.source = source
        tables = config.to_data(text, source).get("tunnel", [])
        self.sections = [_Section(0, 0, 1, False)]
        for statement in statements(text):
            self._note(statement)
        self.tunnels = [section for section in self.sections if section.is_tunnel]
        if not isinstance(tables, list) or len(tables) != len(self.tunnels):
            raise ConfigError(
                "the tunnels of this file do not stand below headers of their own",
                remedy="write each as a table that begins with [[tunnel]]",
                where=source,
            )
        self.names = [table.get("name") for table in tables]

    def _note(self, statement: Sequence[Token]) -> None:
        first, end = statement[0], _line_end(self.text, statement[-1].end)
        if first.text == "[":
            is_tunnel = statement[1].text == "[" and key_path(statement[2:]) == ["tunnel"]
            start = _line_start(self.text, first.start)
            self.sections.append(_Section(start, end, first.line, is_tunnel))
        else:
            self.sections[-1] = self.sections[-1]._replace(end=end)

    def find(self, name: str) -> _Section:
        """The tunnel of this name; raises ``ConfigError`` when it is not one."""
        rows = zip(self.tunnels, self.names, strict=True)
        found = [section for section, other in rows if other == name]
        if not found:
            known = [str(other) for other in self.names]
            near = difflib.get_close_matches(name, known, n=1) or known
            raise ConfigError(
                f'there is no tunnel "{name}"',
                remedy=f"the file has {', '.join(near)}" if near else f"add it: tunnel add {name}",
                where=self.source,
            )
        if len(found) > 1:
            raise ConfigError(
                f'there are {len(found)} tunnels "{name}"',
                remedy="give each a name of its own",
                where=f"{self.source}:{found[1].line}",
            )
        return found[0]

    def place_behind(self, last: _Section | None) -> int:
        """Where a tunnel is added: behind the last one, and the comments below that."""
        after = self.sections[self.sections.index(last) + 1 :] if last else []
        floor = (last or self.sections[-1]).end
        # Comments directly above the next header belong to that.
        end = _above(self.text, after[0].start, floor, "#") if after else len(self.text)
        return _above(self.text, end, floor, "")


def _without_empty_array(text: str) -> str:
    """Without ``tunnel = []``, which no [[tunnel]] may follow."""
    if not re.search(r"tunnel[\"' \t]*=[ \t]*\[", text):
        return text
    for pair in statements(text):
        if pair[0].text == "[":
            break
        if key_path(pair) == ["tunnel"] and [token.text for token in _value(pair)] == ["[", "]"]:
            return text[: _line_start(text, pair[0].start)] + text[_line_end(text, pair[-1].end) :]
    return text


def _empty_table(model: str, name: str, newline: str) -> str:
    """A tunnel of this name and nothing else, indented like another one."""
    indents = [_indent(model, token.start) for token, *_ in statements(model)]
    of_header, of_pair = indents[0] if indents else "", indents[1] if len(indents) > 1 else ""
    return f"{of_header}[[tunnel]]{newline}{of_pair}name = {_written(name)}{newline}"


def _above(text: str, place: int, floor: int, kind: str, *, most: int | None = None) -> int:
    """The start of the lines of one kind directly above ``place``, but not above ``floor``."""
    while place > floor and most != 0:
        start = max(_line_start(text, place - 1), floor)
        if not _is_line(text, start, kind):
            break
        place = start
        most = None if most is None else most - 1
    return place


def _comments_below(text: str, place: int) -> int:
    """The end of the comments that follow directly, if nothing else follows them directly."""
    end = place
    while _is_line(text, end, "#"):
        end = _line_end(text, end)
    return end if end == len(text) or _is_line(text, end, "") else place


def _is_line(text: str, start: int, kind: str) -> bool:
    """Is there such a line: blank (``kind`` is empty) or a comment (``#``)?"""
    return start < len(text) and text[start : _line_end(text, start)].strip()[:1] == kind


def _line_start(text: str, place: int) -> int:
    return text.rfind("\n", 0, place) + 1


def _line_end(text: str, place: int) -> int:
    """The offset behind the newline."""
    return text.find("\n", place) + 1 or len(text)


def _indent(text: str, place: int) -> str:
    return text[_line_start(text, place) : place]


def _newline(text: str) -> str:
    return "\r\n" if "\r\n" in text[: _line_end(text, 0)] else "\n"


# --- one table ------------------------------------------------------------------------------------


def _changed(table: str, wanted: Change, where: str) -> str:
    """A table's text after a change. Raises ``ConfigError``."""
    before = _data(table)
    for key, value in wanted.values.items():
        word = key if key in _SHORTHANDS else key[1:]
        if word not in _SHORTHANDS:
            table = _put(table, key, value)
        elif word == key:
            table = _put_both(table, word, value)
        else:
            table = _put_direction(table, key[0], word, value)
    for key, element in wanted.removed:
        table = _remove_element(table, key, element, where)
    for key, element in wanted.added:
        table = _add_element(table, key, element)
    touched = {*wanted.values, *(key for key, _ in (*wanted.added, *wanted.removed))}
    touched |= {way + word for word in _SHORTHANDS for way in ("", "i", "o")}
    try:
        after = _data(table)
    except ConfigErrors:
        after = {}
    if any(before.get(key) != after.get(key) for key in {*before, *after} - touched):
        raise ConfigError(
            "this table is written in a way that cannot be edited safely",
            remedy="write one key = value a line, or edit the file by hand",
            where=where,
        )
    return table


def _data(table: str) -> dict[str, Any]:
    found: dict[str, Any] = config.to_data(table, "table")["tunnel"][0]
    return found


def _put(table: str, key: str, value: Value | None) -> str:
    """With this value; without the key if it is None."""
    pair = _pair(table, key)
    if pair is None:
        return table if value is None else _insert(table, key, _written(value))
    if value is None:
        return _without_lines(table, _line_start(table, pair[0].start), pair[-1].end)
    old = _data(table)[key]
    if type(old) is type(value) and old == value:
        return table
    return table[: _value(pair)[0].start] + _written(value) + table[pair[-1].end :]


def _put_both(table: str, word: str, value: Value | None) -> str:
    """A value for both directions, in the place of what stood for one of them."""
    pairs = [(key, _pair(table, key)) for key in (word, f"i{word}", f"o{word}")]
    written = [key for _, key in sorted((pair[0].start, key) for key, pair in pairs if pair)]
    if value is not None and written:
        table = _rename(table, written.pop(0), word)
    for key in written:
        table = _put(table, key, None)
    return table if value is None else _put(table, word, value)


def _put_direction(table: str, way: str, word: str, value: Value | None) -> str:
    """A value for one direction; the other keeps the one that both had."""
    both = _data(table).get(word)
    if both is not None:
        # Not to have a checksum, say, is false.
        if both is (value or False) or (both == value and type(both) is type(value)):
            return table
        table = _rename(table, word, f"{'io'.replace(way, '')}{word}")
    return _put(table, way + word, value)


def _rename(table: str, key: str, new: str) -> str:
    pair = _pair(table, key)
    assert pair is not None
    return table[: pair[0].start] + new + table[pair[0].end :]


def _insert(table: str, key: str, written: str) -> str:
    """With a new pair behind the nearest of those that documents name before it."""
    before = _ORDER[: _ORDER.index(key)]
    pairs = [pair for name in before if (pair := _pair(table, name))]
    header, *others = statements(table)
    anchor = pairs[-1] if pairs else header
    indent = _indent(table, (pairs[-1:] or others[:1] or [header])[0][0].start)
    place, newline = _line_end(table, anchor[-1].end), _newline(table)
    line = f"{indent}{key} = {written}"
    if not table[:place].endswith("\n"):
        return f"{table}{newline}{line}"
    return f"{table[:place]}{line}{newline}{table[place:]}"


def _pair(table: str, key: str) -> list[Token] | None:
    """The tokens of ``key = value``."""
    for statement in statements(table):
        if statement[0].text != "[" and key_path(statement) == [key]:
            return statement
    return None


def _value(pair: Sequence[Token]) -> Sequence[Token]:
    return pair[[token.text for token in pair].index("=") + 1 :]


def _written(value: Value) -> str:
    """As TOML writes it."""
    match value:
        case bool():
            return str(value).lower()
        case int():
            return str(value)
    # What JSON escapes TOML escapes alike, and DEL besides.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _without_lines(table: str, start: int, end: int) -> str:
    """Without all lines from one offset to another."""
    end = _line_end(table, end)
    if end == len(table) and not table.endswith("\n"):
        return table[:start].removesuffix("\n").removesuffix("\r")
    return table[:start] + table[end:]


# --- lists ----------------------------------------------------------------------------------------


class _Element(NamedTuple):
    """Where an element stands, and the end of its comma, if it has one."""

    start: int
    end: int
    comma: int | None


def _add_element(table: str, key: str, element: str) -> str:
    """With one more element at the list's end, on a line of its own if the last one has that."""
    pair = _pair(table, key)
    if pair is None:
        return _insert(table, key, f"[{_written(element)}]")
    listed = _data(table)[key]
    if not isinstance(listed, list) or any(_is_same(old, element) for old in listed):
        return table
    found = _elements(_value(pair))
    if not found:
        place = _value(pair)[0].end
        return table[:place] + _written(element) + table[place:]
    last = found[-1]
    end = last.comma or last.end
    line = table[end : _line_end(table, end)]
    is_at_line_start = not _indent(table, last.start).strip()
    if not (is_at_line_start and re.fullmatch(r"[ \t]*(#[^\n]*)?\r?\n", line)):
        comma = "" if last.comma else ", "
        new = f"{' ' if last.comma else ''}{_written(element)}{',' if last.comma else ''}"
        return table[:end] + comma + new + table[end:]
    new = f"{_indent(table, last.start)}{_written(element)}{',' if last.comma else ''}"
    place = _line_end(table, end)
    comma = "" if last.comma else ","
    return f"{table[:end]}{comma}{table[end:place]}{new}{_newline(table)}{table[place:]}"


def _remove_element(table: str, key: str, element: str, where: str) -> str:
    """Without an element, the comma that it needed, and its line if it had one of its own."""
    pair, listed = _pair(table, key), _data(table).get(key, [])
    if not isinstance(listed, list):
        return table
    numbers = [number for number, old in enumerate(listed) if _is_same(old, element)]
    if pair is None or not numbers:
        raise ConfigError(
            f'tunnel "{_data(table).get("name")}": {element} is none of its {key}',
            remedy=f"they are {', '.join(map(str, listed))}" if listed else "it has none",
            where=where,
        )
    found = _elements(_value(pair))
    one = found[numbers[0]]
    end = one.comma or one.end
    line_start, line_end = _line_start(table, one.start), _line_end(table, end)
    if not table[line_start : one.start].strip() and re.fullmatch(
        r"[ \t\r]*(#[^\n]*)?\n", table[end:line_end]
    ):
        return table[:line_start] + table[line_end:]
    after, before = found[numbers[0] + 1 :], found[: numbers[0]]
    if after and "\n" not in table[one.start : after[0].start]:
        return table[: one.start] + table[after[0].start :]
    if before and "\n" not in table[before[-1].end : one.start]:
        return table[: before[-1].end] + table[one.end :]
    return table[: one.start] + table[end:]


def _elements(value: Sequence[Token]) -> list[_Element]:
    """The elements of an array, whose tokens these are."""
    found: list[_Element] = []
    inner = value[1:-1]
    while inner:
        own = list(takewhile(lambda token: token.text != ",", inner))
        comma = inner[len(own)] if len(own) < len(inner) else None
        found.append(_Element(own[0].start, own[-1].end, comma.end if comma else None))
        inner = inner[len(own) + 1 :]
    return found


def _is_same(old: object, element: str) -> bool:
    """Are both the same address or prefix, however they are written?"""
    try:
        return ip_interface(str(old)) == ip_interface(element)
    except ValueError:
        return old == element
