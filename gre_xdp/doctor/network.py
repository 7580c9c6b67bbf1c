"""What XDP goes around, and what the whole network namespace needs."""

from __future__ import annotations

from collections.abc import Iterator

from gre_xdp import preflight
from gre_xdp.doctor.facts import Facts
from gre_xdp.doctor.finding import (
    Finding,
    list_chain,
    mend,
    refusal,
    refused,
)
from gre_xdp.host import Host
from gre_xdp.model import Config

_FULL = 0.8  # of a neighbour table


def firewall(facts: Facts, host: Host, config: Config | None) -> Iterator[Finding]:
    """Chains and rules that forwarded packets do not meet."""
    if not facts.machine.is_root:
        return
    is_allowed = config is not None and config.bypass_firewall
    if config is not None:
        error = refused(lambda: preflight.refuse_firewall(config, host))
        if error is not None:
            yield refusal("firewall", error)
    for chain in host.forward_chains:
        if is_allowed or config is None:
            yield Finding(
                "firewall",
                "note" if is_allowed else "warning",
                f"forwarded packets meet the chain {chain.name}, but not those that XDP forwards",
                "bypass_firewall = true allows it"
                if is_allowed
                else "apply refuses to forward around it without bypass_firewall = true",
                list_chain(facts, chain.name),
            )
    for other in facts.chains:
        yield Finding(
            "firewall",
            "note" if is_allowed or not other.is_nat else "warning",
            f"the {'NAT ' if other.is_nat else ''}chain {other.name} ({other.hook}) has rules",
            "packets that XDP forwards are not translated"
            if other.is_nat
            else "packets that XDP forwards do not meet it",
            list_chain(facts, other.name),
        )
    if not host.forward_chains and not facts.chains:
        yield Finding("firewall", "ok", "no chain that XDP would bypass has rules")


def neighbours(facts: Facts, host: Host) -> Iterator[Finding]:
    """Room in the neighbour tables."""
    for version, limit in facts.neighbour_limits.items():
        entries = sum(
            each.address.version == version and not each.is_kept and not each.is_static
            for each in host.neighbours
        )
        if entries < _FULL * limit:
            yield Finding("neighbours", "ok", f"IPv{version}: {entries} of at most {limit}")
            continue
        yield mend(
            "neighbours",
            "warning",
            f"IPv{version}: {entries} neighbours, and at {limit} the table is full",
            "then the kernel finds no MAC addresses of LAN hosts any more",
            ("sysctl", "-w", f"net.ipv{version}.neigh.default.gc_thresh3={4 * limit}"),
        )


def forwarding(host: Host, config: Config) -> Iterator[Finding]:
    """What apply switches on for the whole namespace."""
    """Before Linux 6.17 IPv6 forwarding cannot be switched on for some interfaces alone."""
    is_off = "0" in host.ipv6_forwarding.values()
    if config.interfaces and is_off and not host.has_force_forwarding and not host.attached:
        yield Finding(
            "forwarding",
            "note",
            "apply will switch IPv6 forwarding on for the whole host",
            "before Linux 6.17 the kernel answers packets that are too big only then; down"
            " restores it",
        )
