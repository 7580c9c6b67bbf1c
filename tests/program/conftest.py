"""The gateway of tests/program/gateway.py, once for each module of tests.

A module of tests has the tunnels over IPv4 that carry IP, and links of 1,500 bytes. One that needs
others says so: ``GATEWAY_TUNNELS`` are names of the gateway's tunnels, ``LINK_MTU`` is in bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings

from program import gateway
from program.bench import Bench

settings.register_profile("gre-xdp", deadline=None)
settings.load_profile("gre-xdp")


@pytest.fixture(scope="module")
def bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
    """The configured gateway, whose counters nobody moves but the tests."""
    tunnels = getattr(request.module, "GATEWAY_TUNNELS", tuple(gateway.TUNNELS))
    with gateway.running(tunnels, getattr(request.module, "LINK_MTU", 1500)) as running:
        yield running
