"""The configuration file: TOML text to ``Config`` and back, and every mistake in plain sentences.

Each mistake says where (FILE:LINE), which key of which table, its value, and what to write instead.
"""

from __future__ import annotations

import difflib
import json
import re
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
from gre_xdp.toml_lines import Locator
from gre_xdp.values import MISTAKE, Loc

MAX_BYTES: Final = 16 * 2**20
_SHOWN_LENGTH: Final = 60  # characters of a value that a message repeats
_TABLES: Final[Mapping[str, type[BaseModel]]] = {"interface": Interface, "tunnel": Tunnel}
_Table = TypeVar("_Table", bound=BaseModel)


def load(path: Path) -> Config:
    """Read a configuration file of at most ``MAX_BYTES``. Raises ``ConfigErrors``."""
    return parse(decode(read(path), str(path)), str(path))


def read(path: Path) -> bytes:
    """What a configuration file holds. Raises ``ConfigErrors`` when it cannot be one."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise _only(f"the file cannot be read: {reason}", _FILE_REMEDY, str(path)) from None
    except ValueError:  # what open() says to a path with a NUL
        raise _only("this is not a path", _FILE_REMEDY, repr(str(path))) from None
    if len(raw) > MAX_BYTES:
        problem = f"the file is longer than {MAX_BYTES // 2**20} MiB"
        raise _only(problem, "name a configuration file", str(path))
    return raw


def decode(raw: bytes, source: str) -> str:
    """The text of a file, without a byte order mark. Raises ``ConfigErrors``."""
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise _only("the file is not UTF-8 text", "save it as UTF-8", f"{source}:{line}") from None


def parse(text: str, source: str) -> Config:
    """The configuration that a TOML text means; ``source`` names the text in errors.

    Raises ``ConfigErrors`` with all mistakes, in the order of their lines.
    """
    data = to_data(text, source)
    try:
        return Config.model_validate(data, by_alias=True, by_name=False)
    except ValidationError as error:
        details = [*error.errors(include_url=False), *_hidden_conflicts(data)]
    locator = Locator(text)
    mistakes = {
        (locator.line(detail["loc"]), *_sentences(detail, data, locator)): None
        for detail in details
    }
    raise ConfigErrors(
        ConfigError(message, remedy=remedy, where=f"{source}:{line}")
        for line, message, remedy in sorted(mistakes)
    )


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


# --- text to data ---------------------------------------------------------------------------------

_FILE_REMEDY: Final = "name another file, or see to it that this one can be read"
_SYNTAX = re.compile(r"(.*) \(at (?:line (\d+), column (\d+)|end of document)\)", re.DOTALL)


def to_data(text: str, source: str) -> dict[str, Any]:
    """The values of a TOML text, right or wrong. Raises ``ConfigErrors`` when it is not TOML."""
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise _only("a value is nested too deeply", "write it flat", source) from None
    except ValueError as error:
        found = _SYNTAX.fullmatch(str(error))
    if found is None:  # Python's own limits, such as the digits of a number
        raise _only("a number or a date is out of range", "write one that is meant", source)
    prose, line, column = found.groups()
    place = f"{line}:{column}" if line else str(text.rstrip().count("\n") + 1)
    # tomllib names a key as a tuple: ('tunnel', 'name') is tunnel.name.
    prose = re.sub(r"\('(.*?)',?\)", lambda key: key[1].replace("', '", "."), prose)
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


def _array(data: Mapping[str, Any], key: str) -> list[Any]:
    tables = data.get(key, [])
    return tables if isinstance(tables, list) else [tables]


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
                problem += f" (line {locator.line(context['other'])})"
        case _:
            problem, remedy = "this value does not fit", "see the description of the key"
    return ": ".join((*_subject(loc, data), problem)), remedy


def _subject(loc: Loc, data: Mapping[str, Any]) -> Iterator[str]:
    """What a mistake is about: the table by its name, and the key with its value."""
    value: Any = data
    for step in loc:
        found = isinstance(value, dict) and step in value
        value = value[step] if found or isinstance(value, list) else None
    if len(loc) > 1:
        table = data[str(loc[0])][loc[1]]
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
