"""The commands that stay: agent and exporter. Results are none; the log goes to stderr."""

# ruff: noqa: PLC0415 - the library loads when a command runs, not for --help

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from gre_xdp_cli import log
from gre_xdp_cli.options import (
    NamespaceCommand,
    Options,
    config_option,
    file_argument,
    netns_option,
    pass_options,
    shared,
)

DEFAULT_LISTEN = "127.0.0.1:9747"


@click.command(
    cls=NamespaceCommand,
    needs="root (CAP_BPF and CAP_NET_ADMIN)",
    examples=(
        "gre-xdp agent",
        "gre-xdp agent ./site.toml --log-format json",
        "kill -HUP PID              # read the configuration file again",
        "kill -USR1 PID             # log more; USR2: less",
    ),
)
@file_argument
@log.options
@shared(config_option, netns_option)
@pass_options
def agent(
    options: Options,
    file: Path | None,
    log_level: str,
    verbose: bool,
    log_format: Literal["text", "json"] | None,
) -> None:
    """Apply, then follow the network and keep the kernel so.

    Follows routes, neighbours and links, reads the file again on SIGHUP, and serves metrics where
    the file says. Ends on SIGTERM or Ctrl-C: tunnels go on without it.
    """
    from gre_xdp import agent as library

    log.start(options, log_format, log_level, verbose=verbose)
    library.run(file or options.config)


@click.command(
    cls=NamespaceCommand,
    needs="root, as the pins in /sys/fs/bpf are root's; it changes nothing",
    examples=(
        "gre-xdp exporter",
        "gre-xdp exporter --listen '[::1]:9747'",
        f"curl http://{DEFAULT_LISTEN}/metrics",
    ),
)
@click.option(
    "--listen",
    metavar="HOST:PORT",
    default=DEFAULT_LISTEN,
    show_default=True,
    help="Where to listen, with --netns inside that namespace.",
)
@log.options
@shared(netns_option)
@pass_options
def exporter(
    options: Options,
    listen: str,
    log_level: str,
    verbose: bool,
    log_format: Literal["text", "json"] | None,
) -> None:
    """Serve metrics to Prometheus, without the agent.

    Reads the pins on every scrape. Paths: /metrics, /-/healthy, /-/ready.
    """
    from gre_xdp import exporter as library

    log.start(options, log_format, log_level, verbose=verbose)
    library.serve(listen)
