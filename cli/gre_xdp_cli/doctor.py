"""The doctor: what could go wrong on this host, and the command against it."""

# ruff: noqa: PLC0415 - pydantic and pyroute2 load when the command runs, not for --help

from __future__ import annotations

import os
import shlex
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gre_xdp.errors import GreXdpError
from gre_xdp_cli import output
from gre_xdp_cli.options import (
    DEFAULT_CONFIG,
    NamespaceCommand,
    Options,
    config_option,
    file_argument,
    netns_option,
    pass_options,
    shared,
)

if TYPE_CHECKING:
    from gre_xdp.doctor import Command, Finding

_STYLES = {"error": "red", "warning": "yellow", "note": "cyan", "ok": "green"}


@click.command(
    cls=NamespaceCommand,
    needs="nothing, but root sees more; --fix and --probe need root",
    examples=(
        "sudo gre-xdp doctor                # /etc/gre-xdp/config.toml, or the host alone",
        "sudo gre-xdp doctor ./site.toml -v",
        "sudo gre-xdp doctor --fix",
        "sudo gre-xdp --netns blue doctor blue.toml",
    ),
)
@file_argument
@click.option("-v", "--verbose", is_flag=True, help="Show what is as it should be, too.")
@click.option("--fix", is_flag=True, help="Run what is safe (ethtool -K, sysctl -w); asks first.")
@click.option("-y", "--yes", is_flag=True, help="With --fix: do not ask.")
@click.option("--probe", is_flag=True, help="Measure the path to each remote.")
@click.option("--no-load", is_flag=True, help="Do not compile and load the programs to try it.")
@shared(config_option, netns_option)
@pass_options
def doctor(
    options: Options,
    file: Path | None,
    verbose: bool,
    fix: bool,
    yes: bool,
    probe: bool,
    no_load: bool,
) -> None:
    """Find what could make gre-xdp fail, be slow or surprise.

    Looks at the kernel, packages, firewall, interfaces and tunnels, and attaches nothing. Each
    finding says why it matters and what mends it. Exits with 0 if there is no error among them,
    else with 1. What --fix runs lasts until the next boot.
    """
    from gre_xdp import doctor as library

    if (fix or probe) and os.geteuid() != 0:
        from gre_xdp.writer_lock import require_root

        require_root()
    path = file or options.config
    examine = partial(
        library.examine,
        path,
        is_required=path != DEFAULT_CONFIG,
        netns=options.netns,
        build=not no_load,
        probe=probe,
    )
    found = examine()
    fixed: list[Command] = []
    if fix:
        fixed = _fix(found, options, yes=yes)
        if fixed:
            found = examine()
    if options.json:
        answer: dict[str, object] = {"findings": [finding.as_dict() for finding in found]}
        if fix:
            answer["fixed"] = [shlex.join(command) for command in fixed]
        output.print_json(answer)
    else:
        _print(found, verbose=verbose)
    if any(finding.severity == "error" for finding in found):
        raise click.exceptions.Exit(1)


def _fix(found: list[Finding], options: Options, *, yes: bool) -> list[Command]:
    """Run the safe remedies that the user agrees to; returns those that worked."""
    from gre_xdp.doctor import fixes as doctor_fixes

    say: Callable[[str], None] = output.note if options.json else output.say
    done: list[Command] = []
    commands = {command: finding for finding in found for command in finding.fixes}
    for command, finding in commands.items():
        shown = shlex.join(command)
        if not yes:
            output.note(f"{finding.subject}: {finding.finding}")
            if not _confirm(f"Run {shown}?"):
                continue
        try:
            doctor_fixes.run(command)
        except GreXdpError as error:
            output.print_error(error, as_json=False)
            continue
        say(f"ran {shown}")
        done.append(command)
    if not commands:
        say("nothing that could be mended safely")
    return done


def _confirm(question: str) -> bool:
    try:
        return click.confirm(question, err=True)
    except click.Abort as problem:
        if isinstance(problem.__context__, EOFError):
            raise click.UsageError("nobody is there to answer; --yes answers") from None
        raise


def _print(found: list[Finding], *, verbose: bool) -> None:
    blocks: dict[str, list[tuple[str, list[str]]]] = {}
    for finding in found:
        if finding.severity == "ok" and not verbose:
            continue
        remedy = f"remedy: {finding.remedy}" if finding.remedy else ""
        lines = [line for line in (finding.finding, finding.why, remedy) if line]
        blocks.setdefault(finding.subject, []).append((finding.severity, lines))
    output.print_blocks(blocks, styles=_STYLES)
    if blocks:
        output.say("")
    counts = Counter(finding.severity for finding in found)
    parts = [
        output.plural(counts[severity], severity)
        for severity in ("error", "warning", "note")
        if counts[severity]
    ]
    fine = f"{output.plural(counts['ok'], 'check')} ok"
    output.say(f"{', '.join(parts)}; {fine}" if parts else f"nothing to mend; {fine}")
