"""Keeping a change, or going back: confirm and rollback."""

# ruff: noqa: PLC0415 - pydantic and pyroute2 load when a command runs, not for --help

from __future__ import annotations

from pathlib import Path

import click

from gre_xdp_cli import output
from gre_xdp_cli.options import (
    NamespaceCommand,
    Options,
    config_option,
    file_argument,
    netns_option,
    pass_options,
    shared,
)
from gre_xdp_cli.signals import terminable


@click.command(
    cls=NamespaceCommand,
    needs="root",
    examples=("gre-xdp apply --confirm-within 60 && gre-xdp confirm",),
)
@file_argument
@shared(config_option, netns_option)
@pass_options
def confirm(options: Options, file: Path | None) -> None:
    """Keep what apply --confirm-within has changed."""
    from gre_xdp import errors, writer_lock
    from gre_xdp.history import History

    writer_lock.require_root()
    path = file or options.config
    if not History(path).confirm():
        raise errors.HostError(
            f"no change of {path} waits for confirmation",
            remedy="it has been confirmed or taken back already; gre-xdp diff shows where you are",
        )
    if options.json:
        output.print_json({"confirmed": str(path)})
    else:
        output.say("confirmed")


@click.command(
    cls=NamespaceCommand,
    needs="root (CAP_BPF and CAP_NET_ADMIN)",
    examples=("gre-xdp rollback", "gre-xdp rollback ./site.toml"),
)
@file_argument
@shared(config_option, netns_option)
@pass_options
def rollback(options: Options, file: Path | None) -> None:
    """Return to the configuration that was applied before this one.

    It is written back into the file; what the file held is kept beside it as FILE.rolled-back. A
    change that waits for confirmation is taken back at once. Doing it twice undoes it.
    """
    from gre_xdp import rollback as library
    from gre_xdp import writer_lock
    from gre_xdp.history import History

    writer_lock.require_root()
    history = History(file or options.config)
    with terminable():
        steps = library.roll_back(history)
    if options.json:
        output.print_json({"changes": [step.as_dict() for step in steps]})
        return
    output.print_steps(steps)
    output.say(f"returned to the former {history.path}: {output.plural(len(steps), 'change')}")
