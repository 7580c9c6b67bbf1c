"""The exporter over real HTTP on loopback: its paths, where it listens, and what it tells."""

from __future__ import annotations

import re
import socket
from collections.abc import Callable, Iterator
from functools import partialmethod
from http.client import HTTPConnection
from ipaddress import IPv4Address
from pathlib import Path
from socketserver import BaseServer

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from gre_xdp import abi, errors, exporter, metrics
from gre_xdp.datapath import MapUse
from gre_xdp.exporter import Exporter, split_address
from gre_xdp.metrics import METRIC_NAMES, AgentState, DataPathCollector
from gre_xdp.netlink import NetlinkError
from gre_xdp.reasons import DROP_REASONS, PASS_REASONS
from gre_xdp.status import InterfaceStatus, ReasonCount, Snapshot, TunnelStatus

TIMEOUT_S = 10


def tunnel(name: str, okey: int | None, state: str) -> TunnelStatus:
    return TunnelStatus(
        name=name,
        local=IPv4Address("192.0.2.1"),
        remote=IPv4Address("198.51.100.7"),
        ikey=5,
        okey=okey,
        backing="veth",
        device=name,
        ifindex=10,
        mtu=1476,
        path_mtu=1500 if name == "z" else None,
        mss_ipv4=1436,
        mss_ipv6=1416,
        state=state,
        probe_mtu=1280 if name == "z" else None,
        counters=abi.Counters(rx_packets=1, rx_bytes=2, tx_packets=3, tx_bytes=4),
    )


def interface(name: str, mode: str, redirect_failures: int) -> InterfaceStatus:
    return InterfaceStatus(
        name=name,
        ifindex=2,
        mode=mode,
        program_id=17,
        link_pinned=True,
        driver="veth",
        redirect_failures=redirect_failures,
    )


SNAPSHOT = Snapshot(
    tunnels=[tunnel("fra1", 77, "up"), tunnel("fra2", None, "no_neighbour"), tunnel("z", 0, "up")],
    interfaces=[interface("eth0", "native", 9), interface("eth1", "skb", 0)],
    drops=[ReasonCount(reason, reason.code) for reason in DROP_REASONS],
    passes=[ReasonCount(reason, reason.code) for reason in PASS_REASONS],
    maps=[MapUse("tunnels", 3, 32768), MapUse("devices", 8, 98304)],
    unknown_gre="drop",
    digest="0123456789ab",
    waiting={},
)

Look = Callable[[], Snapshot]


@pytest.fixture
def snapshots(monkeypatch: pytest.MonkeyPatch) -> Callable[[Look], None]:
    """Put something in the place of looking at the kernel."""

    def put(look: Look) -> None:
        monkeypatch.setattr(exporter, "snapshot", look)
        monkeypatch.setattr(metrics, "snapshot", look)

    put(lambda: SNAPSHOT)
    return put


def failing(error: Exception) -> Look:
    def look() -> Snapshot:
        raise error

    return look


NOT_APPLIED = errors.NotAppliedError("gre-xdp is not applied", remedy="gre-xdp apply")


@pytest.fixture
def serve(snapshots: object, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Exporter]]:
    """Start exporters, and stop them at the end."""
    # A server looks every half second whether it shall stop; a hundred tests would wait for that.
    eager = partialmethod(BaseServer.serve_forever, poll_interval=0.005)
    monkeypatch.setattr(BaseServer, "serve_forever", eager)
    started: list[Exporter] = []

    def start(listen: str = "127.0.0.1:0", agent: AgentState | None = None) -> Exporter:
        started.append(Exporter(listen, agent))
        started[-1].start()
        return started[-1]

    yield start
    for each in started:
        each.close()


def get(port: int, path: str, host: str = "127.0.0.1", method: str = "GET") -> tuple[int, str]:
    connection = HTTPConnection(host, port, timeout=TIMEOUT_S)
    try:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


# --- paths ----------------------------------------------------------------------------------------

PATHS = {
    "/metrics": (200, "gre_xdp_build_info"),
    "/metrics?x=1": (200, "gre_xdp_build_info"),
    "/-/healthy": (200, "healthy"),
    "/-/ready": (200, "ready"),
    "/": (404, "/metrics"),
    "/metrics/": (404, "/metrics"),
    "/metrics/x": (404, "/metrics"),
    "/metricsx": (404, "/metrics"),
    "/x/metrics": (404, "/metrics"),
    "/-/": (404, "/metrics"),
    "/-/ready/x": (404, "/metrics"),
    "/-/healthy/": (404, "/metrics"),
    "/favicon.ico": (404, "/metrics"),
}


@pytest.mark.parametrize(("path", "answer"), PATHS.items(), ids=PATHS)
def test_three_paths_answer_and_no_other(
    serve: Callable[..., Exporter], path: str, answer: tuple[int, str]
) -> None:
    """Metrics are under /metrics only, not below it."""
    status, text = get(serve().port, path)
    assert (status, answer[1] in text) == (answer[0], True)
    assert ("# TYPE" in text) == (status == 200 and path.startswith("/metrics"))


NOT_READY = {
    "no data plane": NOT_APPLIED,
    "no permission": errors.PrivilegeError("reading the pinned maps", remedy="run it with sudo"),
    "a map cannot be read": OSError(5, "Input/output error"),
    "a device vanishes meanwhile": NetlinkError(19, "No such device"),
}


@pytest.mark.parametrize("error", NOT_READY.values(), ids=NOT_READY)
def test_without_a_data_plane_it_is_healthy_but_not_ready(
    serve: Callable[..., Exporter], snapshots: Callable[[Look], None], error: Exception
) -> None:
    """The process lives, 503 says why it has nothing to tell, and it recovers by itself."""
    port = serve().port
    snapshots(failing(error))
    assert get(port, "/-/healthy")[0] == 200
    status, text = get(port, "/-/ready")
    assert (status, str(error) in text) == (503, True)
    snapshots(lambda: SNAPSHOT)
    assert get(port, "/-/ready") == (200, "ready\n")


@pytest.mark.parametrize("path", ["/-/healthy", "/-/ready", "/none"])
def test_head_has_the_status_of_get(serve: Callable[..., Exporter], path: str) -> None:
    """Load balancers ask by HEAD."""
    port = serve().port
    assert get(port, path, method="HEAD")[0] == get(port, path)[0]


def test_scrapes_say_nothing(
    serve: Callable[..., Exporter], capfd: pytest.CaptureFixture[str]
) -> None:
    """No access log on either output."""
    get(serve().port, "/metrics")
    assert capfd.readouterr() == ("", "")


# --- where it listens -----------------------------------------------------------------------------


def listeners(port: int) -> set[str]:
    """Local addresses of this namespace's sockets that listen on a port, as the kernel has them."""
    found = set()
    for table in ("tcp", "tcp6"):
        path = Path("/proc/self/net") / table
        lines = path.read_text().splitlines()[1:] if path.exists() else []
        for line in lines:
            _, local, _, state, *_ = line.split()
            address, number = local.rsplit(":", 1)
            if state == "0A" and int(number, 16) == port:
                words = bytes.fromhex(address)
                # The kernel prints 32-bit words in the host's byte order.
                octets = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))
                found.add(
                    socket.inet_ntop(
                        socket.AF_INET if len(octets) == 4 else socket.AF_INET6, octets
                    )
                )
    return found


def has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


needs_ipv6 = pytest.mark.skipif(not has_ipv6_loopback(), reason="there is no IPv6 loopback here")


@pytest.mark.parametrize(
    ("listen", "address"),
    [
        ("127.0.0.1:0", "127.0.0.1"),
        ("127.0.0.2:0", "127.0.0.2"),
        ("0.0.0.0:0", "0.0.0.0"),
        pytest.param("[::1]:0", "::1", marks=needs_ipv6),
    ],
)
def test_it_listens_on_what_was_asked_for_and_nowhere_else(
    serve: Callable[..., Exporter], listen: str, address: str
) -> None:
    """The kernel knows one listening socket, on that address."""
    port = serve(listen).port
    assert listeners(port) == {address}
    assert get(port, "/-/healthy", host=address)[0] == 200


def test_another_address_of_the_host_is_refused(serve: Callable[..., Exporter]) -> None:
    """Asked for 127.0.0.1, it is not there on 127.0.0.2."""
    port = serve("127.0.0.1:0").port
    with pytest.raises(ConnectionRefusedError):
        get(port, "/-/healthy", host="127.0.0.2")


def test_closing_frees_the_address(serve: Callable[..., Exporter]) -> None:
    """The next one may have it at once."""
    first = Exporter("127.0.0.1:0")
    first.start()
    port = first.port
    get(port, "/-/healthy")
    first.close()
    assert listeners(port) == set()
    assert serve(f"127.0.0.1:{port}").port == port


def test_an_address_in_use_is_an_error_with_a_remedy(serve: Callable[..., Exporter]) -> None:
    """It names the address and the key to change."""
    listen = f"127.0.0.1:{serve().port}"
    with pytest.raises(errors.HostError, match=re.escape(listen)) as caught:
        Exporter(listen)
    assert "in use" in caught.value.message
    assert "exporter" in caught.value.remedy
    assert caught.value.where == "exporter"


def test_an_address_of_another_host_is_an_error_with_a_remedy() -> None:
    """Only addresses of this host can be had."""
    with pytest.raises(errors.HostError, match=re.escape("192.0.2.1:9747")) as caught:
        Exporter("192.0.2.1:9747")
    assert caught.value.remedy


ADDRESSES = {
    "127.0.0.1:9747": ("127.0.0.1", 9747),
    "[::1]:9747": ("::1", 9747),
    "[::]:1": ("::", 1),
    "localhost:65535": ("localhost", 65535),
    "127.0.0.1:0": ("127.0.0.1", 0),
}


@pytest.mark.parametrize(("listen", "parts"), ADDRESSES.items(), ids=ADDRESSES)
def test_an_address_is_a_host_and_a_port(listen: str, parts: tuple[str, int]) -> None:
    """IPv6 hosts stand in brackets."""
    assert split_address(listen) == parts


@pytest.mark.parametrize(
    "listen",
    [
        "",
        "9747",
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:http",
        "127.0.0.1:-1",
        "[::1]",
        # What looks like one host's would be every host's.
        ":9747",
        # bind(2) would answer with an OverflowError.
        "127.0.0.1:65536",
    ],
)
def test_what_is_no_address_is_a_mistake_of_the_configuration(listen: str) -> None:
    """The error shows how to write one."""
    with pytest.raises(errors.ConfigError) as caught:
        split_address(listen)
    assert "127.0.0.1:9747" in caught.value.remedy
    assert caught.value.where == "exporter"


# --- metrics --------------------------------------------------------------------------------------

LABELS = {
    "gre_xdp_tunnel_receive_packets_total": {"tunnel"},
    "gre_xdp_tunnel_receive_bytes_total": {"tunnel"},
    "gre_xdp_tunnel_transmit_packets_total": {"tunnel"},
    "gre_xdp_tunnel_transmit_bytes_total": {"tunnel"},
    "gre_xdp_drops_total": {"reason"},
    "gre_xdp_passes_total": {"reason"},
    "gre_xdp_redirect_failures_total": {"interface"},
    "gre_xdp_tunnel_info": {"tunnel", "local", "remote", "key", "backing"},
    "gre_xdp_tunnel_up": {"tunnel"},
    "gre_xdp_tunnel_mtu_bytes": {"tunnel"},
    "gre_xdp_tunnel_path_mtu_bytes": {"tunnel"},
    "gre_xdp_tunnel_probe_mtu_bytes": {"tunnel"},
    "gre_xdp_interface_info": {"interface", "mode", "driver"},
    "gre_xdp_map_entries": {"map"},
    "gre_xdp_map_max_entries": {"map"},
    "gre_xdp_config_last_reload_successful": set(),
    "gre_xdp_config_last_reload_success_timestamp_seconds": set(),
    "gre_xdp_reconcile_successful": set(),
    "gre_xdp_drift_changes": set(),
    "gre_xdp_drift_repairs_total": set(),
    "gre_xdp_pending": set(),
    "gre_xdp_reconciles_total": set(),
    "gre_xdp_netlink_overruns_total": set(),
    "gre_xdp_build_info": {"version", "bcc", "kernel"},
    "gre_xdp_scrape_duration_seconds": set(),
    "gre_xdp_scrape_errors_total": set(),
}
AGENT = AgentState(
    last_reload_successful=True,
    last_reload_success_timestamp_s=1700000000.0,
    drift_changes=2,
    pending=1,
)
AGENT.counters.add("drift_repairs", 5)
AGENT.counters.add("netlink_overruns", 3)
AGENT.counters.add("reconciles", 9)
AGENT_ONLY = {
    n
    for n in LABELS
    if any(w in n for w in ("_config_", "_drift_", "_reconcile", "_pending", "_netlink_"))
}

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def scrape(port: int) -> str:
    status, text = get(port, "/metrics")
    assert status == 200
    return text


def series(text: str) -> Series:
    found: Series = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            key = (sample.name, frozenset(sample.labels.items()))
            assert key not in found, f"{key} twice"
            found[key] = sample.value
    return found


def value(found: Series, name: str, **labels: str) -> float:
    return found[name, frozenset(labels.items())]


def test_every_metric_is_there_with_its_labels(serve: Callable[..., Exporter]) -> None:
    """All that is documented, and nothing else."""
    found = series(scrape(serve(agent=AGENT).port))
    labels: dict[str, set[str]] = {}
    for name, pairs in found:
        labels.setdefault(name, {label for label, _ in pairs})
        assert labels[name] == {label for label, _ in pairs}
    assert labels == LABELS
    assert set(METRIC_NAMES) == set(LABELS)
    assert len(METRIC_NAMES) == len(LABELS)


def test_an_exporter_alone_knows_nothing_of_the_agent(serve: Callable[..., Exporter]) -> None:
    """Zeros would be lies."""
    names = {name for name, _ in series(scrape(serve().port))}
    assert names == set(LABELS) - AGENT_ONLY


@pytest.mark.parametrize(
    ("name", "labels", "number"),
    [
        ("gre_xdp_tunnel_receive_packets_total", {"tunnel": "fra1"}, 1),
        ("gre_xdp_tunnel_receive_bytes_total", {"tunnel": "fra1"}, 2),
        ("gre_xdp_tunnel_transmit_packets_total", {"tunnel": "fra1"}, 3),
        ("gre_xdp_tunnel_transmit_bytes_total", {"tunnel": "fra1"}, 4),
        ("gre_xdp_tunnel_up", {"tunnel": "fra1"}, 1),
        ("gre_xdp_tunnel_up", {"tunnel": "fra2"}, 0),
        ("gre_xdp_tunnel_mtu_bytes", {"tunnel": "fra2"}, 1476),
        ("gre_xdp_tunnel_path_mtu_bytes", {"tunnel": "z"}, 1500),
        ("gre_xdp_tunnel_probe_mtu_bytes", {"tunnel": "z"}, 1280),
        ("gre_xdp_drops_total", {"reason": "unknown_tunnel"}, 1),
        ("gre_xdp_passes_total", {"reason": "egress_unattached"}, 71),
        ("gre_xdp_redirect_failures_total", {"interface": "eth0"}, 9),
        ("gre_xdp_interface_info", {"interface": "eth1", "mode": "skb", "driver": "veth"}, 1),
        ("gre_xdp_map_entries", {"map": "tunnels"}, 3),
        ("gre_xdp_map_max_entries", {"map": "tunnels"}, 32768),
        ("gre_xdp_config_last_reload_successful", {}, 1),
        ("gre_xdp_config_last_reload_success_timestamp_seconds", {}, 1700000000),
        ("gre_xdp_drift_changes", {}, 2),
        ("gre_xdp_drift_repairs_total", {}, 5),
        ("gre_xdp_pending", {}, 1),
        ("gre_xdp_netlink_overruns_total", {}, 3),
        ("gre_xdp_reconciles_total", {}, 9),
        ("gre_xdp_scrape_errors_total", {}, 0),
    ],
)
def test_a_metric_has_the_number_that_was_read(
    serve: Callable[..., Exporter], name: str, labels: dict[str, str], number: float
) -> None:
    """No counter is taken for another."""
    assert value(series(scrape(serve(agent=AGENT).port)), name, **labels) == number


@pytest.mark.parametrize(("name", "key"), [("fra1", "77"), ("fra2", ""), ("z", "0")])
def test_the_key_of_a_tunnel_is_that_of_sent_packets(
    serve: Callable[..., Exporter], name: str, key: str
) -> None:
    """No key is empty, key 0 is "0"."""
    labels = {
        "tunnel": name,
        "local": "192.0.2.1",
        "remote": "198.51.100.7",
        "key": key,
        "backing": "veth",
    }
    assert value(series(scrape(serve().port)), "gre_xdp_tunnel_info", **labels) == 1


def test_every_reason_has_a_counter(serve: Callable[..., Exporter]) -> None:
    """Zeros too: a counter that appears with its first packet cannot be alarmed on."""
    found = series(scrape(serve().port))
    for name, reasons in (
        ("gre_xdp_drops_total", DROP_REASONS),
        ("gre_xdp_passes_total", PASS_REASONS),
    ):
        counted = {dict(labels)["reason"] for each, labels in found if each == name}
        assert counted == {reason.name for reason in reasons}


def test_the_text_is_what_promtool_accepts(serve: Callable[..., Exporter]) -> None:
    """HELP, then TYPE, then samples; once each; counters end in _total and are whole numbers."""
    families: dict[str, str] = {}
    expected = "HELP"
    for line in scrape(serve(agent=AGENT).port).splitlines():
        if line.startswith("# "):
            _, word, name, text = line.split(" ", 3)
            assert word == expected
            assert text
            if word == "HELP":
                assert name not in families, f"{name} is told in two places"
                families[name] = ""
            else:
                assert text in ("counter", "gauge")
                assert (text == "counter") == name.endswith("_total")
                families[name] = text
            expected = "TYPE" if word == "HELP" else "HELP"
            continue
        match = re.fullmatch(r'([a-z][a-z0-9_]*)(?:\{(?:[a-z]+="[^"]*",?)+\})? (\S+)', line)
        assert match, line
        assert match[1] == name
        assert expected == "HELP"
        if families[name] == "counter":
            assert float(match[2]).is_integer()
            assert float(match[2]) >= 0
    assert set(families) == set(METRIC_NAMES)


def test_a_scrape_that_cannot_read_counts_itself_and_tells_the_rest(
    serve: Callable[..., Exporter], snapshots: Callable[[Look], None]
) -> None:
    """The agent's metrics and the build stay; the data path's are absent, not zero."""
    port = serve(agent=AGENT).port
    snapshots(failing(NOT_APPLIED))
    for expected in (1, 2):
        found = series(scrape(port))
        assert value(found, "gre_xdp_scrape_errors_total") == expected
        assert {name for name, _ in found} == AGENT_ONLY | {
            "gre_xdp_build_info",
            "gre_xdp_scrape_errors_total",
            "gre_xdp_scrape_duration_seconds",
        }
    snapshots(lambda: SNAPSHOT)
    found = series(scrape(port))
    assert value(found, "gre_xdp_scrape_errors_total") == 2
    assert value(found, "gre_xdp_tunnel_up", tunnel="fra1") == 1


@pytest.mark.parametrize("error", NOT_READY.values(), ids=NOT_READY)
def test_no_failure_of_the_kernel_ends_a_scrape(
    snapshots: Callable[[Look], None], error: Exception
) -> None:
    """A failed read is counted and leaves the other metrics."""
    snapshots(failing(error))
    found: dict[str, Metric] = {each.name: each for each in DataPathCollector().collect()}
    assert found["gre_xdp_scrape_errors"].samples[0].value == 1
    assert "gre_xdp_build_info" in found


def test_registering_reads_nothing(snapshots: Callable[[Look], None]) -> None:
    """An exporter may start before the data plane, and its first scrape is the first look."""
    looks: list[None] = []

    def look() -> Snapshot:
        looks.append(None)
        return SNAPSHOT

    snapshots(look)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(DataPathCollector())
    assert looks == []
    list(registry.collect())
    assert len(looks) == 1


def test_a_host_without_tunnels_tells_families_without_samples(
    serve: Callable[..., Exporter], snapshots: Callable[[Look], None]
) -> None:
    """The text is still well-formed."""
    snapshots(lambda: Snapshot([], [], [], [], [], "drop", None, {}))
    text = scrape(serve().port)
    assert "# TYPE gre_xdp_tunnel_up gauge" in text
    assert {name for name, _ in series(text)} == {
        "gre_xdp_build_info",
        "gre_xdp_scrape_errors_total",
        "gre_xdp_scrape_duration_seconds",
    }
