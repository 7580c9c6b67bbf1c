"""The commands that stay: agent and exporter. Results are none; the log goes to stderr."""

# ruff: noqa: PLC0415 - the library loads when a command runs, not for --help

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import Literal

import click

from gre_xdp_cli.options import (
    NamespaceCommand,
    Options,
    config_option,
    file_argument,
    netns_option,
    pass_options,
    shared,
    verbose_option,
)

_TEXT_FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
DEFAULT_LISTEN = "127.0.0.1:9747"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and the exception if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Called by logging."""
        fields = {
            "time": self.formatTime(record, "%Y-%m-%dT%H:%M:%S%z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields)


def _start_logging(log_format: str, *, verbose: bool) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        JsonFormatter() if log_format == "json" else logging.Formatter(_TEXT_FORMAT)
    )
    # Only our own loggers speak at length: libraries' debugging is not the user's.
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("gre_xdp").setLevel(logging.DEBUG if verbose else logging.INFO)


_log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    help="Format of the log on stderr; text, or json with -j.",
)


def _format(options: Options, log_format: Literal["text", "json"] | None) -> str:
    return log_format or ("json" if options.json else "text")


@click.command(
    cls=NamespaceCommand,
    needs="root (CAP_BPF and CAP_NET_ADMIN)",
    examples=(
        "gre-xdp agent",
        "gre-xdp agent ./site.toml --log-format json",
        "kill -HUP PID              # read the configuration file again",
    ),
)
@file_argument
@verbose_option
@_log_format_option
@shared(config_option, netns_option)
@pass_options
def agent(
    options: Options,
    file: Path | None,
    verbose: bool,
    log_format: Literal["text", "json"] | None,
) -> None:
    """Apply, then follow the network and keep the kernel so.

    Follows routes, neighbours and links, reads the file again on SIGHUP, and serves metrics where
    the file says. Ends on SIGTERM or Ctrl-C: tunnels go on without it.
    """
    from gre_xdp import agent as library

    _start_logging(_format(options, log_format), verbose=verbose)
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
@verbose_option
@_log_format_option
@shared(netns_option)
@pass_options
def exporter(
    options: Options, listen: str, verbose: bool, log_format: Literal["text", "json"] | None
) -> None:
    """Serve metrics to Prometheus, without the agent.

    Reads the pins on every scrape. Paths: /metrics, /-/healthy, /-/ready.
    """
    from gre_xdp import exporter as library

    _start_logging(_format(options, log_format), verbose=verbose)
    library.serve(listen)
