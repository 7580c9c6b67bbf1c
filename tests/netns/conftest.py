"""Networks for the tests of this folder: they need root, and clean up after themselves."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from gre_xdp.lab.lab import topology
from netns_helpers import Sites, config_for


@pytest.fixture
def bare_sites(request: pytest.FixtureRequest) -> Iterator[Sites]:
    """The two sites, gateways untouched; whatever a test applies is taken down."""
    del request
    with topology(f"gxt{os.getpid() % 100000}", uml=False) as network:
        sites = Sites(network)
        try:
            yield sites
        finally:
            sites.gw_a.down()
            sites.gw_b.down()


@pytest.fixture(scope="module")
def sites() -> Iterator[Sites]:
    """The two sites joined by a keyless tunnel, shared by the tests of a module."""
    with topology(f"gxm{os.getpid() % 100000}", uml=False) as network:
        found = Sites(network)
        try:
            found.gw_a.apply(config_for("a"))
            found.gw_b.apply(config_for("b"))
            yield found
        finally:
            found.gw_a.down()
            found.gw_b.down()
