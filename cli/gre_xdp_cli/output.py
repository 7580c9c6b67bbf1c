"""Everything that the command says: results to stdout, errors and remarks to stderr."""

# ruff: noqa: PLC0415 - rich takes longer to import than most commands take to run

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from gre_xdp.errors import ConfigErrors, GreXdpError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.progress import TaskID

    from gre_xdp.plan import Step

# Wider than any line: what is piped is never wrapped.
_PIPE_WIDTH = 10_000
_STEP_MARKS = {"create": ("+", "green"), "update": ("~", "yellow"), "delete": ("-", "red")}
_RIGHT = ">"
# Fewer are done before anybody wonders.
_LONG_STEPS = 200


def plural(count: int, noun: str) -> str:
    """``1 change``, ``2 changes``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --- results: stdout ------------------------------------------------------------------------------


def say(text: str) -> None:
    """A line for people."""
    click.echo(text)


def print_json(value: object) -> None:
    """The result for programs; nothing else goes to stdout then."""
    click.echo(json.dumps(value, indent=2))


def print_steps(steps: Sequence[Step]) -> None:
    """The steps of a plan, one a line: ``+`` create, ``~`` update, ``-`` delete."""
    from rich.text import Text

    width = max((len(step.object) for step in steps), default=0)
    lines = Text("\n").join(
        Text(f"{mark} {step.object:<{width}}  {step.detail}", style=colour)
        for step in steps
        for mark, colour in [_STEP_MARKS[step.action]]
    )
    _print(lines, soft_wrap=True)


def print_table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    styles: Mapping[str, str] | None = None,
    is_prose: bool = False,
) -> None:
    """A table; a column whose title begins with ``>`` is set flush right. None is shown as ``-``.

    ``styles`` maps the words of cells to their colours. The last column of a table that
    ``is_prose`` is folded to fit the terminal; all else stays on one line.
    """
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for number, title in enumerate(columns, start=1):
        table.add_column(
            title.removeprefix(_RIGHT),
            justify="right" if title.startswith(_RIGHT) else "left",
            no_wrap=not (is_prose and number == len(columns)),
        )
    for row in rows:
        words = ["-" if cell is None else str(cell) for cell in row]
        table.add_row(*(Text(word, style=(styles or {}).get(word, "")) for word in words))
    _print(table, soft_wrap=not is_prose)


def print_blocks(
    blocks: Mapping[str, Sequence[tuple[str, Sequence[str]]]], *, styles: Mapping[str, str]
) -> None:
    """Rows under headings: each a word, and lines that are folded to fit the terminal.

    ``styles`` maps the words to their colours.
    """
    from rich.table import Table
    from rich.text import Text

    for title, rows in blocks.items():
        table = Table(box=None, padding=(0, 0, 0, 2), show_header=False)
        table.add_column(no_wrap=True, min_width=max(map(len, styles)))
        table.add_column()
        for word, lines in rows:
            for number, line in enumerate(lines):
                first = Text("" if number else word, style=styles.get(word, ""))
                table.add_row(first, Text(line))
        _print(Text(title, style="bold"), soft_wrap=True)
        _print(table, soft_wrap=False)


def _print(renderable: RenderableType, *, soft_wrap: bool) -> None:
    """``soft_wrap``: lines longer than the terminal are broken by it, not cut by us."""
    from rich.console import Console

    if sys.stdout.isatty():
        console = Console(file=sys.stdout, highlight=False)
        if soft_wrap:
            whole = console.options.update(max_width=_PIPE_WIDTH)
            console.width = max(console.width, console.measure(renderable, options=whole).maximum)
        console.print(renderable)
        return
    # No colours, no wrapping and no trailing blanks for whoever reads a pipe.
    buffer = io.StringIO()
    console = Console(file=buffer, width=_PIPE_WIDTH, force_terminal=False, color_system=None)
    console.print(renderable)
    for line in buffer.getvalue().splitlines():
        click.echo(line.rstrip())


# --- errors and remarks: stderr -------------------------------------------------------------------


def note(text: str) -> None:
    """A remark that is no result."""
    click.echo(text, err=True)


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on the terminal of stderr while long work goes on; it is gone afterwards."""
    if not sys.stderr.isatty():
        yield lambda done, total: None  # noqa: ARG005 - nobody looks
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        tasks: list[TaskID] = []

        def show(done: int, total: int) -> None:
            if total < _LONG_STEPS:
                return
            if not tasks:
                tasks.append(bar.add_task(what))
            bar.update(tasks[0], completed=done, total=total)

        yield show


def warn(text: str) -> None:
    """Something that the user should know, though the command succeeded."""
    note(f"warning: {text}")


def print_error(error: GreXdpError, *, as_json: bool, traceback: str | None = None) -> None:
    """An error: one block of lines for each mistake, or one line of JSON."""
    mistakes = error.errors if isinstance(error, ConfigErrors) else (error,)
    if as_json:
        fields: dict[str, Any] = dict(mistakes[0].as_dict())
        if isinstance(error, ConfigErrors):
            fields["errors"] = [mistake.as_dict() for mistake in mistakes]
        if traceback:
            fields["traceback"] = traceback
        note(json.dumps({"error": fields}))
        return
    if traceback:
        note(traceback.rstrip())
    for mistake in mistakes:
        note(f"error: {mistake.message}")
        if mistake.where:
            note(f"  where: {mistake.where}")
        note(f"  remedy: {mistake.remedy}")
