"""What may be wrong with a tunnel: its ends, the way between them, its size."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from gre_xdp import desired, overhead, preflight, underlay
from gre_xdp.doctor.facts import Facts
from gre_xdp.doctor.finding import (
    Finding,
    gre_xdp_command,
    here,
    mend,
    refusal,
    refused,
    setting,
)
from gre_xdp.errors import GreXdpError
from gre_xdp.host import Host
from gre_xdp.model import Config, Tunnel
from gre_xdp.netlink.routes import Path as Way

_STRICT = 1


def tunnel_findings(facts: Facts, host: Host, config: Config, tunnel: Tunnel) -> Iterator[Finding]:
    """Everything about one tunnel."""
    subject = f"tunnel {tunnel.name}"
    path = host.paths.get((tunnel.local, tunnel.remote))
    yield from _ends(subject, facts, host, tunnel, path)

    def check() -> None:
        mtu = desired.device_mtu_of(tunnel, host, path)
        preflight.Tunnels(config, host).refuse(tunnel, path, mtu)

    error = refused(check)
    if error is not None:
        yield refusal(subject, error)
    yield from _size(subject, facts, host, tunnel, path)
    yield from _reverse_path(subject, facts, host, tunnel)


def _ends(
    subject: str, facts: Facts, host: Host, tunnel: Tunnel, path: Way | None
) -> Iterator[Finding]:
    if not any(each.address.ip == tunnel.local for each in host.addresses):
        address = f"{tunnel.local}/{tunnel.local.max_prefixlen}"
        yield Finding(
            subject,
            "error",
            f"this host does not have the address {tunnel.local}",
            "its packets would not be ours, and the kernel would not send from it",
            f"{shlex.join(here(facts, 'ip', 'addr', 'add', address, 'dev', 'lo'))}, or correct"
            " local",
        )
    if path is None:
        remote = f"{tunnel.remote}/{tunnel.remote.max_prefixlen}"
        command = here(facts, "ip", "route", "add", remote, "via", "GATEWAY")
        yield Finding(
            subject,
            "error",
            f"there is no route to its remote {tunnel.remote}",
            "nothing can be sent to it; apply makes the tunnel, which then waits for a route",
            shlex.join(command),
        )
        return
    egress = host.link_of(path.ifindex)
    is_unresolved = any(
        (each.ifindex, each.address) == (path.ifindex, path.next_hop) and not each.is_resolved
        for each in host.neighbours
    )
    if egress is not None and not egress.is_noarp and not path.is_local and is_unresolved:
        yield Finding(
            subject,
            "warning",
            f"the next hop to its remote, {path.next_hop} on {egress.name}, does not answer",
            "nothing can be sent to the remote until it does",
            shlex.join(here(facts, "ping", "-c", "1", "-I", egress.name, str(path.next_hop))),
        )


def _size(
    subject: str, facts: Facts, host: Host, tunnel: Tunnel, path: Way | None
) -> Iterator[Finding]:
    learned = facts.learned.get((str(tunnel.local), str(tunnel.remote)))
    if learned is not None:
        yield Finding(
            subject,
            "note",
            f"a router said that the way to {tunnel.remote} takes {learned} bytes",
            f"the tunnel carries {overhead.tunnel_mtu(learned, tunnel)} bytes for now",
            gre_xdp_command(facts, f"mtu --path {tunnel.remote}"),
        )
    measured = facts.measured.get(tunnel.remote)
    if isinstance(measured, GreXdpError):
        yield Finding(
            subject,
            "warning",
            measured.message,
            "it cannot be told how long a packet the way to it takes",
            measured.remedy,
        )
    carries = underlay.mtu(path, host.link_of)
    if not isinstance(measured, int) or carries is None:
        return
    fits = overhead.tunnel_mtu(measured, tunnel)
    sends = overhead.tunnel_mtu(carries, tunnel) if tunnel.mtu == "auto" else tunnel.mtu
    if sends > fits:
        yield Finding(
            subject,
            "warning",
            f"the way to {tunnel.remote} takes {measured} bytes, and the tunnel sends up to"
            f" {sends + carries - overhead.tunnel_mtu(carries, tunnel)}",
            "long packets are lost unless routers on the way say so",
            f'set mtu = {fits} for tunnel "{tunnel.name}"',
        )


def _reverse_path(subject: str, facts: Facts, host: Host, tunnel: Tunnel) -> Iterator[Finding]:
    if tunnel.payload == "ethernet":
        return
    is_there = host.is_tunnel_device(tunnel.name)
    if facts.rp_filter.get(tunnel.name if is_there else "default", 0) != _STRICT:
        return
    command = setting(facts, f"ipv4/conf/{tunnel.name}/rp_filter", 2)
    why = "what comes out of the tunnel for this host is lost if its way back is another"
    if is_there:
        yield mend(subject, "warning", f"rp_filter is strict on {tunnel.name}", why, command)
    else:
        yield Finding(
            subject,
            "note",
            f"rp_filter will be strict on {tunnel.name}, as it is for new devices",
            why,
            f"after apply: {shlex.join(command)}",
        )
