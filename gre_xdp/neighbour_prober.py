"""Keeps the link addresses of neighbours right: those of next hops, and of a LAN that XDP sends to.

The kernel asks again when it uses an entry, and it does not see what XDP sends. So a neighbour that
got another link address without saying so would be sent to in vain for a minute. Here it is asked
every three seconds, as the kernel itself asks: by unicast, the address in use meanwhile.
"""

from __future__ import annotations

import asyncio
import contextlib
import heapq
import logging
import time
from collections.abc import Callable, Hashable, Iterable
from typing import Generic, TypeVar

from gre_xdp import abi, encoding, errors
from gre_xdp.datapath import DataPath
from gre_xdp.netlink import Netlink, NetlinkError, namespaces, probes
from gre_xdp.netlink.neighbours import Neighbour
from gre_xdp.netlink.probes import Hop
from gre_xdp.netlink.routes import Address
from gre_xdp.pins import Pins

_ROUND_S = 3.0
# The kernel looks three times, a second apart, for what is lost, and then rests for five.
_RETRY_S = 0.5
# The data path notes a use at most once a second.
_IN_USE_NS = 5_000_000_000
# A LAN of thousands gets its turn in several rounds.
_NEIGHBOURS_AT_ONCE = 256
_NEXT_HOPS_AT_ONCE = 1024

_log = logging.getLogger("gre_xdp.neighbours")

K = TypeVar("K", bound=Hashable)


class NeighbourProber:
    """One task of the agent; does nothing where no tunnel is.

    ``on_gone`` is called when next hops are no longer kept, should nobody have heard of it.
    """

    def __init__(self, on_gone: Callable[[], None]) -> None:
        self._on_gone = on_gone
        self._next_hops: frozenset[Hop] = frozenset()
        self._lost: set[Hop] = set()
        self._kick = asyncio.Event()
        self._round_at_s = 0.0
        self._turns_of_neighbours: _Turns[bytes] = _Turns()
        self._turns_of_next_hops: _Turns[Hop] = _Turns()

    def follow(self, next_hops: frozenset[Hop]) -> None:
        """These are the next hops that are kept."""
        if new := next_hops - self._next_hops:
            self._lost |= new
            self._kick.set()
        self._next_hops = next_hops

    def note_failed(self, ifindex: int, address: Address) -> None:
        """The kernel has given up a next hop."""
        self._lost.add((ifindex, address))
        self._kick.set()

    async def run(self) -> None:
        """Probe, for ever."""
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._kick.wait(), _RETRY_S if self._lost else _ROUND_S)
            self._kick.clear()
            lost, self._lost = self._lost & self._next_hops, set()
            looked_at = self._next_hops
            try:
                still_lost, gone = await asyncio.to_thread(self._look, lost, looked_at)
                self._lost |= still_lost
                # Others may have been kept instead while we looked.
                if gone & self._next_hops:
                    self._on_gone()
            except (OSError, NetlinkError, errors.GreXdpError) as error:
                # The data plane is being replaced, or removed: the next round will see.
                _log.debug("neighbours were not probed: %s", error)
            if self._lost:
                # However fast the kernel gives up.
                await asyncio.sleep(_RETRY_S / 2)

    def _look(self, lost: set[Hop], next_hops: frozenset[Hop]) -> tuple[set[Hop], set[Hop]]:
        """One round, or between rounds only what is lost; returns what still is, and what went."""
        now_s = time.monotonic()
        is_round = now_s >= self._round_at_s
        chosen = set(lost)
        if is_round:
            self._round_at_s = now_s + _ROUND_S
            chosen.update(self._turns_of_next_hops.choose(next_hops, _NEXT_HOPS_AT_ONCE))
        in_use = self._in_use() if is_round else []
        if not chosen and not in_use:
            return set(), set()
        with Netlink() as netlink:
            result = _see_to_next_hops(netlink, list(chosen), is_round=is_round)
            neighbours = [hop for hop in in_use if hop not in next_hops]
            found = probes.read(netlink, neighbours)
            probes.probe(netlink, [hop for hop, entry in found.items() if _is_the_kernels(entry)])
        return result

    def _in_use(self) -> list[Hop]:
        """The neighbours that it is the turn of, of those that XDP has sent to lately."""
        data_path = DataPath.open_existing(Pins.of_namespace(namespaces.cookie()))
        if data_path is None:
            return []
        try:
            noted = data_path.neighbours() if data_path.is_complete else {}
        finally:
            data_path.close()
        since_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC) - _IN_USE_NS
        used = [key for key, at_ns in noted.items() if at_ns >= since_ns]
        return [
            encoding.decode_next_hop(abi.NextHop.from_buffer_copy(key))
            for key in self._turns_of_neighbours.choose(used, _NEIGHBOURS_AT_ONCE)
        ]


class _Turns(Generic[K]):
    """Chooses some of many, those first whose turn is longest ago."""

    def __init__(self) -> None:
        self._turn = 0
        self._last: dict[K, int] = {}

    def choose(self, items: Iterable[K], limit: int) -> list[K]:
        """At most ``limit`` of them."""
        self._turn += 1
        last = {item: self._last.get(item, 0) for item in items}
        chosen = heapq.nsmallest(limit, last, key=last.__getitem__)
        self._last = last | dict.fromkeys(chosen, self._turn)
        return chosen


def _see_to_next_hops(
    netlink: Netlink, hops: list[Hop], *, is_round: bool
) -> tuple[set[Hop], set[Hop]]:
    """Look for those that the kernel has given up, in a round ask the others."""
    found = probes.read(netlink, hops)
    ours = {hop: entry for hop, entry in found.items() if entry.is_kept}
    probes.retry_kept(netlink, [hop for hop, entry in ours.items() if entry.is_given_up])
    if is_round:
        probes.probe_kept(netlink, [hop for hop, entry in ours.items() if entry.is_to_be_probed])
    return {hop for hop, entry in ours.items() if not entry.is_resolved}, set(hops) - ours.keys()


def _is_the_kernels(entry: Neighbour) -> bool:
    """What a routing daemon has put there is its own to keep right."""
    return entry.is_to_be_probed and not entry.is_external
