"""The lab: two sites, two gateways and a tunnel on this machine, to try everything in."""

# ruff: noqa: PLC0415 - pyroute2 loads when a command runs, not for --help

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from gre_xdp.errors import LabError, PrivilegeError
from gre_xdp_cli import output
from gre_xdp_cli.options import Command, Group, Options, pass_options, shared
from gre_xdp_cli.signals import terminable

if TYPE_CHECKING:
    from gre_xdp.lab.lab import Kernel, Lab, Peer

_NEEDS = "root"
_DEFAULT_NAME = "gxlab"
_NODES = ("site-a", "gw-a", "gw-b", "site-b")


@click.group(
    cls=Group,
    examples=(
        "gre-xdp lab up                  # gateway B is a stock Linux kernel",
        "gre-xdp lab shell site-a        # then: ping 10.2.0.2",
        "gre-xdp lab down",
    ),
)
@shared()
@click.pass_context
def lab(ctx: click.Context) -> None:
    """Build two sites and a tunnel on this machine, to try it out.

    Network namespaces only: nothing of this machine's own network is touched. Needs root.
    """
    if ctx.ensure_object(Options).netns:
        raise click.UsageError("a lab has network namespaces of its own: leave --netns out", ctx)


_name_option = click.option(
    "--name",
    # The library's remedies say --prefix: what they say has to work.
    "--prefix",
    "name",
    metavar="PREFIX",
    default=_DEFAULT_NAME,
    show_default=True,
    help="The lab's name, with which its namespaces' names begin; for several labs.",
)


@lab.command(
    cls=Command,
    needs=f"{_NEEDS}; for a stock kernel as gateway B a GRE driver, or apt-get install "
    "user-mode-linux kmod",
    examples=(
        "gre-xdp lab up",
        "gre-xdp lab up --peer gre-xdp    # gre-xdp on both gateways",
        "gre-xdp lab up --kernel uml      # gateway B is User-Mode Linux, whatever the host has",
    ),
)
@click.option(
    "--peer",
    type=click.Choice(["kernel", "gre-xdp"]),
    default="kernel",
    show_default=True,
    help="What gateway B runs: a stock kernel's GRE, or gre-xdp.",
)
@click.option(
    "--kernel",
    type=click.Choice(["auto", "host", "uml"]),
    default="auto",
    show_default=True,
    help="Whose kernel is the peer: the host's if it has GRE, or User-Mode Linux.",
)
@_name_option
@shared()
@pass_options
def up(options: Options, peer: str, kernel: str, name: str) -> None:
    """Build the lab, apply gre-xdp in it, and print a map of it."""
    require_root()
    with terminable():
        _up(options, peer, kernel, name)


def _up(options: Options, peer: str, kernel: str, name: str) -> None:
    from gre_xdp.lab.lab import STATE_DIRECTORY, Lab

    network = Lab.up(name, peer=cast("Peer", peer), kernel=cast("Kernel", kernel))
    configs: dict[str, Path] = {}
    sides: tuple[Literal["a", "b"], ...] = ("a", "b") if peer == "gre-xdp" else ("a",)
    try:
        for side in sides:
            config = STATE_DIRECTORY / name / f"gw-{side}.toml"
            config.write_text(network.config_toml(side))
            configs[f"gw-{side}"] = config
        for node, config in configs.items():
            run_in(network.nodes[node].name, "apply", str(config))
    except BaseException:
        take_down(network)
        raise
    if options.json:
        output.print_json(
            {
                "name": name,
                "peer": peer,
                "kernel": network.kernel,
                "namespaces": {node: there.name for node, there in network.nodes.items()},
                "configs": {node: str(config) for node, config in configs.items()},
            }
        )
        return
    output.say(picture(network))
    output.say(_hints(network, name, configs))


@lab.command(
    cls=Command,
    needs=_NEEDS,
    examples=("gre-xdp lab down", "gre-xdp lab down --name second"),
)
@_name_option
@shared()
@pass_options
def down(options: Options, name: str) -> None:
    """Take the lab down: tunnels, namespaces, processes and files.

    Works also on a lab that was left half-built. Without a lab there is nothing to do.
    """
    from gre_xdp.lab import lab as library

    require_root()
    half_built = library.Lab(name, kernel=None, key=None)
    is_there = (library.STATE_DIRECTORY / name).exists() or any(
        node.path.exists() for node in half_built.nodes.values()
    )
    if is_there:
        take_down(half_built)
    if options.json:
        output.print_json({"name": name, "removed": is_there})
    else:
        output.say(f"lab {name} is down" if is_there else "nothing to do")


@lab.command(
    cls=Command,
    needs=_NEEDS,
    examples=("gre-xdp lab shell site-a", "gre-xdp lab shell gw-b"),
)
@click.argument("node", type=click.Choice(_NODES))
@_name_option
@shared()
def shell(node: str, name: str) -> None:
    """Open a shell on a NODE of the lab.

    Commands, files and processes are this machine's; the network is the node's. If gateway B is
    User-Mode Linux, it has processes of its own, too. exit or Ctrl-D leads back.
    """
    from gre_xdp.lab.lab import Lab

    require_root()
    network = Lab.load(name)
    if sys.stderr.isatty():
        output.note(f"on {node} of lab {name}; exit leads back")
    raise click.exceptions.Exit(network.shell(node))


def require_root() -> None:
    """Raise ``PrivilegeError`` for anybody else."""
    if os.geteuid() != 0:
        raise PrivilegeError("the lab needs root: it makes network namespaces", remedy="use sudo")


def take_down(network: Lab) -> None:
    """Remove what gre-xdp pinned for the lab's namespaces, then the lab, whatever happens."""
    try:
        for node in network.nodes.values():
            if not node.path.exists():
                continue
            try:
                run_in(node.name, "down", "--yes")
            except LabError as error:
                output.warn(f"{error.message}; its pins stay in /sys/fs/bpf/gre-xdp")
    finally:
        network.down()


def run_in(namespace: str, *arguments: str) -> None:
    """Run gre-xdp in a namespace, as a process of its own: this one stays where it is.

    Raises ``LabError`` with what it said.
    """
    # -P: the directory where the user happens to be is no place for Python to look for modules.
    command = [sys.executable, "-P", "-m", "gre_xdp_cli.main", "--json", "--netns", namespace]
    settings = {k: v for k, v in os.environ.items() if not k.startswith("GRE_XDP_")}
    done = subprocess.run(
        [*command, *arguments],
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env=settings,
    )
    if done.returncode == 0:
        return
    last = (done.stderr.strip() or f"exit status {done.returncode}").splitlines()[-1]
    try:
        said = json.loads(last)["error"]
    except (ValueError, KeyError, TypeError):
        said = {"message": last, "remedy": f"gre-xdp --netns {namespace} diff", "where": None}
    raise LabError(
        f"gre-xdp {arguments[0]} in {namespace}: {said['message']}",
        remedy=said["remedy"],
        where=said["where"] or namespace,
    )


# --- what the user sees ---------------------------------------------------------------------------


def picture(network: Lab) -> str:
    """The map of the lab with its addresses."""
    from gre_xdp.lab.lab import KERNEL_TUNNEL, SIDES, TUNNEL

    a, b = SIDES["a"], SIDES["b"]
    b_runs, b_device = {
        "host": ("kernel GRE", KERNEL_TUNNEL),
        "uml": ("User-Mode Linux", KERNEL_TUNNEL),
        None: ("gre-xdp", TUNNEL),
    }[network.kernel]

    def row(site_a: str, gw_a: str, gw_b: str, site_b: str) -> str:
        return f"{site_a:<18}{gw_a:<22}{gw_b:>22}{site_b:>18}".rstrip()

    wire, tunnel = "─" * 17, "═" * 42
    rows = [
        row("site-a", "gw-a", "gw-b", "site-b"),
        row("", "gre-xdp", b_runs, ""),
        f"o{wire}o{tunnel}o{wire}o",
        row("eth0", f"eth0 {a.underlay}", f"eth0 {b.underlay}", "eth0"),
        row(a.host[0], f"eth1 {a.gateway[0]}", f"eth1 {b.gateway[0]}", b.host[0]),
        row(a.host[1], f"eth1 {a.gateway[1]}", f"eth1 {b.gateway[1]}", b.host[1]),
        row("", f"{TUNNEL} {a.tunnel[0]}", f"{b_device} {b.tunnel[0]}", ""),
        row("", f"{TUNNEL} {a.tunnel[1]}", f"{b_device} {b.tunnel[1]}", ""),
    ]
    return "\n".join(rows)


def _hints(network: Lab, name: str, configs: dict[str, Path]) -> str:
    """Commands to try, ready to be copied."""
    from gre_xdp.lab.lab import SIDES

    choice = "" if name == _DEFAULT_NAME else f" --name {name}"
    site, gateway = network.nodes["site-a"].path, network.nodes["gw-a"].name
    far_v4, far_v6 = (address.split("/")[0] for address in SIDES["b"].host)
    lines = [
        "",
        "Try:",
        f"  nsenter --net={site} ping -c 3 {far_v4}",
        f"  nsenter --net={site} ping -c 3 {far_v6}",
        f"  gre-xdp --netns {gateway} show -s",
        f"  gre-xdp --netns {gateway} show passes",
        f"  gre-xdp --netns {gateway} diff {configs['gw-a']}",
        f"  gre-xdp lab shell gw-b{choice}",
        f"  gre-xdp lab down{choice}",
    ]
    return "\n".join(lines)
