"""OSPF over a tunnel: routes are learned from the other site and used by XDP.

site-a ── gw-a (BIRD) ═══ underlay ═══ (BIRD) gw-b ── site-b
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from netns_helpers import Gateway, Sites, config_for, ping, wait_until

# Where `make test` puts it, or where its package does.
BIRD = shutil.which("bird", path=f"{sys.prefix}/bird/usr/sbin:/usr/sbin:/usr/bin")
ADDRESSES = {"ipv4": "10.2.0.2", "ipv6": "2001:db8:b::2"}
OSPF = """
log stderr all;
router id 10.{number}.0.1;
protocol device {{ scan time 1; }}
protocol kernel {{ ipv4 {{ export all; import none; }}; }}
protocol kernel {{ ipv6 {{ export all; import none; }}; }}
protocol ospf v2 {{
    ipv4 {{ import all; export none; }};
    area 0 {{
        interface "fra1" {{ type ptp; hello 1; dead 4; }};
        interface "eth1" {{ stub; }};
    }};
}}
protocol ospf v3 {{
    ipv6 {{ import all; export none; }};
    area 0 {{
        interface "fra1" {{ type ptp; hello 1; dead 4; }};
        interface "eth1" {{ stub; }};
    }};
}}
"""


@contextmanager
def ospf(gateway: Gateway, number: int, directory: Path) -> Iterator[None]:
    """A routing daemon that speaks OSPF on the tunnel and tells its LAN."""
    config = directory / f"bird{number}.conf"
    config.write_text(OSPF.format(number=number))
    assert BIRD is not None
    with (directory / f"bird{number}.log").open("w") as log:
        process = subprocess.Popen(
            gateway.namespace.command(
                [BIRD, "-f", "-c", str(config), "-s", str(directory / f"bird{number}.ctl")]
            ),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield
        finally:
            process.terminate()
            process.wait(10)


@pytest.mark.skipif(BIRD is None, reason="there is no bird: run make test, or install bird2")
def test_ospf_over_the_tunnel(bare_sites: Sites, tmp_path: Path) -> None:
    """Multicast hellos cross, routes appear on the device, and XDP forwards along them."""

    def without_routes(side: str) -> str:
        toml = config_for(side)
        return toml[: toml.index("routes = ")]

    bare_sites.gw_a.apply(without_routes("a"))
    bare_sites.gw_b.apply(without_routes("b"))
    assert ping(bare_sites.site_a, ADDRESSES["ipv4"], "-W", "1", count=1) == 0
    with ExitStack() as daemons:
        daemons.enter_context(ospf(bare_sites.gw_a, 1, tmp_path))
        daemons.enter_context(ospf(bare_sites.gw_b, 2, tmp_path))
        for address in ADDRESSES.values():
            assert wait_until(
                lambda host=address: ping(bare_sites.site_a, host, "-W", "1", count=1) == 1, 30
            ), (tmp_path / "bird1.log").read_text()
        before = bare_sites.gw_a.tunnel().counters
        for address in ADDRESSES.values():
            assert ping(bare_sites.site_a, address, count=10) == 10
        after = bare_sites.gw_a.tunnel().counters
        assert after.tx_packets - before.tx_packets >= 20
        assert bare_sites.gw_a.passes()["multicast"] > 0
        assert "proto bird" in bare_sites.gw_a.run(["ip", "route", "show", "dev", "fra1"]).stdout
