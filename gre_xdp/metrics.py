"""The Prometheus metrics: read from the pinned maps and the kernel at every scrape.

The first scrape after a start shows what the data path counted meanwhile: counters live in the
kernel and never go backwards with a restart.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gre_xdp import __version__, compiler, errors
from gre_xdp.agent_counters import AgentCounters
from gre_xdp.netlink import NetlinkError
from gre_xdp.status import UP, ReasonCount, Snapshot, TunnelStatus, snapshot


@dataclass(slots=True)
class AgentState:
    """What only the agent knows; an exporter alone has none of it."""

    last_reload_successful: bool = False
    last_reload_success_timestamp_s: float = 0.0
    reconcile_successful: bool = False
    drift_changes: int = 0
    pending: int = 0
    counters: AgentCounters = field(default_factory=AgentCounters)


class DataPathCollector(Collector):
    """Collects everything that ``docs/metrics.md`` lists."""

    def __init__(self, agent: AgentState | None = None) -> None:
        self._agent = agent
        # An exporter alone writes nothing, and counts anew when it starts.
        self._counters = agent.counters if agent is not None else AgentCounters()

    def describe(self) -> list[Metric]:
        """Nothing: registering must not read the maps."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read once, then tell; a failed read is counted and leaves the other metrics."""
        started = time.perf_counter()
        try:
            found: Snapshot | None = snapshot()
        except (errors.GreXdpError, NetlinkError, OSError):
            found = None
            self._counters.add("scrape_errors")
        if found is not None:
            yield from _tunnels(found.tunnels)
            yield from _reasons(found)
            yield from _interfaces(found)
            yield from _maps(found)
        if self._agent is not None:
            yield from _agent(self._agent)
        yield _build_info()
        yield CounterMetricFamily(
            "gre_xdp_scrape_errors_total",
            "Scrapes that could not read the data path",
            value=self._counters["scrape_errors"],
        )
        yield GaugeMetricFamily(
            "gre_xdp_scrape_duration_seconds",
            "Time that reading the data path took for this scrape",
            value=time.perf_counter() - started,
        )


def render() -> bytes:
    """One scrape of the current network namespace without an agent, in Prometheus' text format."""
    registry = CollectorRegistry()
    registry.register(DataPathCollector())
    return generate_latest(registry)


_TUNNEL_COUNTERS = (
    ("receive_packets", "rx_packets", "Packets decapsulated"),
    ("receive_bytes", "rx_bytes", "Bytes decapsulated, from the inner IP header"),
    ("transmit_packets", "tx_packets", "Packets encapsulated"),
    ("transmit_bytes", "tx_bytes", "Bytes encapsulated, from the inner IP header"),
)


def _tunnels(tunnels: list[TunnelStatus]) -> Iterator[Metric]:
    for name, attribute, text in _TUNNEL_COUNTERS:
        counter = CounterMetricFamily(f"gre_xdp_tunnel_{name}_total", text, labels=["tunnel"])
        for tunnel in tunnels:
            counter.add_metric([tunnel.name], getattr(tunnel.counters, attribute))
        yield counter
    info = GaugeMetricFamily(
        "gre_xdp_tunnel_info",
        "Always 1; what the tunnel is (key: of packets sent, empty without one)",
        labels=["tunnel", "local", "remote", "key", "backing"],
    )
    up = GaugeMetricFamily(
        "gre_xdp_tunnel_up", "1 if the next hop to the remote is resolved", labels=["tunnel"]
    )
    mtu = GaugeMetricFamily(
        "gre_xdp_tunnel_mtu_bytes", "Largest inner packet that fits", labels=["tunnel"]
    )
    path = GaugeMetricFamily(
        "gre_xdp_tunnel_path_mtu_bytes",
        "Longest packet of the underlay on the way to the remote, where routers have said so",
        labels=["tunnel"],
    )
    probed = GaugeMetricFamily(
        "gre_xdp_tunnel_probe_mtu_bytes",
        "Longest IPv6 packet that came back through the tunnel, 0 if none did; with mtu_probe only",
        labels=["tunnel"],
    )
    for tunnel in tunnels:
        if tunnel.probe_mtu is not None:
            probed.add_metric([tunnel.name], tunnel.probe_mtu)
        if tunnel.path_mtu is not None:
            path.add_metric([tunnel.name], tunnel.path_mtu)
        key = "" if tunnel.okey is None else str(tunnel.okey)
        info.add_metric(
            [tunnel.name, str(tunnel.local), str(tunnel.remote), key, tunnel.backing], 1
        )
        up.add_metric([tunnel.name], tunnel.state == UP)
        mtu.add_metric([tunnel.name], tunnel.mtu)
    yield from (info, up, mtu, path, probed)


def _reasons(found: Snapshot) -> Iterator[Metric]:
    yield _counted("gre_xdp_drops_total", "Packets dropped, and why", found.drops)
    yield _counted("gre_xdp_passes_total", "Packets handed to the kernel, and why", found.passes)


def _counted(name: str, text: str, counts: list[ReasonCount]) -> Metric:
    counter = CounterMetricFamily(name, text, labels=["reason"])
    for count in counts:
        counter.add_metric([count.reason.name], count.count)
    return counter


def _interfaces(found: Snapshot) -> Iterator[Metric]:
    info = GaugeMetricFamily(
        "gre_xdp_interface_info",
        "Always 1; an interface that runs the program",
        labels=["interface", "mode", "driver"],
    )
    failures = CounterMetricFamily(
        "gre_xdp_redirect_failures_total",
        "Frames lost at the interface (its tx_dropped; of a veth rx_dropped, too), XDP's included",
        labels=["interface"],
    )
    for interface in found.interfaces:
        info.add_metric([interface.name, interface.mode, interface.driver], 1)
        failures.add_metric([interface.name], interface.redirect_failures)
    yield from (info, failures)


def _maps(found: Snapshot) -> Iterator[Metric]:
    entries = GaugeMetricFamily("gre_xdp_map_entries", "Entries in use", labels=["map"])
    capacity = GaugeMetricFamily("gre_xdp_map_max_entries", "Entries that fit", labels=["map"])
    for use in found.maps:
        entries.add_metric([use.name], use.entries)
        capacity.add_metric([use.name], use.max_entries)
    yield from (entries, capacity)


def _agent(agent: AgentState) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "gre_xdp_config_last_reload_successful",
        "1 if the configuration file was valid and applied when it was last read",
        value=agent.last_reload_successful,
    )
    yield GaugeMetricFamily(
        "gre_xdp_config_last_reload_success_timestamp_seconds",
        "When a configuration was last read and applied",
        value=agent.last_reload_success_timestamp_s,
    )
    yield GaugeMetricFamily(
        "gre_xdp_reconcile_successful",
        "1 if the last look at the kernel could be acted on",
        value=agent.reconcile_successful,
    )
    yield GaugeMetricFamily(
        "gre_xdp_drift_changes",
        "Differences between configuration and kernel that the last look found",
        value=agent.drift_changes,
    )
    yield CounterMetricFamily(
        "gre_xdp_drift_repairs_total",
        "Changes that the agent has made because the kernel or the network had changed",
        value=agent.counters["drift_repairs"],
    )
    yield GaugeMetricFamily(
        "gre_xdp_pending",
        "Interfaces of the configuration that do not exist yet, or are called otherwise",
        value=agent.pending,
    )
    yield CounterMetricFamily(
        "gre_xdp_reconciles_total",
        "How often the agent has looked at the kernel",
        value=agent.counters["reconciles"],
    )
    yield CounterMetricFamily(
        "gre_xdp_netlink_overruns_total",
        "How often the kernel had more to tell than the agent could take, and all was looked at",
        value=agent.counters["netlink_overruns"],
    )


def _build_info() -> Metric:
    info = GaugeMetricFamily(
        "gre_xdp_build_info",
        "Always 1; versions",
        labels=["version", "bcc", "kernel"],
    )
    info.add_metric([__version__, compiler.bcc_version() or "", platform.release()], 1)
    return info


# What the collector above can yield; docs/metrics.md is tested against it.
METRIC_NAMES: tuple[str, ...] = (
    *(f"gre_xdp_tunnel_{name}_total" for name, _, _ in _TUNNEL_COUNTERS),
    "gre_xdp_tunnel_info",
    "gre_xdp_tunnel_up",
    "gre_xdp_tunnel_mtu_bytes",
    "gre_xdp_tunnel_path_mtu_bytes",
    "gre_xdp_tunnel_probe_mtu_bytes",
    "gre_xdp_drops_total",
    "gre_xdp_passes_total",
    "gre_xdp_interface_info",
    "gre_xdp_redirect_failures_total",
    "gre_xdp_map_entries",
    "gre_xdp_map_max_entries",
    "gre_xdp_config_last_reload_successful",
    "gre_xdp_config_last_reload_success_timestamp_seconds",
    "gre_xdp_reconcile_successful",
    "gre_xdp_drift_changes",
    "gre_xdp_drift_repairs_total",
    "gre_xdp_pending",
    "gre_xdp_reconciles_total",
    "gre_xdp_netlink_overruns_total",
    "gre_xdp_build_info",
    "gre_xdp_scrape_errors_total",
    "gre_xdp_scrape_duration_seconds",
)
