"""The calculator: what GRE takes of an MTU, and what that does to TCP."""

# ruff: noqa: PLC0415 - pydantic loads when the command runs, not for --help

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import click

from gre_xdp_cli import output
from gre_xdp_cli.options import (
    NamespaceCommand,
    Options,
    config_option,
    netns_option,
    pass_options,
    shared,
)

if TYPE_CHECKING:
    from gre_xdp.model import Tunnel

_ETHERNET_MTU = 1500
_EXAMPLE_ENDS = {"ipv4": ("192.0.2.1", "192.0.2.2"), "ipv6": ("2001:db8::1", "2001:db8::2")}


@click.command(
    cls=NamespaceCommand,
    needs="nothing; --path needs root",
    examples=(
        "gre-xdp mtu                        # keyless IPv4 over 1,500 bytes",
        "gre-xdp mtu --outer ipv6 --key --underlay 9000",
        "gre-xdp mtu fra1                   # a tunnel of the configuration file",
        "sudo gre-xdp mtu --path 198.51.100.7",
    ),
)
@click.argument("tunnel", required=False)
@click.option(
    "--underlay",
    type=click.IntRange(68, 65535),
    metavar="BYTES",
    help="MTU of the underlay, in bytes; else what --path measures, that of the route to TUNNEL's"
    " remote, or 1500.",
)
@click.option("--outer", type=click.Choice(["ipv4", "ipv6"]), default="ipv4", help="Outer family.")
@click.option("--key", is_flag=True, help="With a key.")
@click.option("--csum", is_flag=True, help="With a checksum.")
@click.option("--seq", is_flag=True, help="With sequence numbers.")
@click.option(
    "--payload", type=click.Choice(["ip", "ethernet"]), default="ip", help="What is carried."
)
@click.option(
    "--bytes",
    "transfer_bytes",
    type=click.IntRange(1),
    default=150_000,
    show_default=True,
    metavar="BYTES",
    help="Size of the TCP transfer to reckon with.",
)
@click.option(
    "--path",
    metavar="REMOTE",
    help="Measure the path to this address, and take that as underlay.",
)
@shared(config_option, netns_option)
@pass_options
@click.pass_context
def mtu(
    ctx: click.Context,
    options: Options,
    tunnel: str | None,
    underlay: int | None,
    outer: str,
    key: bool,
    csum: bool,
    seq: bool,
    payload: str,
    transfer_bytes: int,
    path: str | None,
) -> None:
    """Reckon a tunnel's MTU and MSS, header by header, and what a transfer costs with GRE.

    For a TUNNEL of the configuration file, or for one with these options.
    """
    from gre_xdp.model import Tunnel

    if tunnel is not None:
        given = [
            name
            for name in ("outer", "key", "csum", "seq", "payload")
            if ctx.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        ]
        if given:
            raise click.UsageError(f"--{given[0]} contradicts tunnel {tunnel} of the file")
        wanted = _configured(options, tunnel)
    else:
        local, remote = _EXAMPLE_ENDS[outer]
        wanted = Tunnel.model_validate(
            {
                "name": "example",
                "local": local,
                "remote": remote,
                "key": 0 if key else None,
                "csum": csum,
                "seq": seq,
                "payload": payload,
            }
        )
    measured = _measure(path) if path is not None else None
    if underlay is None:
        underlay = measured or (tunnel and _of_route(wanted)) or _ETHERNET_MTU
    answer = _reckon(wanted, underlay, transfer_bytes)
    if measured is not None:
        answer["path_mtu"] = measured
    if options.json:
        output.print_json(answer)
        return
    if measured is not None:
        output.say(f"The path to {path} takes {measured} bytes.\n")
    _print(answer)


def _configured(options: Options, name: str) -> Tunnel:
    from gre_xdp import config, errors

    tunnels = {tunnel.name: tunnel for tunnel in config.load(options.config).tunnels}
    if name not in tunnels:
        raise errors.ConfigError(
            f"there is no tunnel {name}",
            remedy=f"the tunnels are {', '.join(tunnels)}" if tunnels else "the file has none",
            where=str(options.config),
        )
    return tunnels[name]


def _of_route(tunnel: Tunnel) -> int | None:
    from gre_xdp import underlay

    return underlay.current_mtu(tunnel)


def _measure(remote: str) -> int:
    from gre_xdp import path_mtu

    try:
        address = ip_address(remote)
    except ValueError as error:
        raise click.BadParameter(f"{remote} is not an IP address", param_hint="--path") from error
    return path_mtu.measure(address)


def _reckon(tunnel: Tunnel, underlay: int, transfer_bytes: int) -> dict[str, Any]:
    """Everything that is printed, as one JSON object; sizes in bytes."""
    from gre_xdp import errors, overhead

    left = overhead.tunnel_mtu(underlay, tunnel)
    mss = {4: overhead.mss(left, 4), 6: overhead.mss(left, 6)}
    if mss[6] <= 0:
        raise errors.ConfigError(
            f"{underlay} bytes less {overhead.overhead_bytes(tunnel)} of overhead leave {left}:"
            " too little for a TCP segment",
            remedy="reckon with a larger underlay",
        )
    plain = overhead.transfer(transfer_bytes, underlay, 4)
    through = overhead.transfer(transfer_bytes, underlay, 4, tunnel)
    return {
        "underlay_mtu": underlay,
        "headers": overhead.headers(tunnel),
        "overhead": overhead.overhead_bytes(tunnel),
        "tunnel_mtu": left,
        "mss": {"ipv4": mss[4], "ipv6": mss[6]},
        "transfer": {
            "bytes": transfer_bytes,
            "without_gre": {"packets": plain.packets, "wire_bytes": plain.wire_bytes},
            "with_gre": {"packets": through.packets, "wire_bytes": through.wire_bytes},
        },
    }


def _print(answer: dict[str, Any]) -> None:
    mss, transfer = answer["mss"], answer["transfer"]
    rows: list[list[object]] = [["underlay MTU", answer["underlay_mtu"]]]
    rows += [[f"- {name}", size] for name, size in answer["headers"].items()]
    rows += [
        ["= tunnel MTU", answer["tunnel_mtu"]],
        ["TCP MSS, IPv4 (- 40)", mss["ipv4"]],
        ["TCP MSS, IPv6 (- 60)", mss["ipv6"]],
    ]
    output.print_table(["", ">BYTES"], rows)
    without, with_gre = transfer["without_gre"], transfer["with_gre"]
    output.say(f"\nA TCP transfer of {transfer['bytes']:,} bytes over IPv4:")
    output.print_table(
        ["", ">PACKETS", ">BYTES OF IP"],
        [
            ["without GRE", without["packets"], f"{without['wire_bytes']:,}"],
            ["with GRE", with_gre["packets"], f"{with_gre['wire_bytes']:,}"],
        ],
    )
