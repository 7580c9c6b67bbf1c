"""Who may import what: the architecture's rooms have doors, and these are all of them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = sorted((ROOT / "gre_xdp").rglob("*.py"))
CLI = sorted((ROOT / "cli").rglob("*.py"))

# Module → the only files (or folders) that may import it.
DOORS = {
    "bcc": ("gre_xdp/compiler.py",),
    "pyroute2": ("gre_xdp/netlink/", "gre_xdp/lab/"),
    "click": ("cli/",),
    "rich": ("cli/",),
    "prometheus_client": ("gre_xdp/metrics.py", "gre_xdp/exporter.py"),
    "pydantic": ("gre_xdp/model.py", "gre_xdp/values.py", "gre_xdp/config.py"),
    "tomlkit": ("gre_xdp/config.py",),
    "scapy": ("gre_xdp/bench.py",),
    "gre_xdp_cli": ("cli/",),
}


def imports(path: Path) -> Iterator[str]:
    """The top-level modules that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module.split(".")[0]


@pytest.mark.parametrize("module", DOORS)
def test_a_module_is_imported_only_where_it_belongs(module: str) -> None:
    """Every other file has to ask the room that owns it."""
    strangers = [
        str(path.relative_to(ROOT))
        for path in LIBRARY + CLI
        if module in imports(path) and not str(path.relative_to(ROOT)).startswith(DOORS[module])
    ]
    assert strangers == []


@pytest.mark.parametrize("path", LIBRARY, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_library_never_prints_and_never_exits(path: Path) -> None:
    """Output and exit codes are the CLI's; a child process answers on its own descriptor."""
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert calls.isdisjoint({"print", "exit", "quit"})


def test_doors_are_really_used() -> None:
    """A door that nobody uses would guard nothing."""
    used = {module for path in LIBRARY + CLI for module in imports(path)}
    assert set(DOORS) <= used


@pytest.mark.parametrize("path", LIBRARY + CLI, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_says_its_one_job(path: Path) -> None:
    """A file's first statement is a docstring."""
    text = path.read_text()
    assert not text.strip() or ast.get_docstring(ast.parse(text))
