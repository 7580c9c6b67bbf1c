"""Does the tunnel carry IPv6? Asked by gateway A, answered by whoever routes packets back.

site-a ── gw-a (agent, mtu_probe) ═══ underlay ═══ gw-b ── site-b
"""

from __future__ import annotations

import urllib.request
from ipaddress import IPv6Address
from pathlib import Path

import pytest

from agent_helpers import agent
from gre_xdp import mtu_probe
from netns_helpers import Gateway, Sites, config_for, wait_until

ADDRESS = IPv6Address("fd00:10::1")


def probing(*, key: str = "") -> str:
    toml = config_for("a", key=f"mtu_probe = true\n{key}")
    return toml.replace('exporter = ""', 'exporter = "127.0.0.1:9747"')


def is_state(gateway: Gateway, state: str, probe_mtu: int | None) -> bool:
    tunnel = gateway.tunnel()
    return (tunnel.state, tunnel.probe_mtu) == (state, probe_mtu)


def test_a_tunnel_that_carries_ipv6_is_up(bare_sites: Sites, tmp_path: Path) -> None:
    """Duty 21: 1,280 bytes come back, and so does everything up to the tunnel's MTU."""
    bare_sites.gw_b.apply(config_for("b"))
    with agent(bare_sites.gw_a, tmp_path, probing()):
        assert wait_until(lambda: is_state(bare_sites.gw_a, "up", 1476))
        metrics = bare_sites.gw_a.call(
            lambda: urllib.request.urlopen("http://127.0.0.1:9747/metrics").read().decode()
        )
        assert 'gre_xdp_tunnel_probe_mtu_bytes{tunnel="fra1"} 1476.0' in metrics
        # The remote has sent each back once and no more.
        assert bare_sites.gw_b.drops() == {}
    bare_sites.gw_a.down()


@pytest.mark.parametrize("underlay", [1303, 1304, 1400], ids=["too-narrow", "just", "wider"])
def test_the_largest_that_passes_is_found(bare_sites: Sites, tmp_path: Path, underlay: int) -> None:
    """Duty 21: a remote that sends back less than we send is found out, to the byte."""
    bare_sites.gw_b.apply(config_for("b", key=f"mtu = {max(underlay - 24, 1280)}"))
    # The way back is narrower than our own tunnel's MTU says.
    route = ["192.0.2.1/32", "dev", "eth0", "mtu", "lock", str(underlay)]
    bare_sites.gw_b.run(["ip", "route", "add", *route])
    with agent(bare_sites.gw_a, tmp_path, probing()):
        if underlay < 1304:
            assert wait_until(lambda: is_state(bare_sites.gw_a, "down", 0), 10)
        else:
            assert wait_until(lambda: is_state(bare_sites.gw_a, "up", underlay - 24), 20)


def test_without_an_answer_it_is_not_up(bare_sites: Sites, tmp_path: Path) -> None:
    """Duty 21: pending until the first answer is due, then down; the remote's return is seen."""
    with agent(bare_sites.gw_a, tmp_path, probing()) as process:
        assert bare_sites.gw_a.tunnel().state in ("pending", "down")
        assert wait_until(lambda: is_state(bare_sites.gw_a, "down", 0), 10)
        bare_sites.gw_b.apply(config_for("b"))
        process.send_signal(1)  # SIGHUP: asks again at once, as the interval is long
        assert wait_until(lambda: is_state(bare_sites.gw_a, "up", 1476), 10)


def test_a_probe_goes_back_once(bare_sites: Sites) -> None:
    """A remote forwards it with its last hop; what is no probe is looped_back as ever."""
    bare_sites.gw_a.apply(config_for("a"))
    bare_sites.gw_b.apply(config_for("b"))
    before = bare_sites.gw_b.tunnel().counters
    result = bare_sites.gw_a.call(lambda: mtu_probe.probe("fra1", ADDRESS))
    assert result.largest == 1476
    after = bare_sites.gw_b.tunnel().counters
    assert after.tx_packets - before.tx_packets >= 2
    assert after.rx_packets - before.rx_packets <= 6
