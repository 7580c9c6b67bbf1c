"""Nothing that is done to the controller costs a packet: 50,000 a second each way, all numbered.

    site-a ── gw-a ═══ underlay ═══ gw-b ── site-b        (``traffic.bed`` draws all of it)

Each row of ``traffic.faults.FAULTS`` is a row of docs/reliability.md, which ``make reliability``
writes from a run of this module.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from traffic import table
from traffic.bed import BASE, TUNNEL, Bed, bed
from traffic.faults import FAULTS, Fault
from traffic.flow import RATE
from traffic.scraper import Scraper

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
