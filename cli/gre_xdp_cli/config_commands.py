"""The commands around the configuration file: check, diff, apply, and down."""

# ruff: noqa: PLC0415 - pydantic and pyroute2 load when a command runs, not for --help

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from gre_xdp.errors import ConfigErrors
from gre_xdp_cli import output
from gre_xdp_cli.options import (
    Command,
    NamespaceCommand,
    Options,
    config_option,
    file_argument,
    netns_option,
    pass_options,
    shared,
)
from gre_xdp_cli.signals import terminable, undisturbed

if TYPE_CHECKING:
    from gre_xdp.history import History
    from gre_xdp.model import Config
    from gre_xdp.netlink.firewall import ForwardChain
    from gre_xdp.plan import Step

ROOT = "root (CAP_BPF and CAP_NET_ADMIN)"
# Longer than applying takes: what it leaves half done when it is killed is taken back, too.
_APPLY_S = 60
NOTHING = "nothing to do"


@click.command(
    cls=Command,
    needs="no root; it touches nothing, not even the network",
    examples=("gre-xdp check", "gre-xdp check ./site.toml", "gre-xdp check -j ./site.toml"),
)
@file_argument
@shared(config_option, netns_option)
@pass_options
def check(options: Options, file: Path | None) -> None:
    """Find every mistake in a configuration file.

    All mistakes are told at once, each with its file and line, the key, its value, and what to
    write instead. Exits with 0 when there is none, else with 1.
    """
    from gre_xdp import config

    path = file or options.config
    try:
        found = config.load(path)
    except ConfigErrors as error:
        if options.json:
            output.print_json(
                {
                    "file": str(path),
                    "interfaces": None,
                    "tunnels": None,
                    "errors": [mistake.as_dict() for mistake in error.errors],
                }
            )
        raise
    interfaces, tunnels = len(found.interfaces), len(found.tunnels)
    if options.json:
        output.print_json(
            {"file": str(path), "interfaces": interfaces, "tunnels": tunnels, "errors": []}
        )
        return
    counts = f"{output.plural(interfaces, 'interface')}, {output.plural(tunnels, 'tunnel')}"
    output.say(f"{config.shown(path)}: {counts}, no mistakes")


@click.command(
    cls=NamespaceCommand,
    needs=f"{ROOT}; it changes nothing",
    trouble_code=2,
    examples=(
        "gre-xdp diff",
        "gre-xdp diff ./site.toml || gre-xdp apply ./site.toml",
        "gre-xdp --netns blue diff ./blue.toml",
    ),
)
@file_argument
@shared(config_option, netns_option)
@pass_options
def diff(options: Options, file: Path | None) -> None:
    """Show what apply would do.

    One line for each change: + creates, ~ updates, - deletes. As with diff(1), the exit code is 0
    when there is nothing to do, 1 when something differs, and 2 for trouble.
    """
    from gre_xdp import config, reconcile

    steps = reconcile.diff(config.load(file or options.config))
    if options.json:
        output.print_json({"changes": [step.as_dict() for step in steps]})
    elif steps:
        output.print_steps(steps)
    else:
        output.say(NOTHING)
    if steps:
        raise click.exceptions.Exit(1)


@click.command(
    cls=NamespaceCommand,
    needs=ROOT,
    examples=(
        "gre-xdp apply",
        "gre-xdp apply --confirm-within 60 && gre-xdp confirm",
        "gre-xdp --netns blue apply blue.toml",
    ),
)
@file_argument
@click.option(
    "--confirm-within",
    type=click.IntRange(1, 86400),
    metavar="SECONDS",
    help="Return to the former configuration after so long, unless gre-xdp confirm is run.",
)
@shared(config_option, netns_option)
@pass_options
def apply(options: Options, file: Path | None, confirm_within: int | None) -> None:
    """Make the kernel match the configuration file.

    Changes what gre-xdp diff shows and nothing else, then reads the kernel back. If a step fails,
    the steps before it are undone. Applying the same file again does nothing. An agent that keeps
    this namespace is told to read its file again; a file other than the agent's is refused.

    With --confirm-within the former configuration comes back, into the file and into force, when
    nobody confirms the change in time: a process that was left behind sees to it, or else the
    agent, and after a reboot whoever reads the file first.
    """
    from gre_xdp import agent_lock, config, reconcile, writer_lock
    from gre_xdp import rollback as library
    from gre_xdp.history import History

    path = file or options.config
    text = config.decode(config.read(path), config.shown(path))
    wanted = config.parse(text, config.shown(path))
    writer_lock.require_root()
    history = History(path)
    if library.restore_file_if_over(history):
        output.warn(f"{path} held a change that was never confirmed, and holds the former text now")
        wanted = config.load(path)
        text = history.base() or ""
    refuse_pending(history)
    agent = agent_lock.require_agreement(path)
    pending = None
    if confirm_within is not None:
        pending = history.begin(confirm_within + _APPLY_S)
    with terminable():
        try:
            if pending is not None:
                library.watch(history, pending)
            # Told before: woken by our own changes it would bring back what it knows.
            if agent is not None:
                agent_lock.reload(agent)
            with output.progress("applying") as progress:
                steps = reconcile.apply(wanted, progress)
        except BaseException:
            # Nothing has changed, so there is nothing to take back.
            if pending is not None:
                history.confirm()
                if history.current is None:
                    history.forget()
            raise
        with undisturbed():
            try:
                history.note_applied(text)
            except OSError as error:
                problem = f"what was applied cannot be kept for gre-xdp rollback: {error.strerror}"
                output.warn(problem)
            if pending is not None:
                history.count_from_now(pending, confirm_within or 0)
            report_applied(options, wanted, steps)
            if pending is not None:
                output.note(
                    f"the former configuration comes back in {confirm_within} s, unless you run"
                    " gre-xdp confirm"
                )


def refuse_pending(history: History) -> None:
    """Raise ``HostError`` while a change waits for confirmation."""
    from gre_xdp import errors

    if history.pending is not None:
        raise errors.HostError(
            f"the last change of {history.path} waits for confirmation",
            remedy="gre-xdp confirm keeps it, gre-xdp rollback takes it back",
        )


def report_applied(options: Options, wanted: Config, steps: list[Step]) -> None:
    """Tell what apply did, and which firewall chains are gone around."""
    from gre_xdp import reconcile

    bypassed = reconcile.bypassed_chains() if wanted.bypass_firewall else []
    if options.json:
        output.print_json(
            {
                "changes": [step.as_dict() for step in steps],
                "bypassed_firewall": [chain.name for chain in bypassed],
            }
        )
        return
    if steps:
        output.print_steps(steps)
        output.say(f"applied: {output.plural(len(steps), 'change')}")
    else:
        output.say(NOTHING)
    for chain in bypassed:
        output.warn(
            f"packets that XDP forwards do not pass the firewall chain {_describe(chain)}"
            " (bypass_firewall = true)"
        )


def _describe(chain: ForwardChain) -> str:
    facts = [output.plural(chain.rules, "rule")] if chain.rules else []
    facts += ["policy drop"] if chain.is_drop_policy else []
    return f"{chain.name}, {', '.join(facts)}" if facts else chain.name


@click.command(
    cls=NamespaceCommand,
    needs=ROOT,
    examples=("gre-xdp down", "gre-xdp down --yes", "gre-xdp --netns blue down --yes"),
)
@click.option("-y", "--yes", is_flag=True, help="Do not ask, also on a terminal.")
@shared(netns_option)
@pass_options
def down(options: Options, yes: bool) -> None:
    """Remove everything that gre-xdp made, and nothing else.

    Tunnels, their routes and addresses, programs and pins go; settings get their former values
    back; an agent that runs here is stopped first. Asks first on a terminal; without one, as in a
    script, it does not.
    """
    from gre_xdp import agent_lock, history, reconcile, writer_lock

    if sys.stdin.isatty() and not yes:
        where = f"network namespace {options.netns}" if options.netns else "this network namespace"
        question = f"Remove all tunnels of gre-xdp in {where}?"
        if not click.confirm(question, err=True):
            output.note("nothing was removed")
            raise click.exceptions.Exit(1)
    writer_lock.require_root()
    stopped = agent_lock.stop()
    if stopped is not None:
        output.note(f"stopped the agent (pid {stopped.pid})")
    with terminable(), output.progress("removing") as progress:
        steps = reconcile.down(progress)
    history.forget_namespace()
    if options.json:
        output.print_json({"changes": [step.as_dict() for step in steps]})
    elif steps:
        output.print_steps(steps)
        output.say(f"down: {output.plural(len(steps), 'change')}")
    else:
        output.say(NOTHING)
