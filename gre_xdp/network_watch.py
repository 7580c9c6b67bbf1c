"""What the agent hears of: netlink and pins; and its neighbours, which it has asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

from gre_xdp.model import Config
from gre_xdp.neighbour_prober import NeighbourProber
from gre_xdp.netlink import namespaces
from gre_xdp.netlink.interest import Interest
from gre_xdp.netlink.monitor import Monitor
from gre_xdp.netlink.probes import Hop
from gre_xdp.pin_watch import PinWatch
from gre_xdp.pins import Pins

_log = logging.getLogger("gre_xdp.agent")


class NetworkWatch:
    """Calls ``wake`` for whatever may concern us, from ``start`` to ``close``."""

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._prober = NeighbourProber(wake)
        self._loop = asyncio.get_running_loop()
        self._monitor = Monitor(self._note_change, self._prober.note_failed)
        self._overruns_before = 0  # of former subscriptions
        self._pin_watch: PinWatch | None = None

    def start(self) -> None:
        """Hear of everything from now on; what was before is seen by looking after this."""
        self._loop.add_reader(self._monitor, self._read_netlink)
        try:
            self._pin_watch = PinWatch()
        except OSError as error:
            _log.warning("changed pins are noticed late: inotify: %s", error.strerror)
            return
        self._loop.add_reader(self._pin_watch, self._read_pins)

    def close(self) -> None:
        """Hear of nothing any more."""
        self._loop.remove_reader(self._monitor)
        self._monitor.close()
        if self._pin_watch is not None:
            self._loop.remove_reader(self._pin_watch)
            self._pin_watch.close()

    async def run(self) -> None:
        """Have neighbours asked, for ever."""
        await self._prober.run()

    @property
    def overruns(self) -> int:
        """How often messages have been lost."""
        return self._overruns_before + self._monitor.overruns

    def follow_config(self, config: Config) -> None:
        """Mind what concerns the tunnels of this configuration."""
        ends = [end for tunnel in config.tunnels for end in (tunnel.local, tunnel.remote)]
        prefixes = [prefix for tunnel in config.tunnels for prefix in tunnel.routes]
        self._monitor.interest = Interest.of(ends, prefixes)

    def follow_kernel(self, next_hops: frozenset[Hop]) -> None:
        """Mind these next hops, and the pins that there are now."""
        self._monitor.next_hops = next_hops
        self._prober.follow(next_hops)
        if self._pin_watch is not None:
            place = Pins.of_namespace(namespaces.cookie())
            programs = place.programs.glob("*") if place.programs.is_dir() else ()
            self._pin_watch.watch((place.maps, place.links, place.programs, *programs))

    def _note_change(self, what: str) -> None:
        _log.debug("event %s", what)
        self._wake()

    def _read_netlink(self) -> None:
        try:
            self._monitor.read()
        except OSError as error:
            _log.warning("the netlink subscription ended (%s): subscribing again", error.strerror)
            self._loop.remove_reader(self._monitor)
            self._monitor.close()
            former, self._monitor = (
                self._monitor,
                Monitor(self._note_change, self._prober.note_failed),
            )
            self._monitor.interest, self._monitor.next_hops = former.interest, former.next_hops
            self._overruns_before += former.overruns
            self._loop.add_reader(self._monitor, self._read_netlink)
            # After subscribing, so that nothing is missed between the two.
            self._wake()

    def _read_pins(self) -> None:
        if self._pin_watch is not None:
            self._pin_watch.read()
            self._note_change("pins")
