"""Serves the metrics over HTTP: ``/metrics``, ``/-/healthy``, ``/-/ready``, and nothing else."""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
from collections.abc import Callable, Iterable
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from gre_xdp import errors
from gre_xdp.metrics import AgentState, DataPathCollector
from gre_xdp.netlink import NetlinkError
from gre_xdp.status import snapshot

StartResponse = Callable[..., Any]
Environment = dict[str, Any]

_PORT_MAX = 65535
_log = logging.getLogger("gre_xdp.exporter")


class Exporter:
    """An HTTP server bound to one address; raises ``HostError`` when that cannot be had."""

    def __init__(self, listen: str, agent: AgentState | None = None) -> None:
        self._agent = agent
        registry = CollectorRegistry(auto_describe=False)
        registry.register(DataPathCollector(agent))
        self._metrics = make_wsgi_app(registry)
        host, port = split_address(listen)
        server_class = _Ipv6Server if ":" in host else _Server
        try:
            self._server = make_server(
                host, port, self._answer, server_class=server_class, handler_class=_QuietHandler
            )
        except OSError as error:
            raise errors.HostError(
                f"the exporter cannot listen on {listen}: {error.strerror or error}",
                remedy='choose another address for exporter, or "" for none',
                where="exporter",
            ) from error

    @property
    def port(self) -> int:
        """The TCP port that it listens on (of use when 0 was asked for)."""
        return int(self._server.server_address[1])

    def serve_forever(self) -> None:
        """Answer requests until ``close``."""
        self._server.serve_forever()

    def start(self) -> None:
        """Answer requests in a thread."""
        threading.Thread(target=self.serve_forever, name="exporter", daemon=True).start()

    def close(self) -> None:
        """Stop and free the address."""
        self._server.shutdown()
        self._server.server_close()

    def _answer(self, environment: Environment, start: StartResponse) -> Iterable[bytes]:
        path = environment.get("PATH_INFO", "/")
        if path == "/metrics":
            return list(self._metrics(environment, start))
        if path == "/-/healthy":
            return _text(start, "200 OK", "healthy\n")
        if path == "/-/ready":
            if self._agent is not None and not self._agent.reconcile_successful:
                return _text(start, "503 Service Unavailable", "the agent cannot reconcile\n")
            try:
                snapshot()
            except (errors.GreXdpError, NetlinkError, OSError) as error:
                return _text(start, "503 Service Unavailable", f"{error}\n")
            return _text(start, "200 OK", "ready\n")
        return _text(start, "404 Not Found", "try /metrics\n")


def serve(listen: str) -> None:
    """Serve the metrics of the current network namespace until interrupted.

    Raises ``PrivilegeError`` when the pins could not be opened anyway, ``HostError``.
    """
    with contextlib.suppress(errors.NotAppliedError):
        snapshot()
    exporter = Exporter(listen)
    _log.info("metrics on http://%s/metrics", listen)
    exporter.serve_forever()


def split_address(listen: str) -> tuple[str, int]:
    """Split ``127.0.0.1:9747`` or ``[::1]:9747`` into host and port; raises ``ConfigError``."""
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdecimal() or int(port) > _PORT_MAX:
        raise errors.ConfigError(
            f"{listen!r} is not an address to listen on",
            remedy="write HOST:PORT, for instance 127.0.0.1:9747 or [::1]:9747",
            where="exporter",
        )
    return host.removeprefix("[").removesuffix("]"), int(port)


def _text(start: StartResponse, status: str, text: str) -> list[bytes]:
    start(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode()]


class _Server(socketserver.ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Ipv6Server(_Server):
    address_family = socket.AF_INET6


class _QuietHandler(WSGIRequestHandler):
    # Seconds that a silent connection may hold a thread.
    timeout = 10

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Say nothing: scrapes are no events."""
