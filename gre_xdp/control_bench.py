"""Cost of the control plane by number of tunnels: how long each command takes, and what it needs.

Measured in a namespace made for it, once with a device for each tunnel and once with one device for
all. Figures of one run compare with each other: what matters is how they grow.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TypeVar

from gre_xdp import config, metrics, reconcile, status
from gre_xdp.lab.topology import Link, Namespace, Node, Topology
from gre_xdp.model import Config

_T = TypeVar("_T")

ROUTES_PER_TUNNEL = 4
# With a device for each tunnel, and with one for all.
OWN_SIZES = (10, 100, 1_000)
SHARED_SIZES = (10, 1_000, 20_000)

_NODES = (
    Node(
        "gw",
        {"eth0": ("192.0.2.1/24",), "eth1": ("172.16.0.1/24",)},
        {"198.18.0.0/15": "192.0.2.2"},
    ),
    Node("underlay", {"eth0": ("192.0.2.2/24",)}),
    Node("lan", {"eth0": ("172.16.0.2/24",)}),
)
_LINKS = (Link("underlay:eth0", "gw:eth0"), Link("lan:eth0", "gw:eth1"))
_REMOTES = IPv4Network("198.18.0.0/15")
_NEXT_HOPS = IPv4Network("100.64.0.0/10")
_PREFIXES = IPv4Network("10.0.0.0/8")
_PREFIX_BITS = 27
# A new process that finds everything as it should be, as after an agent's restart; its memory.
_ADOPT = """
import resource, sys
from gre_xdp import config, reconcile
from pathlib import Path
outcome = reconcile.keep(config.load(Path(sys.argv[1])), takes_over=True)
assert outcome.steps == [], outcome.steps
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one number of tunnels costs; times in seconds."""

    tunnels: int
    is_shared: bool
    check_s: float  # reading and validating the file
    apply_s: float  # from nothing
    no_op_s: float
    change_s: float  # another TTL for one tunnel
    adopt_s: float  # a new process, from its start to "nothing to do"
    show_s: float
    scrape_s: float
    down_s: float
    adopt_rss_mib: float  # the most that the new process had resident


def run(tunnels: int, *, is_shared: bool) -> Figures:
    """Measure one size; raises ``GreXdpError``."""
    with _gateway() as gateway, TemporaryDirectory() as directory:
        path = Path(directory, "config.toml")
        path.write_text(_text(tunnels, is_shared=is_shared))
        check_s, wanted = _timed(lambda: config.load(path))
        apply_s, _ = _timed(lambda: _apply(gateway, wanted))
        no_op_s, steps = _timed(lambda: _apply(gateway, wanted))
        assert steps == 0
        changed = _with_other_ttl(wanted)
        change_s, steps = _timed(lambda: _apply(gateway, changed))
        assert steps == 1
        _apply(gateway, wanted)
        adopt_s, rss_kib = _timed(lambda: _adopt(gateway, path))
        show_s, snapshot = _timed(lambda: gateway.call(status.snapshot))
        assert len(snapshot.tunnels) == tunnels
        scrape_s, _ = _timed(lambda: gateway.call(metrics.render))
        down_s, _ = _timed(lambda: gateway.call(reconcile.down))
    return Figures(
        tunnels=tunnels,
        is_shared=is_shared,
        check_s=check_s,
        apply_s=apply_s,
        no_op_s=no_op_s,
        change_s=change_s,
        adopt_s=adopt_s,
        show_s=show_s,
        scrape_s=scrape_s,
        down_s=down_s,
        adopt_rss_mib=rss_kib / 1024,
    )


def _timed(function: Callable[[], _T]) -> tuple[float, _T]:
    started = time.perf_counter()
    result = function()
    return time.perf_counter() - started, result


def _apply(gateway: Namespace, wanted: Config) -> int:
    return len(gateway.call(partial(reconcile.apply, wanted)))


def _adopt(gateway: Namespace, path: Path) -> int:
    command = [sys.executable, "-P", "-c", _ADOPT, str(path)]
    done = subprocess.run(
        gateway.command(command), check=True, capture_output=True, text=True, timeout=600
    )
    return int(done.stdout)


@contextmanager
def _gateway() -> Iterator[Namespace]:
    with Topology(f"gxscale{os.getpid()}", _NODES, _LINKS) as network:
        gateway = network.nodes["gw"]
        try:
            yield gateway
        finally:
            gateway.call(reconcile.down)


def _text(tunnels: int, *, is_shared: bool) -> str:
    lines = ['exporter = ""', '[[interface]]\nname = "eth0"', '[[interface]]\nname = "eth1"']
    prefixes = _PREFIXES.subnets(new_prefix=_PREFIX_BITS)
    for n in range(tunnels):
        routes = [f'"{next(prefixes)}"' for _ in range(ROUTES_PER_TUNNEL)]
        lines += [
            "[[tunnel]]",
            f'name = "t{n}"',
            'local = "192.0.2.1"',
            f'remote = "{_nth(_REMOTES, n)}"',
            f"routes = [{', '.join(routes)}]",
        ]
        if is_shared:
            lines += ['device = "pop0"', f'nexthop = "{_nth(_NEXT_HOPS, n)}"']
    return "\n".join(lines) + "\n"


def _nth(network: IPv4Network, n: int) -> IPv4Address:
    return network.network_address + 1 + n


def _with_other_ttl(wanted: Config) -> Config:
    first, *others = wanted.tunnels
    changed = first.model_copy(update={"ttl": 63})
    return wanted.model_copy(update={"tunnels": (changed, *others)})
