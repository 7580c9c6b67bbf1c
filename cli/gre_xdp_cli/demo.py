"""The demonstration: TCP through an XDP GRE tunnel to a stock Linux kernel, watched live."""

# ruff: noqa: PLC0415 - pyroute2 loads when the command runs, not for --help

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from gre_xdp.errors import LabError
from gre_xdp_cli import lab as lab_commands
from gre_xdp_cli import output
from gre_xdp_cli.options import Command, Options, pass_options, shared
from gre_xdp_cli.signals import terminable

if TYPE_CHECKING:
    from gre_xdp.lab.lab import Lab
    from gre_xdp.lab.topology import Namespace
    from gre_xdp.status import TunnelStatus

_PREFIX = "gxdemo"
_PINGS = 10
_TCP_PORT = 5201
_EXPORTER_PORT = 9747
_READY_TIMEOUT_S = 10.0
_LIVE_EVERY_S = 1.0


@dataclass(slots=True)
class Seen:
    """What the demonstration has seen, for its last lines."""

    pings_sent: int = 0
    pings_lost: int = 0
    megabits_per_s: float = 0.0
    retransmits: int = 0
    packets: int = 0
    drops: int = 0


@click.command(
    cls=Command,
    needs="root; for a stock kernel as peer a GRE driver, or apt-get install user-mode-linux kmod;"
    " and iperf3",
    examples=("gre-xdp lab demo", "gre-xdp lab demo --seconds 20"),
)
@click.option(
    "--seconds",
    type=click.IntRange(1, 3600),
    default=5,
    show_default=True,
    help="How long iperf3 sends.",
)
@shared()
@pass_options
def demo(options: Options, seconds: int) -> None:
    """Build the lab, send ping and TCP through the tunnel, show the counters, and clean up."""
    lab_commands.require_root()
    seen = Seen()
    with terminable(), _lab(quiet=options.json) as network:
        if not options.json:
            output.say("\n" + lab_commands.picture(network) + "\n")
        for address in ("10.2.0.2", "2001:db8:b::2"):
            _ping(network, address, seen, quiet=options.json)
        _transfer(network, seconds, seen, quiet=options.json)
        tunnel = _tunnel(network)
        seen.packets = tunnel.counters.rx_packets + tunnel.counters.tx_packets
        seen.drops = sum(count.count for count in _snapshot(network).drops)
        if not options.json:
            _show(network)
        kernel = _peer_kernel(network)
    if options.json:
        output.print_json(
            {
                "peer_kernel": kernel,
                "pings_sent": seen.pings_sent,
                "pings_lost": seen.pings_lost,
                "megabits_per_s": round(seen.megabits_per_s, 1),
                "tcp_retransmits": seen.retransmits,
                "packets_through_xdp": seen.packets,
                "drops": seen.drops,
            }
        )
        return
    output.say(
        f"\nSeen: {seen.megabits_per_s:,.0f} Mbit/s of TCP through the tunnel to Linux {kernel}, "
        f"{seen.packets:,} packets through XDP, "
        f"{seen.pings_lost} of {seen.pings_sent} pings lost, {seen.drops} packets dropped by XDP "
        f"({seen.retransmits} TCP retransmits on the way).\n"
        "Everything is removed again. To look around yourself: gre-xdp lab up"
    )


@contextmanager
def _lab(*, quiet: bool) -> Iterator[Lab]:
    """The lab with gateway A applied; whatever happens, nothing of it stays."""
    from gre_xdp.lab.lab import STATE_DIRECTORY, Lab

    prefix = f"{_PREFIX}{os.getpid()}"
    _step("building two sites and a stock Linux kernel as gateway B", quiet)
    network = Lab.up(prefix, peer="kernel")
    try:
        config = STATE_DIRECTORY / prefix / "gw-a.toml"
        config.write_text(network.config_toml("a"))
        _step("gre-xdp apply on gateway A: compile, load, attach, route", quiet)
        lab_commands.run_in(network.nodes["gw-a"].name, "apply", str(config))
        yield network
    finally:
        # A second Ctrl-C must not leave half of it behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        lab_commands.take_down(network)
        signal.signal(signal.SIGINT, before)


def _step(text: str, quiet: bool) -> None:
    if not quiet:
        output.say(f"* {text}")


def _ping(network: Lab, address: str, seen: Seen, *, quiet: bool) -> None:
    done = network.nodes["site-a"].run(
        ["ping", "-n", "-c", str(_PINGS), "-i", "0.1", "-W", "2", address], check=False
    )
    summary = next((line for line in done.stdout.splitlines() if " received" in line), "")
    if not summary:
        raise LabError(
            f"ping {address} from site A: {done.stderr.strip() or done.stdout.strip()}",
            remedy="run gre-xdp lab up and look at gre-xdp show drops there",
        )
    received = int(summary.split(" received")[0].split()[-1])
    seen.pings_sent += _PINGS
    seen.pings_lost += _PINGS - received
    _step(f"ping {address} from site A: {summary}", quiet)


def _transfer(network: Lab, seconds: int, seen: Seen, *, quiet: bool) -> None:
    """TCP by iperf3 from site A to site B, with the counters of gateway A while it runs."""
    server = network.nodes["site-b"].popen(["iperf3", "-s", "-1", "-p", str(_TCP_PORT)])
    _wait_for_listener(network.nodes["site-b"])
    _step(f"iperf3, {seconds} seconds of TCP from site A to site B", quiet)
    client = network.nodes["site-a"].popen(
        ["iperf3", "-J", "-c", "10.2.0.2", "-p", str(_TCP_PORT), "-t", str(seconds)]
    )
    before, then = _tunnel(network), time.monotonic()
    while not _ends_within(client, _LIVE_EVERY_S):
        now, at = _tunnel(network), time.monotonic()
        if not quiet:
            output.say(_rates(before, now, at - then))
        before, then = now, at
    assert client.stdout is not None
    report: dict[str, Any] = json.loads(client.stdout.read() or "{}")
    server.wait(_READY_TIMEOUT_S)
    if "end" not in report or "sum_received" not in report["end"]:
        raise LabError(
            f"iperf3: {report.get('error', 'no result')}",
            remedy="run gre-xdp lab up and try it by hand",
        )
    seen.megabits_per_s = report["end"]["sum_received"]["bits_per_second"] / 1e6
    seen.retransmits = report["end"]["sum_sent"].get("retransmits", 0)


def _ends_within(process: subprocess.Popen[str], seconds: float) -> bool:
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return False
    return True


def _wait_for_listener(node: Namespace) -> None:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while f":{_TCP_PORT}" not in node.run(["ss", "-Hltn"]).stdout:
        if time.monotonic() > deadline:
            raise LabError("iperf3 does not start", remedy="is iperf3 installed?")
        time.sleep(0.05)


def _rates(before: TunnelStatus, now: TunnelStatus, seconds: float) -> str:
    old, new = before.counters, now.counters
    return (
        f"    {now.name}  sent {(new.tx_packets - old.tx_packets) / seconds:9,.0f} packets/s"
        f" {(new.tx_bytes - old.tx_bytes) * 8 / seconds / 1e6:8,.0f} Mbit/s"
        f"   received {(new.rx_packets - old.rx_packets) / seconds:9,.0f} packets/s"
        f" {(new.rx_bytes - old.rx_bytes) * 8 / seconds / 1e6:6,.1f} Mbit/s"
    )


def _snapshot(network: Lab) -> Any:
    from gre_xdp import status

    return network.nodes["gw-a"].call(status.snapshot)


def _tunnel(network: Lab) -> TunnelStatus:
    (tunnel,) = _snapshot(network).tunnels
    found: TunnelStatus = tunnel
    return found


def _show(network: Lab) -> None:
    """The tables that a user would look at, and one scrape."""
    gateway = network.nodes["gw-a"]
    for arguments in (["show", "-s"], ["show", "passes"], ["show", "drops"]):
        output.say(f"\n$ gre-xdp --netns {gateway.name} {' '.join(arguments)}")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gre_xdp_cli.main", "--netns", gateway.name, *arguments],
            check=False,
            capture_output=True,
            text=True,
        )
        output.say((done.stdout or done.stderr).rstrip())
    output.say(f"\n$ curl http://127.0.0.1:{_EXPORTER_PORT}/metrics")
    output.say(_scrape(gateway))


def _scrape(gateway: Namespace) -> str:
    """What Prometheus would read, without comments and zeros."""
    exporter = subprocess.Popen(
        [sys.executable, "-P", "-m", "gre_xdp_cli.main", "--netns", gateway.name, "exporter"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        text = gateway.call(_get_metrics)
    finally:
        exporter.terminate()
        exporter.wait()
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    shown = [line for line in lines if not line.endswith(" 0.0")]
    return "\n".join([*shown, f"({len(lines) - len(shown)} more are 0)"])


def _get_metrics() -> str:
    deadline = time.monotonic() + _READY_TIMEOUT_S
    while True:
        try:
            url = f"http://127.0.0.1:{_EXPORTER_PORT}/metrics"
            with urllib.request.urlopen(url, timeout=5) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _peer_kernel(network: Lab) -> str:
    assert network.peer is not None
    _, text = network.peer.run("uname -r")
    return text.strip() + (" (User-Mode Linux)" if network.kernel == "uml" else "")
