"""The nouns: ``gre-xdp show`` and what can be shown. Reads only, also without the agent."""

# ruff: noqa: PLC0415 - pyroute2 loads when a command runs, not for --help

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

import click

from gre_xdp.errors import HostError
from gre_xdp_cli import output
from gre_xdp_cli.options import (
    Group,
    NamespaceCommand,
    Options,
    netns_option,
    pass_options,
    shared,
    statistics_option,
)

if TYPE_CHECKING:
    from gre_xdp.status import ReasonCount, TunnelStatus

_NEEDS = "root, as the pins in /sys/fs/bpf are root's; no agent and no configuration file"
_STATE_STYLES = {
    "up": "green",
    "pending": "yellow",
    "no_neighbour": "yellow",
    "no_route": "red",
    "down": "red",
    "foreign": "red",
}


@click.group(
    cls=Group,
    invoke_without_command=True,
    examples=(
        "gre-xdp show                    # the same as gre-xdp show tunnels",
        "gre-xdp show tunnels -s fra1    # one tunnel, with its counters",
        "gre-xdp show drops              # why packets were dropped, and what to do",
        "gre-xdp show status -j",
    ),
)
@shared(statistics_option, netns_option)
@click.pass_context
def show(ctx: click.Context) -> None:
    """Show what runs (tunnels if no subcommand is given).

    Reads the kernel, not the configuration file; works without the agent. Needs root.
    """
    if ctx.invoked_subcommand is None:
        with tunnels.make_context("tunnels", [], parent=ctx) as inner:
            tunnels.invoke(inner)


@show.command(
    cls=NamespaceCommand,
    needs=_NEEDS,
    examples=("gre-xdp show tunnels", "gre-xdp show tunnels fra1 -s", "gre-xdp show tunnels -s -j"),
)
@click.argument("name", required=False)
@shared(statistics_option, netns_option)
@pass_options
def tunnels(options: Options, name: str | None) -> None:
    """Show tunnels, or the one of this NAME.

    States: up; no_neighbour (the next hop to the remote does not answer); no_route (no attached
    interface leads to the remote); down (a device is down); pending (half made or half removed:
    see gre-xdp diff). Bytes are those of inner packets.
    """
    from gre_xdp import status

    found = status.snapshot().tunnels
    if name is not None:
        found = _only(found, name)
    if options.json:
        output.print_json([t.as_dict(with_counters=options.statistics) for t in found])
        return
    if not found:
        output.say("no tunnels")
        return
    columns = ["NAME", "LOCAL", "REMOTE", "KEY", "BACKING", "DEVICE", ">MTU", "STATE"]
    rows = [
        [t.name, t.local, t.remote, _keys(t), t.backing, t.device, t.mtu, t.state] for t in found
    ]
    if options.statistics:
        columns += [">RX PACKETS", ">RX BYTES", ">TX PACKETS", ">TX BYTES"]
        for row, t in zip(rows, found, strict=True):
            counters = t.counters
            row += [counters.rx_packets, counters.rx_bytes, counters.tx_packets, counters.tx_bytes]
    output.print_table(columns, rows, styles=_STATE_STYLES)


def _only(found: list[TunnelStatus], name: str) -> list[TunnelStatus]:
    matching = [tunnel for tunnel in found if tunnel.name == name]
    if not matching:
        near = difflib.get_close_matches(name, [tunnel.name for tunnel in found], n=1)
        raise HostError(
            f"there is no tunnel {name}",
            remedy=f"gre-xdp show tunnels {near[0]}" if near else "gre-xdp show tunnels lists all",
        )
    return matching


def _keys(tunnel: TunnelStatus) -> str | None:
    if tunnel.ikey == tunnel.okey:
        return None if tunnel.ikey is None else str(tunnel.ikey)
    both = (("in", tunnel.ikey), ("out", tunnel.okey))
    return " ".join(f"{way} {'none' if key is None else key}" for way, key in both)


@show.command(
    cls=NamespaceCommand,
    needs=_NEEDS,
    examples=("gre-xdp show interfaces", "gre-xdp show interfaces -j"),
)
@shared(statistics_option, netns_option)
@pass_options
def interfaces(options: Options) -> None:
    """Show where XDP is attached, and in which mode."""
    from gre_xdp import status

    found = status.snapshot().interfaces
    if options.json:
        output.print_json([interface.as_dict() for interface in found])
        return
    if not found:
        output.say("no interfaces")
        return
    columns = ["NAME", ">IFINDEX", "MODE", "DRIVER", ">PROGRAM ID", "LINK PINNED"]
    rows = [
        [i.name, i.ifindex, i.mode, i.driver, i.program_id, "yes" if i.link_pinned else "no"]
        for i in found
    ]
    if options.statistics:
        columns += [">REDIRECT FAILURES"]
        for row, interface in zip(rows, found, strict=True):
            row.append(interface.redirect_failures)
    output.print_table(columns, rows)


_all_option = click.option("-a", "--all", "every", is_flag=True, help="Show the zeros, too.")


@show.command(
    cls=NamespaceCommand,
    needs=_NEEDS,
    examples=("gre-xdp show drops", "gre-xdp show drops --all", "gre-xdp show drops -j"),
)
@_all_option
@shared(statistics_option, netns_option)
@pass_options
def drops(options: Options, every: bool) -> None:
    """Show why packets were dropped, and what to do about it."""
    from gre_xdp import status

    _print_reasons(status.snapshot().drops, options, every=every)


@show.command(
    cls=NamespaceCommand,
    needs=_NEEDS,
    examples=("gre-xdp show passes", "gre-xdp show passes --all", "gre-xdp show passes -j"),
)
@_all_option
@shared(statistics_option, netns_option)
@pass_options
def passes(options: Options, every: bool) -> None:
    """Show why packets were handed to the kernel instead of taking the fast path."""
    from gre_xdp import status

    _print_reasons(status.snapshot().passes, options, every=every)


def _print_reasons(counts: list[ReasonCount], options: Options, *, every: bool) -> None:
    if options.json:
        output.print_json([count.as_dict() for count in counts])
        return
    shown = counts if every else [count for count in counts if count.count]
    if shown:
        output.print_table(
            [">CODE", "REASON", ">COUNT", "MEANING"],
            [
                [c.reason.code, c.reason.name, c.count, f"{c.reason.meaning} {c.reason.remedy}"]
                for c in shown
            ],
            is_prose=True,
        )
    if hidden := len(counts) - len(shown):
        output.say(f"{hidden} other reasons: 0" if shown else f"all {hidden} reasons: 0")


@show.command(
    cls=NamespaceCommand,
    needs=_NEEDS,
    examples=("gre-xdp show status", "gre-xdp show status -s", "gre-xdp show status -j"),
)
@shared(statistics_option, netns_option)
@pass_options
def status(options: Options) -> None:
    """Show everything in a few lines: tunnels, interfaces, packets and drops."""
    from gre_xdp import status as library

    snapshot = library.snapshot()
    if options.json:
        found = snapshot.as_dict()
        if options.statistics:
            found["maps"] = [
                {"name": m.name, "entries": m.entries, "max_entries": m.max_entries}
                for m in snapshot.maps
            ]
        output.print_json(found)
        return
    facts = snapshot.as_dict()
    lines = {
        "tunnels": f"{facts['tunnels']}, {facts['tunnels_up']} up",
        "interfaces": ", ".join(interface.name for interface in snapshot.interfaces) or "none",
        "received": f"{facts['rx_packets']} packets",
        "sent": f"{facts['tx_packets']} packets",
        "dropped": f"{facts['drops']} packets (gre-xdp show drops)",
        "passed": f"{facts['passes']} packets to the kernel (gre-xdp show passes)",
        "unknown GRE": facts["unknown_gre"],
        "programs": facts["programs"] or "none",
    }
    for word, fact in lines.items():
        output.say(f"{word:<12} {fact}")
    for what, why in snapshot.waiting.items():
        output.say(f"{'waiting':<12} {what}: {why}")
    if options.statistics:
        output.say("")
        output.print_table(
            ["MAP", ">ENTRIES", ">MAX ENTRIES"],
            [[m.name, m.entries, m.max_entries] for m in snapshot.maps],
        )
