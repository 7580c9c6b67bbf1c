"""Everything in its order: the file, the machine, the network, interfaces, tunnels."""

from __future__ import annotations

import os
from pathlib import Path

from gre_xdp import config as configuration
from gre_xdp.doctor import facts as reading
from gre_xdp.doctor.facts import Facts
from gre_xdp.doctor.finding import (
    Finding,
    refusal,
)
from gre_xdp.doctor.interfaces import fine, interface_findings
from gre_xdp.doctor.machine import kernel, packages, pins, rights
from gre_xdp.doctor.network import firewall, forwarding, neighbours
from gre_xdp.doctor.tunnels import tunnel_findings
from gre_xdp.errors import ConfigErrors
from gre_xdp.model import Config


def examine(
    path: Path,
    *,
    is_required: bool,
    netns: str | None = None,
    build: bool = True,
    probe: bool = False,
) -> list[Finding]:
    """Look at everything; a file that ``is_required`` must exist, another need not.

    ``build`` compiles and loads the programs, ``probe`` measures the paths to the remotes.
    """
    config = None
    found: list[Finding] = []
    if is_required or os.access(path, os.R_OK):
        try:
            config = configuration.load(path)
        except ConfigErrors as error:
            found = file_findings(error)
    else:
        found = [
            Finding(
                "configuration",
                "note",
                f"there is no {path} that this user can read",
                "only the host was looked at, not what a configuration asks of it",
                "gre-xdp doctor FILE",
            )
        ]
    return found + findings(reading.read(config, netns=netns, build=build, probe=probe), config)


def file_findings(mistakes: ConfigErrors) -> list[Finding]:
    """A broken configuration file as findings, one for each mistake."""
    return [
        Finding(
            "configuration",
            "error",
            f"{mistake.where}: {mistake.message}" if mistake.where else mistake.message,
            "no command takes this file, and nothing that it asks for was looked at",
            mistake.remedy,
        )
        for mistake in mistakes.errors
    ]


def findings(facts: Facts, config: Config | None) -> list[Finding]:
    """Everything that these facts say, also what is as it should be."""
    found = [*kernel(facts), *rights(facts), *packages(facts), *pins(facts)]
    host = facts.host
    if host is None:
        if facts.host_problem is not None:
            why = "interfaces and tunnels could not be looked at"
            found.append(refusal("network", facts.host_problem, why))
        return found
    found += [*firewall(facts, host, config), *neighbours(facts, host)]
    if config is None:
        return found
    found += forwarding(host, config)
    for interface in config.interfaces:
        subject = f"interface {interface.name}"
        found += list(interface_findings(facts, host, config, interface)) or [
            fine(subject, facts, interface)
        ]
    for tunnel in config.tunnels:
        subject = f"tunnel {tunnel.name}"
        found += list(tunnel_findings(facts, host, config, tunnel)) or [
            Finding(subject, "ok", f"{tunnel.local} reaches {tunnel.remote}")
        ]
    return found
