"""The bench: what the programs cost per packet here, and commands by the number of tunnels."""

# ruff: noqa: PLC0415 - pyroute2 loads when the command runs, not for --help

from __future__ import annotations

import dataclasses
import platform
from typing import TYPE_CHECKING

import click

from gre_xdp_cli import output
from gre_xdp_cli.lab import require_root
from gre_xdp_cli.options import Command, Options, pass_options, shared

if TYPE_CHECKING:
    from gre_xdp.control_bench import Figures


@click.command(
    cls=Command,
    needs="root",
    examples=("gre-xdp bench", "gre-xdp bench --quick", "gre-xdp bench --control"),
)
@click.option("--quick", is_flag=True, help="One short round: a smoke test, no figures to quote.")
@click.option(
    "--control",
    is_flag=True,
    help="Measure commands instead, with up to 1,000 tunnels, and 20,000 on a shared device.",
)
@shared()
@pass_options
def bench(options: Options, quick: bool, control: bool) -> None:
    """Measure the cost per packet, side by side with a program that does nothing.

    By BPF_PROG_RUN in a namespace of its own: 64-byte packets, warm caches, no driver. Compare the
    rows of one run; the difference to the floor is what the program itself costs.
    """
    from gre_xdp import bench as library

    require_root()
    if control:
        _control(options, quick=quick)
        return
    costs = library.run(1, 200) if quick else library.run()
    floor = costs[0].median_ns
    if options.json:
        output.print_json(
            [
                {
                    "case": cost.name,
                    "verdict": cost.verdict,
                    "median_ns": round(cost.median_ns, 1),
                    "spread_ns": round(cost.spread_ns, 1),
                    "above_floor_ns": round(cost.median_ns - floor, 1),
                }
                for cost in costs
            ]
        )
        return
    output.print_table(
        ["PACKET", "VERDICT", ">NS", ">SPREAD", ">ABOVE FLOOR"],
        [
            [
                cost.name,
                cost.verdict,
                f"{cost.median_ns:.0f}",
                f"±{cost.spread_ns:.0f}",
                f"{cost.median_ns - floor:+.0f}",
            ]
            for cost in costs
        ],
    )
    output.say(
        f"\nLinux {platform.release()}, {platform.machine()}; BPF_PROG_RUN, one frame a run,"
        f" median of {1 if quick else library.ROUNDS} interleaved rounds."
    )


def _control(options: Options, *, quick: bool) -> None:
    from gre_xdp import control_bench as library

    sizes = [(10, False), (10, True)]
    if not quick:
        sizes = [(size, False) for size in library.OWN_SIZES]
        sizes += [(size, True) for size in library.SHARED_SIZES]
    found = []
    for tunnels, is_shared in sizes:
        where = "on one device" if is_shared else "with a device each"
        output.note(f"{tunnels} tunnels {where} …")
        found.append(library.run(tunnels, is_shared=is_shared))
    if options.json:
        output.print_json([dataclasses.asdict(figures) for figures in found])
        return
    output.print_table(
        [">TUNNELS", "DEVICE", *(f">{name}" for name in _COMMANDS), ">MIB"],
        [_row(figures) for figures in found],
    )
    output.say(
        f"\nSeconds; {library.ROUTES_PER_TUNNEL} routes a tunnel. RESTART is a new process that"
        f" finds nothing to do, MIB what it needs. Linux {platform.release()}."
    )


# Column → field of the figures.
_COMMANDS = {
    "CHECK": "check_s",
    "APPLY": "apply_s",
    "AGAIN": "no_op_s",
    "ONE CHANGE": "change_s",
    "RESTART": "adopt_s",
    "SHOW": "show_s",
    "SCRAPE": "scrape_s",
    "DOWN": "down_s",
}


def _row(figures: Figures) -> list[object]:
    return [
        figures.tunnels,
        "shared" if figures.is_shared else "own",
        *(f"{getattr(figures, field):.2f}" for field in _COMMANDS.values()),
        f"{figures.adopt_rss_mib:.0f}",
    ]
