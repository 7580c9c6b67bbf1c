"""The configuration file: TOML text to ``Config`` and back, and every mistake in plain sentences.

Each mistake says where (FILE:LINE), which key of which table, its value, and what to write instead.
"""

from __future__ import annotations

import difflib
import errno
import json
import os
import re
import select
import stat
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

import tomlkit
from pydantic import BaseModel, ValidationError
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import ErrorDetails, core_schema

from gre_xdp.errors import ConfigError, ConfigErrors
from gre_xdp.model import Config, Interface, Tunnel, conflicts
from gre_xdp.toml_lines import Locator, deepest_line, long_number_line
from gre_xdp.values import MISTAKE, Loc

MAX_BYTES: Final = 16 * 2**20
MAX_MISTAKES: Final = 1000  # that are told at once; nobody mends more before looking again
MAX_VALUES: Final = 1_000_000  # keys, elements and tables that are looked at: each may be wrong
MAX_KEY_PARTS: Final = 50  # of a dotted key; reading one takes time by the square of its parts
PIPE_WAIT_S: Final = 30.0  # for whoever writes into a pipe that is named as the file
_SHOWN_LENGTH: Final = 60  # characters of a value that a message repeats
_TABLES: Final[Mapping[str, type[BaseModel]]] = {"interface": Interface, "tunnel": Tunnel}
_Table = TypeVar("_Table", bound=BaseModel)


def load(path: Path) -> Config:
    """Read a configuration file of at most ``MAX_BYTES``. Raises ``ConfigErrors``."""
    return parse(decode(read(path), shown(path)), shown(path))


def read(path: Path) -> bytes:
    """What a configuration file or a pipe holds. Raises ``ConfigErrors`` when it cannot be one."""
    try:
        raw = _read(path)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise _only(f"the file cannot be read: {reason}", _FILE_REMEDY, shown(path)) from None
    except ValueError:  # what open() says to a path with a NUL
        raise _only("this is not a path", _FILE_REMEDY, shown(path)) from None
    if len(raw) > MAX_BYTES:
        problem = f"the file is longer than {MAX_BYTES // 2**20} MiB"
        raise _only(problem, "name a configuration file", shown(path))
    return raw


def shown(path: Path) -> str:
    """The name of a file on one line: what no terminal could show is escaped."""
    text = str(path)
    return text if text.isprintable() else repr(text)


def decode(raw: bytes, source: str) -> str:
    """The text of a file, without a byte order mark. Raises ``ConfigErrors``."""
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        place = error.start
    else:
        if "\0" not in text:
            return text
        place = raw.index(b"\0")  # every other byte of UTF-16 is one
    line = raw.count(b"\n", 0, place) + 1
    raise _only("the file is not UTF-8 text", "save it as UTF-8", f"{source}:{line}")


def parse(text: str, source: str) -> Config:
    """The configuration that a TOML text means; ``source`` names the text in errors.

    Raises ``ConfigErrors`` with all mistakes (of more than ``MAX_MISTAKES`` the first ones and how
    many there are), in the order of their lines.
    """
    data = to_data(text, source)
    if _size(data) > MAX_VALUES:
        problem = f"the file holds more than {MAX_VALUES} values"
        raise _only(problem, "name a configuration file", f"{source}:1")
    try:
        return Config.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        details = [*error.errors(include_url=False), *_hidden_conflicts(data)]
    # Conflicts that were not hidden are in there twice.
    different = {(detail["loc"], detail["type"], detail["msg"]): detail for detail in details}
    locator = Locator(text)
    placed = sorted(
        (
            (locator.line(_written_loc(loc, data)), detail)
            for (loc, *_), detail in different.items()
        ),
        key=lambda found: found[0],
    )
    mistakes = {
        (line, *_sentences(detail, data, locator)): None for line, detail in placed[:MAX_MISTAKES]
    }
    told = [
        ConfigError(message, remedy=remedy, where=f"{source}:{line}")
        for line, message, remedy in sorted(mistakes)
    ]
    if rest := placed[MAX_MISTAKES:]:
        problem, remedy = f"{len(rest)} more mistakes follow", "mend those above, then look again"
        told.append(ConfigError(problem, remedy=remedy, where=f"{source}:{rest[0][0]}"))
    raise ConfigErrors(told)


def dump(config: Config) -> str:
    """A TOML text that ``parse`` reads as an equal configuration; every key is written out."""
    return tomlkit.dumps(config.model_dump(mode="json", by_alias=True, exclude_none=True))


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of the file, with the sentence that describes each key."""
    schema = Config.model_json_schema(schema_generator=_TomlSchema)
    return {
        "$schema": GenerateJsonSchema.schema_dialect,
        **schema,
        "title": "gre-xdp configuration",
    }


# --- file to bytes --------------------------------------------------------------------------------


def _read(path: Path) -> bytes:
    """At most one byte more than ``MAX_BYTES``. Raises ``OSError``, ``ValueError``."""
    # Looked at before it is opened: opening alone can have an effect, as that of a watchdog.
    _require_file_or_pipe(path.stat())
    # Opening a pipe would wait without end for somebody to write into it.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(descriptor, "rb", buffering=0) as file:
        before = os.fstat(descriptor)
        _require_file_or_pipe(before)
        raw = bytearray()
        while len(raw) <= MAX_BYTES:
            if stat.S_ISFIFO(before.st_mode):
                _await(descriptor)
            block = file.read(MAX_BYTES + 1 - len(raw))
            if block == b"":
                break
            raw += block or b""  # None: somebody else has taken what the pipe held
        after = os.fstat(descriptor)
    # Half of a file can be a valid one, with fewer tunnels.
    is_same = (before.st_size, before.st_mtime_ns) == (after.st_size, after.st_mtime_ns)
    if stat.S_ISREG(before.st_mode) and not is_same:
        raise OSError(errno.EAGAIN, "somebody was writing it meanwhile")
    return bytes(raw)


def _require_file_or_pipe(state: os.stat_result) -> None:
    if stat.S_ISDIR(state.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not (stat.S_ISREG(state.st_mode) or stat.S_ISFIFO(state.st_mode)):
        raise OSError(errno.EINVAL, "it is neither a file nor a pipe")


def _await(descriptor: int) -> None:
    """Wait until a pipe has something to read, or its end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    if not poll.poll(PIPE_WAIT_S * 1000):
        raise TimeoutError(errno.ETIMEDOUT, f"nobody wrote into this pipe for {PIPE_WAIT_S:g} s")


# --- text to data ---------------------------------------------------------------------------------

_FILE_REMEDY: Final = "name another file, or see to it that this one can be read"
_SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)
_PART: Final = r"\.[ \t]*(?:[A-Za-z0-9_-]++|\"[^\"\n]*+\"|'[^'\n]*+')[ \t]*+"
_LONG_KEY: Final = re.compile(f"(?:{_PART}){{{MAX_KEY_PARTS}}}")
_PROSE_LENGTH: Final = 500  # characters of tomllib's that are worth rewording


def to_data(text: str, source: str) -> dict[str, Any]:
    """The values of a TOML text, right or wrong. Raises ``ConfigErrors`` when it is not TOML."""
    if long := _LONG_KEY.search(text):
        number = text.count("\n", 0, long.start()) + 1
        problem = f"a key has more than {MAX_KEY_PARTS} parts"
        raise _only(problem, "write a key of one part", f"{source}:{number}")
    try:
        return tomllib.loads(text)
    except RecursionError:
        where = f"{source}:{deepest_line(text)}"
        raise _only("a value is nested too deeply", "write it flat", where) from None
    except ValueError as error:
        found = _SYNTAX.fullmatch(str(error))
    if found is None:  # Python's own limit for the digits of a number
        where = f"{source}:{long_number_line(text, sys.get_int_max_str_digits())}"
        raise _only("a number or a date is out of range", "write one that is meant", where)
    prose, line, column = found.groups()
    place = f"{line}:{column}" if line else str(text.rstrip().count("\n") + 1)
    # tomllib names a key as a tuple: ('tunnel', 'name') is tunnel.name.
    prose = re.sub(r"\('(.*?)',?\)", lambda key: key[1].replace("', '", "."), prose[:_PROSE_LENGTH])
    problem = f"this is not TOML: {prose[0].lower()}{_shortened(prose[1:])}"
    remedy = "text stands in quotes, a key only once in its table, and tables begin with [[tunnel]]"
    raise _only(problem, f"{remedy} or [[interface]]", f"{source}:{place}")


def _only(problem: str, remedy: str, where: str) -> ConfigErrors:
    return ConfigErrors([ConfigError(problem, remedy=remedy, where=where)])


# --- mistakes to sentences ------------------------------------------------------------------------

# A tunnel is no longer the same one, for comparing it with others, without one of these.
_IDENTITY: Final = frozenset(("name", "local", "remote", "key", "ikey"))


def _hidden_conflicts(data: Mapping[str, Any]) -> Iterable[ErrorDetails]:
    """The conflicts that ``Config`` does not come to when anything else is wrong."""
    interfaces = [_usable(Interface, table) for table in _array(data, "interface")]
    tunnels = [_usable(Tunnel, table) for table in _array(data, "tunnel")]
    found = conflicts(interfaces, tunnels)
    return ValidationError.from_exception_data("Config", found).errors(include_url=False)


def _size(data: Mapping[str, Any]) -> int:
    """How many keys, elements and tables are validated."""
    tables = [table for key in _TABLES for table in _array(data, key)]
    pairs = [value for table in tables if isinstance(table, dict) for value in table.values()]
    elements = sum(len(value) for value in pairs if isinstance(value, list))
    return len(data) + len(tables) + len(pairs) + elements


def _array(data: Mapping[str, Any], key: str) -> list[Any]:
    tables = data.get(key, [])
    return tables if isinstance(tables, list) else [tables]


def _written_loc(loc: Loc, data: Mapping[str, Any]) -> Loc:
    """The path as the file has it: a [tunnel], with too few brackets, is in no array."""
    is_array = len(loc) < 2 or isinstance(data[str(loc[0])], list)
    return loc if is_array else (loc[0], *loc[2:])


def _usable(model: type[_Table], table: object) -> _Table | None:
    """What the table would be without the keys that are wrong, if it can be told."""
    if not isinstance(table, dict):
        return None
    try:
        return model.model_validate(table)
    except ValidationError as error:
        wrong = {detail["loc"][0] for detail in error.errors(include_url=False)}
    if wrong & _IDENTITY:
        return None
    try:
        return model.model_validate({key: table[key] for key in table.keys() - wrong})
    except ValidationError:
        return None


def _sentences(detail: ErrorDetails, data: Mapping[str, Any], locator: Locator) -> tuple[str, str]:
    """The message and the remedy for one of pydantic's errors."""
    loc, context = detail["loc"], detail.get("ctx", {})
    key = _show_key(loc[-1])
    match detail["type"]:
        case "missing":
            return f"{': '.join(_subject(loc, data))} is missing", f"add {key} = …"
        case "extra_forbidden":
            problem, remedy = "there is no such key here", _remedy_for_unknown(loc)
        case "bool_type":
            problem, remedy = "this is neither true nor false", "write true or false, no quotes"
        case "literal_error":
            words = str(context["expected"]).replace("'", '"')
            problem, remedy = "this is none of its values", f"write {words}"
        case "tuple_type" if loc[-1] in _TABLES:
            problem, remedy = "this is not an array of tables", f"write [[{key}]], two brackets"
        case "tuple_type":
            problem, remedy = "this is not a list", f'write {key} = ["…", "…"]'
        case "model_type":
            problem, remedy = "this is not a table", f"write [[{loc[0]}]] and its keys below it"
        case str(kind) if kind == MISTAKE:
            problem, remedy = context["problem"], context["remedy"]
            if context["other"]:
                problem += f" (line {locator.line(_written_loc(context['other'], data))})"
        case _:
            problem, remedy = "this value does not fit", "see the description of the key"
    return ": ".join((*_subject(loc, data), problem)), remedy


def _subject(loc: Loc, data: Mapping[str, Any]) -> Iterator[str]:
    """What a mistake is about: the table by its name, and the key with its value."""
    value: Any = data
    for step in _written_loc(loc, data):
        found = isinstance(value, dict) and step in value
        value = value[step] if found or isinstance(value, list) else None
    if len(loc) > 1:
        table = _array(data, str(loc[0]))[int(loc[1])]
        name = table.get("name") if isinstance(table, dict) else None
        yield f"{loc[0]} {_show(name) if isinstance(name, str) else f'number {int(loc[1]) + 1}'}"
    if len(loc) != 2:
        key = next(_show_key(step) for step in reversed(loc) if isinstance(step, str))
        is_shown = value is not None and not isinstance(value, dict | list)
        yield f"{key} = {_show(value)}" if is_shown else key


def _remedy_for_unknown(loc: Loc) -> str:
    key = str(loc[-1])
    here = _TABLES[str(loc[0])] if len(loc) > 1 else Config
    for table, model in _TABLES.items():
        if key in _known(model) and model is not here:
            return f"move it below a [[{table}]]"
    if key in _known(Config):
        return "move it to the top of the file, above the first [[interface]] or [[tunnel]]"
    near = difflib.get_close_matches(_shortened(key), _known(here), n=1)
    return f"write {near[0]}" if near else f"remove it; the keys here are {', '.join(_known(here))}"


def _known(model: type[BaseModel]) -> list[str]:
    """The keys of a table as the file spells them."""
    fields = model.model_fields.items()
    return [str(field.validation_alias or field.alias or name) for name, field in fields]


def _show_key(key: int | str) -> str:
    text = str(key)
    return _shortened(text) if re.fullmatch("[A-Za-z0-9_-]+", text) else _show(text)


def _show(value: object) -> str:
    """A value as TOML would write it, in ASCII and on one line, whatever it holds."""
    match value:
        case str():
            return (
                json.dumps(value)
                if len(value) <= _SHOWN_LENGTH
                else _shortened(json.dumps(value[:99]))
            )
        case bool():
            return str(value).lower()
        case int() if abs(value) >= 2**64:
            return _shortened(hex(value))  # decimal digits are limited by Python, these are not
        case _:
            return str(value)


def _shortened(text: str) -> str:
    return text if len(text) <= _SHOWN_LENGTH else f"{text[:_SHOWN_LENGTH]}…"


class _TomlSchema(GenerateJsonSchema):
    """Without what TOML cannot say (null) and what says nothing (titles made of the key)."""

    def field_title_should_be_set(self, schema: Any) -> bool:  # noqa: ARG002 - pydantic asks so
        return False

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        if schema.get("default") is None:
            return self.generate_inner(schema["schema"])
        return super().default_schema(schema)
