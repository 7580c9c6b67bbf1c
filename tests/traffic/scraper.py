"""Reads an agent's or exporter's metrics again and again, and holds counters to their promise."""

from __future__ import annotations

import http.client
import socket
import threading
from functools import partial

from prometheus_client.parser import text_string_to_metric_families

from gre_xdp.lab.topology import Namespace

PORT = 9747
_INTERVAL_S = 0.05
_TIMEOUT_S = 5.0

Series = tuple[str, tuple[tuple[str, str], ...]]


def read(namespace: Namespace) -> dict[Series, float]:
    """All counters by name and labels; raises ``OSError`` when nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=_TIMEOUT_S)
    connection.sock = namespace.call(
        partial(socket.create_connection, ("127.0.0.1", PORT), _TIMEOUT_S)
    )
    try:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        if family.type == "counter"
        for sample in family.samples
    }


def tunnel_packets(counters: dict[Series, float], tunnel: str) -> tuple[float, float]:
    """What a tunnel has sent and received; raises ``KeyError`` when it is not there."""
    labels = (("tunnel", tunnel),)
    return (
        counters["gre_xdp_tunnel_transmit_packets_total", labels],
        counters["gre_xdp_tunnel_receive_packets_total", labels],
    )


class Scraper(threading.Thread):
    """Scrapes until stopped; ``wrong`` says what no scrape may ever show."""

    def __init__(self, namespace: Namespace, tunnel: str) -> None:
        super().__init__(daemon=True)
        self._namespace = namespace
        self._tunnel = tunnel
        self._is_over = threading.Event()
        self._highest: dict[Series, float] = {}
        self.answers = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        """Once every interval; that nobody answers while a process starts is no fault."""
        while not self._is_over.wait(_INTERVAL_S):
            try:
                counters = read(self._namespace)
            except OSError:
                continue
            self._judge(counters)
            self.answers += 1

    def _judge(self, counters: dict[Series, float]) -> None:
        try:
            tunnel_packets(counters, self._tunnel)
        except KeyError:
            self.wrong.append(f"a scrape without counters of {self._tunnel}")
        for series, value in counters.items():
            before = self._highest.get(series, 0.0)
            if value < before:
                self.wrong.append(f"{series} went from {before} to {value}")
            self._highest[series] = max(before, value)

    def stop(self) -> None:
        """End; returns when the last scrape is over."""
        self._is_over.set()
        self.join(_TIMEOUT_S * 2)
