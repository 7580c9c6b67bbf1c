"""Gateways that run gre-xdp in network namespaces, and what tests do to them."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import time
from collections.abc import Callable
from functools import partial

from gre_xdp import config, reconcile, status
from gre_xdp.lab.topology import Namespace, Topology
from gre_xdp.plan import Step

WAIT_S = 5.0


class Gateway:
    """One namespace that runs gre-xdp."""

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.run = namespace.run
        self.call = namespace.call

    def apply(self, toml: str) -> list[Step]:
        return self.call(partial(reconcile.apply, config.parse(toml, "test.toml")))

    def diff(self, toml: str) -> list[Step]:
        return self.call(partial(reconcile.diff, config.parse(toml, "test.toml")))

    def down(self) -> list[Step]:
        return self.call(reconcile.down)

    def snapshot(self) -> status.Snapshot:
        return self.call(status.snapshot)

    def drops(self) -> dict[str, int]:
        return {c.reason.name: c.count for c in self.snapshot().drops if c.count}

    def passes(self) -> dict[str, int]:
        return {c.reason.name: c.count for c in self.snapshot().passes if c.count}

    def tunnel(self, name: str = "fra1") -> status.TunnelStatus:
        return next(t for t in self.snapshot().tunnels if t.name == name)


def wait_until(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
    """Wait for a condition instead of sleeping; False when it did not come true."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return condition()


def transfer(
    source: Namespace,
    sink: Namespace,
    address: str,
    size: int,
    timeout_s: float = 60.0,
    *,
    from_address: str = "",
) -> bool:
    """Send random bytes over TCP and compare what arrived by its digest."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = sink.call(lambda: socket.create_server((address, 0), family=family))
    server.settimeout(timeout_s)
    port = server.getsockname()[1]
    received = hashlib.sha256()

    def receive() -> None:
        connection, _ = server.accept()
        connection.settimeout(timeout_s)
        with connection:
            while data := connection.recv(1 << 16):
                received.update(data)

    thread = threading.Thread(target=receive, daemon=True)
    thread.start()
    payload = os.urandom(1 << 20)
    sent = hashlib.sha256()
    client = source.call(
        lambda: socket.create_connection(
            (address, port), timeout=timeout_s, source_address=(from_address, 0)
        )
    )
    with client:
        left = size
        while left > 0:
            block = payload[:left]
            client.sendall(block)
            sent.update(block)
            left -= len(block)
    thread.join(timeout_s)
    server.close()
    return received.digest() == sent.digest()


def ping(source: Namespace, address: str, *options: str, count: int = 3) -> int:
    """Replies that a ping got."""
    done = source.run(
        ["ping", "-n", "-c", str(count), "-i", "0.02", "-W", "2", *options, address], check=False
    )
    for line in done.stdout.splitlines():
        if " received" in line:
            return int(line.split(" received")[0].split()[-1])
    return 0


def config_for(side: str, *, key: str = "", extra: str = "") -> str:
    """The configuration of one gateway of the two-site topology."""
    here, there, site = ("1", "2", "b") if side == "a" else ("2", "1", "a")
    network = "2" if side == "a" else "1"
    return f"""
exporter = ""
{extra}
[[interface]]
name = "eth0"

[[interface]]
name = "eth1"

[[tunnel]]
name = "fra1"
local = "192.0.2.{here}"
remote = "192.0.2.{there}"
{key}
addresses = ["169.254.10.{here}/30", "fd00:10::{here}/64"]
routes = ["10.{network}.0.0/24", "2001:db8:{site}::/64"]
"""


class Sites:
    """site-a — gw-a ═ gw-b — site-b, both gateways running gre-xdp."""

    def __init__(self, network: Topology) -> None:
        self.network = network
        self.site_a = network.nodes["site-a"]
        self.site_b = network.nodes["site-b"]
        self.gw_a = Gateway(network.nodes["gw-a"])
        self.gw_b = Gateway(network.nodes["gw-b"])


def send_frames(namespace: Namespace, interface: str, frames: list[bytes]) -> None:
    """Put Ethernet frames on a wire as they are."""

    def send() -> None:
        with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind((interface, 0))
            for frame in frames:
                raw.send(frame)

    namespace.call(send)
