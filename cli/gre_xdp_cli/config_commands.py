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
from gre_xdp_cli.signals import terminable

if TYPE_CHECKING:
    from gre_xdp.netlink.firewall import ForwardChain

_ROOT = "root (CAP_BPF and CAP_NET_ADMIN)"
_NOTHING = "nothing to do"


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
    output.say(
        f"{path}: {output.plural(interfaces, 'interface')}, {output.plural(tunnels, 'tunnel')},"
        " no mistakes"
    )


@click.command(
    cls=NamespaceCommand,
    needs=f"{_ROOT}; it changes nothing",
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
        output.say(_NOTHING)
    if steps:
        raise click.exceptions.Exit(1)


@click.command(
    cls=NamespaceCommand,
    needs=_ROOT,
    examples=("gre-xdp apply", "gre-xdp apply ./site.toml", "gre-xdp --netns blue apply blue.toml"),
)
@file_argument
@shared(config_option, netns_option)
@pass_options
def apply(options: Options, file: Path | None) -> None:
    """Make the kernel match the configuration file.

    Changes what gre-xdp diff shows and nothing else, then reads the kernel back. If a step fails,
    the steps before it are undone. Applying the same file again does nothing. An agent that keeps
    this namespace is told to read its file again; a file other than the agent's is refused.
    """
    from gre_xdp import agent_lock, config, reconcile

    path = file or options.config
    wanted = config.load(path)
    reconcile.require_root()
    agent = agent_lock.require_agreement(path)
    with terminable():
        steps = reconcile.apply(wanted)
    if agent is not None:
        agent_lock.reload(agent)
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
        output.say(_NOTHING)
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
    needs=_ROOT,
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
    from gre_xdp import agent_lock, reconcile

    if sys.stdin.isatty() and not yes:
        where = f"network namespace {options.netns}" if options.netns else "this network namespace"
        question = f"Remove all tunnels of gre-xdp in {where}?"
        if not click.confirm(question, err=True):
            output.note("nothing was removed")
            raise click.exceptions.Exit(1)
    reconcile.require_root()
    stopped = agent_lock.stop()
    if stopped is not None:
        output.note(f"stopped the agent (pid {stopped.pid})")
    with terminable():
        steps = reconcile.down()
    if options.json:
        output.print_json({"changes": [step.as_dict() for step in steps]})
    elif steps:
        output.print_steps(steps)
        output.say(f"down: {output.plural(len(steps), 'change')}")
    else:
        output.say(_NOTHING)
