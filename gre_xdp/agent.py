"""The agent: applies the configuration, then keeps the kernel so while the network changes.

One loop: netlink events, SIGHUP and a slow timer all lead to the same reconcile. The data plane
does not need the agent: it goes on when the agent dies, and a new one adopts what it finds.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from pathlib import Path

from gre_xdp import agent_counters, agent_lock, errors, mtu_probe, reconcile, rollback, writer_lock
from gre_xdp import config as configuration
from gre_xdp.agent_counters import AgentCounters
from gre_xdp.exporter import Exporter
from gre_xdp.history import History
from gre_xdp.metrics import AgentState
from gre_xdp.model import Config
from gre_xdp.netlink import namespaces
from gre_xdp.netlink.routes import Address
from gre_xdp.network_watch import NetworkWatch
from gre_xdp.pace import DEBOUNCE_S, Pace
from gre_xdp.path_learner import PathLearner
from gre_xdp.plan import Step
from gre_xdp.reconcile import Outcome
from gre_xdp.service_manager import ServiceManager

# Look even when nothing was heard.
_RESYNC_S = 30.0
# Sooner, while something is not as it should be: its end may be something that nobody hears of.
_UNSETTLED_S = 5.0
# The process that watches a change has the first say.
_TAKE_BACK_AFTER_S = 1.0

_log = logging.getLogger("gre_xdp.agent")


def run(path: Path) -> None:
    """Run until SIGTERM or SIGINT; the data plane stays. Raises ``GreXdpError`` at the start."""
    writer_lock.require_root()
    with agent_lock.hold(path):
        asyncio.run(Agent(path).run())


class Agent:
    """One agent for one network namespace and one configuration file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._history = History(path)
        self._config = Config()
        self._state = AgentState(
            counters=AgentCounters(agent_counters.path_of(namespaces.cookie()))
        )
        self._overruns = 0  # that have been counted
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._reload = False
        self._manager = ServiceManager()
        self._rejected = ""  # why the file was not taken when it was read last
        self._failure = ""
        self._has_failed = False  # the last look, as a whole
        self._failure_logged_at = 0.0
        self._is_unsettled = False  # something is refused, or differs and is not repaired
        self._pending: dict[str, str] = {}
        self._watch: NetworkWatch | None = None
        self._pace = Pace()
        self._learner: PathLearner | None = None
        self._reprobe = asyncio.Event()
        self._notes: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """Apply, then follow."""
        # First of all: a SIGHUP while it starts is a reload, too, and not its end.
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._ask_reload)
        if rollback.restore_file_if_over(self._history):
            _log.warning("%s held a change that was never confirmed: taken back", self._path)
        self._config, text = self._read()
        # Before the first look: nothing that happens from then on is missed.
        self._watch = watch = NetworkWatch(self._wake.set)
        watch.follow_config(self._config)
        watch.start()
        outcome = await asyncio.to_thread(reconcile.keep, self._config, takes_over=True)
        self._remember(text)
        self._note_reload(successful=True)
        self._note_outcome(outcome)
        watch.follow_kernel(await asyncio.to_thread(reconcile.next_hops, outcome))
        _log.info("applied %s: %d changes", self._path, len(outcome.steps))
        self._learner = PathLearner(self._believe)
        self._learner.follow(self._config.tunnels)
        for version, heard in self._learner.sockets.items():
            loop.add_reader(heard, self._learner.hear, version)
        exporter = Exporter(self._config.exporter, self._state) if self._config.exporter else None
        if exporter is not None:
            exporter.start()
            _log.info("metrics on http://%s/metrics", self._config.exporter)
        self._manager.ready(self._status())
        tasks = [
            asyncio.create_task(self._stop.wait()),
            asyncio.create_task(watch.run()),
            asyncio.create_task(self._follow()),
            asyncio.create_task(self._probe()),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            self._manager.stopping()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for heard in self._learner.sockets.values():
                loop.remove_reader(heard)
            self._learner.close()
            watch.close()
            if exporter is not None:
                exporter.close()
        _log.info("stopped; the data plane goes on (gre-xdp down removes it)")

    def _read(self) -> tuple[Config, str]:
        """The configuration and the text of its file; raises ``GreXdpError``."""
        text = configuration.decode(configuration.read(self._path), str(self._path))
        return configuration.parse(text, str(self._path)), text

    def _remember(self, text: str) -> None:
        try:
            self._history.note_applied(text)
        except OSError as error:
            _log.warning("what was applied cannot be kept for a rollback: %s", error.strerror)

    def _believe(self, local: Address, remote: Address, mtu: int, until_s: float) -> None:
        """Another process may hold the lock: the loop must not wait for it."""

        async def note() -> None:
            with contextlib.suppress(errors.GreXdpError, OSError):
                if await asyncio.to_thread(reconcile.believe_path_mtu, local, remote, mtu, until_s):
                    self._wake.set()

        task = asyncio.get_running_loop().create_task(note())
        self._notes.add(task)
        task.add_done_callback(self._notes.discard)

    def _ask_reload(self) -> None:
        self._reload = True
        self._wake.set()

    def _rest_s(self) -> float:
        """How long there is nothing to do unless something is heard."""
        rest_s = self._manager.rest_s(_UNSETTLED_S if self._is_unsettled else _RESYNC_S)
        pending = self._history.pending
        if pending is None:
            return rest_s
        until_s = pending.until_s + _TAKE_BACK_AFTER_S
        return min(rest_s, max(DEBOUNCE_S, until_s - time.time()))

    async def _follow(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._wake.wait(), self._rest_s())
            await asyncio.sleep(self._pace.wait_s())
            self._wake.clear()
            with self._pace.looking():
                await self._take_back()
                if self._reload:
                    self._reload = False
                    self._manager.reloading()
                    await self._load()
                    self._manager.ready(self._status())
                await self._reconcile()
            # Here and nowhere else: a round that does not end is what the watchdog is for.
            self._manager.alive(self._status())
            self._keep_pace()

    def _keep_pace(self) -> None:
        """Let the next look wait for its turn, as the last one was."""
        if self._watch is not None:
            self._count("netlink_overruns", self._watch.overruns - self._overruns)
            self._overruns = self._watch.overruns
            self._pace.note_overruns(self._watch.overruns)
        if self._has_failed:
            self._pace.note_failure()
        else:
            self._pace.note_success()

    async def _probe(self) -> None:
        """Ask tunnels that want it whether they carry IPv6, at once and periodically."""
        found: dict[str, tuple[int, float]] = {}
        while True:
            wanted = {
                tunnel.name: address
                for tunnel in self._config.tunnels
                if tunnel.mtu_probe and (address := mtu_probe.address_of(tunnel)) is not None
            }
            # Those that have no answer yet stand there with time 0.
            found = {name: found.get(name, (0, 0.0)) for name in wanted}
            await self._note_probes(found)
            for name, address in wanted.items():
                with contextlib.suppress(OSError):
                    result = await asyncio.to_thread(mtu_probe.probe, name, address)
                    if result.is_carrying != (found[name][0] >= mtu_probe.REQUIRED_BYTES):
                        _log.info("tunnel %s: IPv6 comes back up to %d bytes", name, result.largest)
                    found[name] = (result.largest, result.at_s)
            await self._note_probes(found)
            self._reprobe.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._reprobe.wait(), mtu_probe.INTERVAL_S)

    async def _note_probes(self, found: dict[str, tuple[int, float]]) -> None:
        with contextlib.suppress(errors.GreXdpError):
            await asyncio.to_thread(reconcile.note_probes, dict(found))

    async def _take_back(self) -> None:
        """See to a change that was not confirmed, should its own process have died."""
        pending = self._history.pending
        if pending is None or time.time() < pending.until_s + _TAKE_BACK_AFTER_S:
            return
        try:
            if await asyncio.to_thread(rollback.take_back_if_over, self._history) is not None:
                _log.warning("a change of %s was not confirmed: taken back", self._path)
        except errors.GreXdpError as error:
            _log.error("the former configuration cannot be applied: %s", _explain(error))

    async def _load(self) -> None:
        """Read the file again; a bad one leaves everything as it is."""
        try:
            config, text = self._read()
            steps = await asyncio.to_thread(reconcile.apply, config)
            self._remember(text)
        except errors.GreXdpError as error:
            self._rejected = f"the old configuration stays: {_explain(error)}"
            _log.error("%s", self._rejected)
            self._note_reload(successful=False)
            return
        if config.exporter != self._config.exporter:
            _log.warning("the exporter's address changes when the agent is restarted")
        self._config, self._rejected = config, ""
        if self._learner is not None:
            self._learner.follow(config.tunnels)
        if self._watch is not None:
            self._watch.follow_config(config)
        self._reprobe.set()
        self._note_reload(successful=True)
        _log.info("loaded %s: %d changes", self._path, len(steps))
        self._log_steps("loaded", steps)

    async def _reconcile(self) -> None:
        """Repair or report what differs; next hops are kept up in any case."""
        is_repairing = self._config.drift == "repair"
        self._has_failed = False
        self._count("reconciles")
        try:
            if is_repairing:
                outcome = await asyncio.to_thread(reconcile.keep, self._config)
                self._count("drift_repairs", len(outcome.steps))
            else:
                await asyncio.to_thread(reconcile.keep_next_hops, self._config)
                outcome = await asyncio.to_thread(reconcile.differences, self._config)
        except errors.GreXdpError as error:
            self._note_failure(_explain(error))
            self._has_failed = self._is_unsettled = True
            # What is in the way of the rest is no reason to lose the tunnels that work.
            with contextlib.suppress(errors.GreXdpError):
                await asyncio.to_thread(reconcile.keep_next_hops, self._config)
            return
        self._note_outcome(outcome)
        if self._watch is not None:
            self._watch.follow_kernel(await asyncio.to_thread(reconcile.next_hops, outcome))
        self._state.drift_changes = len(outcome.steps)
        self._is_unsettled = bool(outcome.wanted.refusals)
        if outcome.undone:
            self._note_undone(outcome.undone)
        elif outcome.steps and is_repairing:
            # What was repaired is to be found in order; pins and map entries tell nobody.
            self._wake.set()
        elif outcome.steps:
            self._is_unsettled = True
        self._log_steps("repaired" if is_repairing else "differs", outcome.steps)

    def _note_undone(self, steps: list[Step]) -> None:
        """Somebody changes the same things: they are repaired again, less and less often."""
        objects = ", ".join(step.object for step in steps[:5])
        self._note_failure(
            f"what was repaired did not stay so: {objects};"
            " remedy: something else changes the same things: find out what"
        )
        self._has_failed = self._is_unsettled = True

    def _count(self, name: agent_counters.Name, count: int = 1) -> None:
        self._state.counters.add(name, count)

    def _note_outcome(self, outcome: Outcome) -> None:
        """Say what waits or does not fit, each time that it changes."""
        wanted = outcome.wanted
        if wanted.pending != self._pending:
            for what in wanted.pending.keys() - self._pending.keys():
                _log.warning("%s is pending: %s", what, wanted.pending[what])
            for what in self._pending.keys() - wanted.pending.keys():
                _log.info("%s is no longer pending", what)
            self._pending = wanted.pending
        self._state.pending = len(wanted.pending)
        if wanted.refusals:
            explained = "; ".join(_explain(refusal.error) for refusal in wanted.refusals)
            self._note_failure(explained)
        else:
            self._failure = ""
            self._state.reconcile_successful = True

    def _status(self) -> str:
        """What the service manager shows: what is kept, what waits, and what is wrong."""
        kept = f"tunnels: {len(self._config.tunnels)}, interfaces: {len(self._config.interfaces)}"
        if self._pending:
            kept += f", pending: {len(self._pending)}"
        return "; ".join(part for part in (kept, self._rejected, self._failure) if part)

    def _note_failure(self, explained: str) -> None:
        """Log a failure when it is new, and again with every resync; events may come in floods."""
        now = time.monotonic()
        if explained != self._failure or now - self._failure_logged_at >= _RESYNC_S:
            _log.error("%s", explained)
            self._failure, self._failure_logged_at = explained, now
        self._state.reconcile_successful = False

    def _log_steps(self, what: str, steps: list[Step]) -> None:
        for step in steps:
            _log.info("%s: %s %s (%s)", what, step.action, step.object, step.detail)

    def _note_reload(self, *, successful: bool) -> None:
        self._state.last_reload_successful = successful
        if successful:
            self._state.last_reload_success_timestamp_s = time.time()


def _explain(error: errors.GreXdpError) -> str:
    """Where, what and what to do, on one line."""
    where = f"{error.where}: " if error.where else ""
    return f"{where}{error.message}; remedy: {error.remedy}"
