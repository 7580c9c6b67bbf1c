"""Writes the documents that are made from code: run ``python docs/generate.py``.

tests/contract/test_docs.py proves that they are what this would write.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gre_xdp import reasons
from gre_xdp.config import json_schema

DOCS = Path(__file__).resolve().parent

_INTRODUCTION = """\
# Configuration

One TOML file, `/etc/gre-xdp/config.toml` unless `--config` says otherwise. Unknown keys are errors.
`gre-xdp check` finds all mistakes at once. Editors can use
[config.schema.json](config.schema.json); [contrib/](../contrib) has examples. This file is made
from the model by `python docs/generate.py`. `gre-xdp tunnel` edits the file in the words of
`ip tunnel`.
"""


def _default(rules: dict[str, Any]) -> str:
    if "default" not in rules:
        return ""
    return f"`{json.dumps(rules['default'])}`"


def _table(schema: dict[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    yield "| key | default | meaning |"
    yield "|---|---|---|"
    for key, rules in schema["properties"].items():
        default = "required" if key in required else _default(rules) or "none"
        if rules.get("type") == "array" and "$ref" in rules.get("items", {}):
            continue
        words = ", ".join(f"`{word}`" for word in rules.get("enum", ()))
        meaning = rules["description"] + (f" One of {words}." if words else "")
        yield f"| `{key}` | {default} | {meaning} |"


def configuration() -> str:
    """docs/configuration.md."""
    schema = json_schema()
    lines = [_INTRODUCTION, "## Top level", "", *_table(schema)]
    for title, name in (("[[interface]]", "Interface"), ("[[tunnel]]", "Tunnel")):
        definition = schema["$defs"][name]
        lines += ["", f"## {title}", "", definition["description"], "", *_table(definition)]
    return "\n".join(lines) + "\n"


def documents() -> dict[Path, str]:
    """All generated documents and their text."""
    return {
        DOCS / "configuration.md": configuration(),
        DOCS / "config.schema.json": json.dumps(json_schema(), indent=2) + "\n",
        DOCS / "reasons.md": reasons.to_markdown(),
    }


if __name__ == "__main__":
    for path, text in documents().items():
        path.write_text(text)
