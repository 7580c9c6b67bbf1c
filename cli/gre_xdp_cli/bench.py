"""The bench: what the programs cost per packet on this machine, against the floor."""

# ruff: noqa: PLC0415 - pyroute2 loads when the command runs, not for --help

from __future__ import annotations

import platform

import click

from gre_xdp_cli import output
from gre_xdp_cli.lab import require_root
from gre_xdp_cli.options import Command, Options, pass_options, shared


@click.command(
    cls=Command,
    needs="root",
    examples=("gre-xdp bench", "gre-xdp bench --quick"),
)
@click.option("--quick", is_flag=True, help="One short round: a smoke test, no figures to quote.")
@shared()
@pass_options
def bench(options: Options, quick: bool) -> None:
    """Measure the cost per packet, side by side with a program that does nothing.

    By BPF_PROG_RUN in a namespace of its own: 64-byte packets, warm caches, no driver. Compare the
    rows of one run; the difference to the floor is what the program itself costs.
    """
    from gre_xdp import bench as library

    require_root()
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
