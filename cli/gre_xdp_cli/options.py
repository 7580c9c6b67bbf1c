"""Options that all commands share, and the classes of commands and groups that know them.

A shared option may stand before or after the subcommand; the last one counts.
"""

# ruff: noqa: PLC0415 - a command that needs no namespace should not wait for pyroute2

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from click.shell_completion import CompletionItem

DEFAULT_CONFIG = Path("/etc/gre-xdp/config.toml")
_NETNS_DIRECTORY = Path("/run/netns")
# -j alone or among other flags that take no value, as in -sj.
_JSON_FLAG = re.compile("--json|-[jnsvy]*j[jnsvy]*")
_Decorated = TypeVar("_Decorated", bound=Callable[..., Any] | click.Command)


@dataclass(slots=True)
class Options:
    """What the shared options say; one object for the whole command line."""

    config: Path = DEFAULT_CONFIG
    json: bool = False
    netns: str | None = None
    debug: bool = False
    statistics: bool = False
    trouble_code: int = 1  # of the command that runs: its exit code for errors


pass_options = click.make_pass_decorator(Options, ensure=True)


def asks_for_json(arguments: Sequence[str]) -> bool:
    """Do they say ``--json``? Known before they are parsed, for errors in parsing itself."""
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return any(_JSON_FLAG.fullmatch(flag) for flag in flags)


# --- commands and groups --------------------------------------------------------------------------


class _Taught:
    """Help that ends in what the command needs and in examples, each on its own line."""

    examples: tuple[str, ...] = ()
    needs = ""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Called by click at the end of the help text."""
        del ctx
        if self.needs:
            formatter.write_paragraph()
            formatter.write_text(f"Needs: {self.needs}.")
        if self.examples:
            with formatter.section("Examples"):
                for example in self.examples:
                    formatter.write(f"{'':>{formatter.current_indent}}{example}\n")


class Command(_Taught, click.Command):
    """A command; ``trouble_code`` is its exit code for errors."""

    def __init__(
        self,
        *args: Any,
        examples: tuple[str, ...],
        needs: str,
        trouble_code: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples
        self.needs = needs
        self.trouble_code = trouble_code

    def invoke(self, ctx: click.Context) -> Any:
        """Run it; its exit code for errors is known from here on."""
        ctx.ensure_object(Options).trouble_code = self.trouble_code
        return super().invoke(ctx)


class NamespaceCommand(Command):
    """A command that works in the network namespace that ``--netns`` names."""

    def invoke(self, ctx: click.Context) -> Any:
        """Enter the namespace before anything else is done."""
        ctx.ensure_object(Options).trouble_code = self.trouble_code
        if name := ctx.ensure_object(Options).netns:
            from gre_xdp.netlink import namespaces

            namespaces.enter(name)
        return super().invoke(ctx)


class Group(_Taught, click.Group):
    """A group that lists its commands in the order in which they are used."""

    def __init__(self, *args: Any, examples: tuple[str, ...], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.examples = examples

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Called by click for the help text and for completion."""
        del ctx
        return list(self.commands)


# --- options --------------------------------------------------------------------------------------


def _note(ctx: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep what was said in the shared object; what was not said changes nothing."""
    if value is not None and value is not False:
        setattr(ctx.ensure_object(Options), str(parameter.name), value)


def _complete_netns(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    del ctx, parameter
    try:
        names = sorted(os.listdir(_NETNS_DIRECTORY))
    except OSError:
        return []
    return [CompletionItem(name) for name in names if name.startswith(incomplete)]


json_option = click.option(
    "-j",
    "--json",
    is_flag=True,
    expose_value=False,
    callback=_note,
    help="Print JSON on stdout and nothing else; errors are JSON on stderr.",
)
netns_option = click.option(
    "--netns",
    metavar="NAME",
    expose_value=False,
    callback=_note,
    shell_complete=_complete_netns,
    help="Work in this network namespace (ip netns list), with pins of its own.",
)
config_option = click.option(
    "-c",
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    expose_value=False,
    callback=_note,
    help=f"Configuration file, {DEFAULT_CONFIG} if not given.",
)
debug_option = click.option(
    "--debug",
    is_flag=True,
    expose_value=False,
    callback=_note,
    help="Show the Python traceback of an error.",
)
statistics_option = click.option(
    "-s",
    "--statistics",
    is_flag=True,
    expose_value=False,
    callback=_note,
    help="Add counters: of tunnels, and of map entries to the status.",
)
file_argument = click.argument(
    "file", required=False, type=click.Path(dir_okay=False, path_type=Path)
)


def shared(*options: Callable[[Any], Any]) -> Callable[[_Decorated], _Decorated]:
    """Give a command ``-j``, ``--debug`` and these options, in this order in its help."""

    def decorate(command: _Decorated) -> _Decorated:
        for option in reversed((*options, json_option, debug_option)):
            command = option(command)
        return command

    return decorate
