"""Nothing that is done to the controller costs a packet: 50,000 a second each way, all numbered.

    site-a ── gw-a ═══ underlay ═══ gw-b ── site-b        (``traffic.bed`` draws all of it)

Each row of ``traffic.faults.FAULTS`` is a row of docs/reliability.md, which ``make reliability``
writes from a run of this module.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import pytest

from gre_xdp import abi
from gre_xdp.datapath import DataPath
from gre_xdp.netlink import namespaces
from gre_xdp.pins import Pins
from netns_helpers import wait_until
from traffic import table
from traffic.bed import BASE, KEY, TUNNEL, Bed, bed
from traffic.faults import FAULTS, Fault
from traffic.flow import RATE
from traffic.scraper import Scraper

T = TypeVar("T")

_RESULTS: dict[str, table.Result] = {}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """The network, shared by all rows: each leaves it as it found it."""
    with bed(tmp_path_factory.mktemp("hitless")) as built:
        yield built


@pytest.fixture(scope="module", autouse=True)
def _document(request: pytest.FixtureRequest) -> Iterator[None]:
    """Write the table, if asked to, of a run that had all rows."""
    yield
    if request.config.getoption("--write-reliability") and len(_RESULTS) == len(FAULTS):
        table.write(_RESULTS)


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_traffic_goes_on(gateway: Bed, fault: Fault) -> None:
    """No packet is lost where that is promised; metrics never go back, and say what was sent."""
    gateway.keep(fault.keeper)
    before = gateway.counted()
    scraper = Scraper(gateway.gateway.namespace, TUNNEL)
    with gateway.traffic() as accounts:
        if fault.keeper != "nobody":
            scraper.start()
        fault.cause(gateway, fault.repetitions)
        gateway.meet(RATE // 2)
    if fault.keeper != "nobody":
        scraper.stop()
        assert scraper.answers > 0
    assert scraper.wrong == []
    assert gateway.gateway.diff(BASE) == []
    counted = [now - then for now, then in zip(gateway.counted(), before, strict=True)]
    _RESULTS[fault.name] = table.Result.of(accounts)
    assert sum(account.sent / account.seconds for account in accounts) >= RATE, accounts
    assert [account.duplicated for account in accounts] == [0, 0]
    if fault.promise:
        assert [account.lost for account in accounts] == [0, 0], accounts
        assert counted == [account.sent for account in accounts]
    else:
        assert all(at <= account.sent for at, account in zip(counted, accounts, strict=True))


def test_what_is_lost_is_seen(gateway: Bed) -> None:
    """A gateway that drops on purpose: the losses counted are the drops it counted, to the packet.

    So a zero above means something, and so does the number sent, which the gateway counts as well.
    """
    gateway.keep("nobody")
    before, dropped_before = gateway.counted(), gateway.gateway.drops().get("key_mismatch", 0)

    def dropped() -> int:
        return gateway.gateway.drops().get("key_mismatch", 0) - dropped_before

    with gateway.traffic() as accounts:
        with _without_endpoint(gateway):
            # More than the source's window: also when nothing arrives any more, it goes on.
            assert wait_until(lambda: dropped() > 1000)
        gateway.meet()
    to_peer, from_peer = accounts
    sent, received = (now - then for now, then in zip(gateway.counted(), before, strict=True))
    assert (to_peer.lost, sent) == (0, to_peer.sent)
    assert (from_peer.lost, received) == (dropped(), from_peer.sent - dropped())
    assert from_peer.lost > 1000


@contextmanager
def _without_endpoint(gateway: Bed) -> Iterator[None]:
    """Take the entry by which packets of the tunnel are known out of the map, for a block."""

    def on_map(function: Callable[[DataPath], T]) -> T:
        def inside() -> T:
            data_path = DataPath.open_existing(Pins.of_namespace(namespaces.cookie()))
            assert data_path is not None
            try:
                return function(data_path)
            finally:
                data_path.close()

        return gateway.gateway.call(inside)

    endpoints = {
        (endpoint.kind, bytes(endpoint.key)): (endpoint, slot)
        for key, slot in on_map(DataPath.endpoints).items()
        for endpoint in [abi.Endpoint.from_buffer_copy(key)]
    }
    endpoint, slot = endpoints[abi.EndpointKind.KEYED, bytes(abi.gre_key(KEY))]
    on_map(lambda data_path: data_path.delete_endpoint(bytes(endpoint)))
    try:
        yield
    finally:
        on_map(lambda data_path: data_path.put_endpoint(endpoint, slot))
