"""One operation, again and again, with another call of it failing or killed each time.

A process of its own in the gateway's network namespace, with a bpffs and directories of its own,
takes the gateway from one state towards another, breaks it at one call, and looks at what is left:
all of the old state, or all of the new one, and nothing in the way of the next ``apply``.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import io
import itertools
import json
import os
import pickle
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pyroute2 import netns

from fault_injection import Effect, Faults
from gre_xdp import abi, bpf, compiler, config, datapath, history, memory, pins, reconcile
from gre_xdp.datapath import DataPath
from gre_xdp.lab.topology import Namespace
from gre_xdp.netlink import Netlink, namespaces
from gre_xdp.netlink.addresses import list_addresses
from gre_xdp.netlink.links import list_links
from gre_xdp.netlink.neighbours import list_neighbours
from gre_xdp.netlink.routes import list_routes
from gre_xdp.observed import tunnel_entries
from gre_xdp_cli.main import cli

_CLONE_NEWNS = 0x00020000
_MS_PRIVATE_ALL = (1 << 18) | 0x4000
_MNT_DETACH = 2
_PR_SET_CHILD_SUBREAPER = 36
_NOT_REACHED = 42
EFFECTS = CHANGE_FAILS, READ_FAILS, KILLED = ("a change fails", "a read fails", "it is killed")
_SYSCTLS = Path("/proc/sys/net")


@dataclass(frozen=True)
class State:
    """What is applied: a configuration, None for nothing; and from what version of the programs."""

    toml: str | None
    digest: str = "000000000001"


@dataclass(frozen=True)
class Scenario:
    """From one state to another; ``untouched`` is a tunnel that both have."""

    old: State
    new: State
    untouched: str | None = None


@dataclass
class Outcome:
    """How many calls were broken, and what was wrong afterwards."""

    points: int = 0
    wrong: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stderr: str


@dataclass(frozen=True)
class Life:
    """What of a tunnel that is left alone only grows; and its device."""

    ifindex: int
    counts: tuple[int, ...]


def sweep(
    namespaces_: Sequence[Namespace],
    directory: Path,
    scenario: Scenario,
    programs: compiler.Bytecode,
) -> dict[str, Outcome]:
    """Break every call of the way from the old state to the new one; by what was done to them.

    The work is shared out to as many processes as there are namespaces.
    """
    pipes = []
    for share, namespace in enumerate(namespaces_):
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            place = directory / str(share)
            place.mkdir()
            try:
                _isolate(namespace)
                work = Sweep(place, scenario, programs, share, len(namespaces_))
                answer: Any = work.run()
            except BaseException:  # noqa: BLE001 - it is told to the test
                answer = traceback.format_exc()
            with os.fdopen(writer, "wb") as pipe:
                pickle.dump(answer, pipe)
            os._exit(0)
        os.close(writer)
        pipes.append((pid, reader))
    answers = []
    for pid, reader in pipes:
        with os.fdopen(reader, "rb") as pipe:
            answers.append(pickle.load(pipe))  # noqa: S301 - from our own child
        os.waitpid(pid, 0)
    total = {effect: Outcome() for effect in EFFECTS}
    for answer in answers:
        assert isinstance(answer, dict), answer
        for effect, outcome in answer.items():
            total[effect].points += outcome.points
            total[effect].wrong += outcome.wrong
    return total


def _isolate(namespace: Namespace) -> None:
    """Go into the namespace; mount nothing for others, and be the parent of orphans."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(_CLONE_NEWNS) == 0
    assert libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_PRIVATE_ALL), None) == 0
    while pins.is_bpffs_mounted():
        assert libc.umount2(os.fsencode(pins.BPFFS), _MNT_DETACH) == 0
    netns.setns(str(namespace.path), flags=0)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0


class Sweep:
    """All points of one scenario."""

    def __init__(
        self,
        directory: Path,
        scenario: Scenario,
        programs: compiler.Bytecode,
        share: int,
        shares: int,
    ) -> None:
        self._share, self._shares = share, shares
        self._scenario = scenario
        self._file = directory / "config.toml"
        self._digest = scenario.old.digest
        memory.RUN_DIRECTORY = directory / "run"
        memory._BPFFS_MARK = memory.RUN_DIRECTORY / "bpffs-mounted"
        history.STATE_DIRECTORY = directory / "state"
        compiler.compile_programs = lambda *_: programs
        datapath._digest_on_disk = lambda: self._digest
        reconcile.source_digest = lambda: self._digest  # type: ignore[assignment]
        roots = (memory.RUN_DIRECTORY, history.STATE_DIRECTORY, pins.BPFFS, _SYSCTLS)
        self._faults = Faults(roots)
        self._faults.install()

    def run(self) -> dict[str, Outcome]:
        self._reach(self._scenario.new)
        self._new = fingerprint()
        self._reach(self._scenario.old)
        self._old = fingerprint()
        assert self._old != self._new
        self._life = self._look_at_untouched()
        with self._faults.armed(None, changes=False, at=0):
            assert self._operate().code == 0
        calls = self._faults.calls
        try:
            return {
                CHANGE_FAILS: self._sweep(self._fail, calls, changes=True),
                READ_FAILS: self._sweep(self._fail, calls, changes=False),
                KILLED: self._sweep(self._kill, calls, changes=True),
            }
        finally:
            self._reach(State(None))

    def _sweep(
        self,
        break_at: Callable[[bool, int], Ended | None],
        calls: list[tuple[bool, str]],
        *,
        changes: bool,
    ) -> Outcome:
        """Every change, however many there are; a sample of the reads."""
        outcome = Outcome()
        names = [name for is_change, name in calls if is_change == changes]
        points = itertools.count() if changes else iter(_sample(names))
        for at in itertools.islice(points, self._share, None, self._shares):
            self._reach(self._scenario.old)
            ended = break_at(changes, at)
            if ended is None:
                break
            outcome.points += 1
            name = names[at] if at < len(names) else ""
            outcome.wrong += [f"{at} {name}: {wrong}" for wrong in self._judge(ended)]
        return outcome

    # --- breaking -------------------------------------------------------------------------------

    def _fail(self, changes: bool, at: int) -> Ended | None:
        """Let one call fail; None when it did not come to that one."""
        with self._faults.armed("fail", changes=changes, at=at):
            ended = self._operate()
        _reap()
        return ended if self._faults.is_hit else None

    def _kill(self, changes: bool, at: int) -> Ended | None:
        """Kill the process at a call; its guardian is waited for."""
        pid = os.fork()
        if not pid:
            with self._faults.armed("kill", changes=changes, at=at):
                self._operate()
            os._exit(_NOT_REACHED)
        _, status = os.waitpid(pid, 0)
        _reap()
        if os.WIFEXITED(status) and os.WEXITSTATUS(status) == _NOT_REACHED:
            return None
        return Ended(os.waitstatus_to_exitcode(status), "")

    def _operate(self) -> Ended:
        state = self._scenario.new
        self._digest = state.digest
        if state.toml is None:
            return run("down", "--yes", "-j")
        self._file.write_text(state.toml)
        return run("apply", "-j", str(self._file))

    # --- judging --------------------------------------------------------------------------------

    def _judge(self, ended: Ended) -> Iterator[str]:
        """What is wrong after a call was broken."""
        old, new = self._scenario.old, self._scenario.new
        if not is_lock_free():
            yield "the lock is held"
        found = fingerprint()
        if found not in (self._old, self._new):
            yield f"half: {_differences(self._old, found)} from old, {_differences(self._new, found)} from new"
        elif self._diff(old if found == self._old else new):
            yield "diff is not empty"
        if ended.code == 1:
            yield from _wrong_error(ended.stderr)
            if found == self._new:
                yield f"an error, and all is new: {ended.stderr}"
        elif ended.code == 0 and found != self._new:
            yield "no error, and not all is new"
        elif ended.code not in (0, -signal.SIGKILL):
            yield f"ended with {ended.code}: {ended.stderr}"
        following = self._operate()
        if following != Ended(0, "") or self._diff(new) or fingerprint() != self._new:
            yield f"the next one fails: {following} {_differences(self._new, fingerprint())}"
        life, self._life = self._life, self._look_at_untouched()
        if life is not None and self._life is not None:
            is_growing = all(a <= b for a, b in zip(life.counts, self._life.counts, strict=True))
            if life.ifindex != self._life.ifindex or not is_growing:
                yield f"the untouched tunnel was {life}, and is {self._life}"

    def _diff(self, state: State) -> list[Any]:
        self._digest = state.digest
        return reconcile.diff(config.parse(state.toml, "")) if state.toml is not None else []

    def _reach(self, state: State) -> None:
        self._digest = state.digest
        if state.toml is None:
            reconcile.down()
        else:
            reconcile.apply(config.parse(state.toml, ""))
        _reap()

    def _look_at_untouched(self) -> Life | None:
        if self._scenario.untouched is None:
            return None
        with _maps() as (data_path, netlink):
            assert data_path is not None
            links = list_links(netlink)
            entries = tunnel_entries(data_path, links)
            number = next(i for i, t in entries.items() if t.name == self._scenario.untouched)
            counters = data_path.tunnel_counters(number)
            value = bpf.map_lookup(
                data_path._fds[abi.MapIndex.SEQUENCES],
                abi.u32(number),
                ctypes.sizeof(abi.Sequences),
            )
            assert value is not None
            sequences = abi.Sequences.from_buffer_copy(value)
        return Life(
            links[self._scenario.untouched].index,
            (counters.rx_packets, counters.tx_packets, sequences.sent, sequences.received),
        )


def _sample(names: list[str]) -> list[int]:
    """Of calls that are alike, the first, the middle and the last one."""
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        alike.setdefault(re.sub(r"/proc/sys/\S+|\d+", "", name), []).append(number)
    return sorted(
        {
            numbers[round(place * (len(numbers) - 1))]
            for numbers in alike.values()
            for place in (0.0, 0.5, 1.0)
        }
    )


def run(*arguments: str) -> Ended:
    """Run a command of the CLI in this process."""
    error = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        try:
            cli.main(list(arguments))
        except SystemExit as end:
            return Ended(int(end.code or 0), error.getvalue())
    raise AssertionError


def _wrong_error(stderr: str) -> Iterator[str]:
    try:
        error = json.loads(stderr)["error"]
    except ValueError:
        yield f"not one error: {stderr}"
        return
    if error["code"] == "internal" or not error["remedy"]:
        yield f"an internal error: {error}"


def _reap() -> None:
    """Wait for all guardians, ours and those of processes that were killed."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)


def is_lock_free() -> bool:
    """Could a writer write now?"""
    for path in memory.RUN_DIRECTORY.glob("*.lock"):
        with path.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
    return True


@contextlib.contextmanager
def _maps() -> Iterator[tuple[DataPath | None, Netlink]]:
    data_path = DataPath.open_existing(pins.Pins.of_namespace(namespaces.cookie()))
    try:
        with Netlink() as netlink:
            yield data_path, netlink
    finally:
        if data_path is not None:
            data_path.close()


def fingerprint() -> dict[str, object]:
    """Everything that is different between two states, but for numbers that the kernel chooses."""
    with _maps() as (data_path, netlink):
        links = list_links(netlink)
        names = {link.index: link.name for link in links.values()}
        uses = data_path.map_uses() if data_path is not None and data_path.is_complete else []
        return {
            "links": {
                link.name: (
                    link.mtu,
                    link.group,
                    link.is_up,
                    link.is_noarp,
                    link.alias,
                    link.xdp_mode,
                )
                for link in links.values()
            },
            "routes": {
                (str(r.destination), names.get(r.ifindex or 0), r.mtu)
                for r in list_routes(netlink)
                if r.is_ours
            },
            "addresses": {
                (str(a.address), names[a.ifindex]) for a in list_addresses(netlink) if a.is_ours
            },
            "next hops": {
                (str(n.address), names[n.ifindex]) for n in list_neighbours(netlink) if n.is_kept
            },
            "sysctls": _sysctls(),
            "maps": {use.name: use.entries for use in uses},
            "pins": {_named(path, names) for path in pins.BPFFS.glob("gre-xdp/**/*")},
            "mounted": pins.is_bpffs_mounted(),
            "files": {
                path.name: path.read_text()
                for path in memory.RUN_DIRECTORY.glob("*")
                # One that nobody holds is nothing.
                if path.suffix != ".lock"
            },
        }


def _named(path: Path, names: dict[int, str]) -> str:
    """A pin's path, with the device's name for its index."""
    if path.parent.name == "links":
        return str(path.with_name(names.get(int(path.name), path.name)))
    return str(path)


def _sysctls() -> dict[str, str]:
    found = {}
    for path in _SYSCTLS.glob("ipv[46]/conf/*"):
        for name in ("forwarding", "force_forwarding", "accept_ra", "disable_ipv6", "mtu"):
            with contextlib.suppress(FileNotFoundError):
                found[f"{path}/{name}"] = (path / name).read_text()
    return found


def _differences(wanted: dict[str, Any], found: dict[str, Any]) -> str:
    said = []
    for name, value in wanted.items():
        if found[name] != value:
            is_large = isinstance(value, dict)
            old = (
                set(value.items())
                if is_large
                else set(value)
                if isinstance(value, set)
                else {value}
            )
            new = found[name]
            new = set(new.items()) if is_large else set(new) if isinstance(new, set) else {new}
            said.append(f"{name} -{sorted(map(str, old - new))} +{sorted(map(str, new - old))}")
    return "; ".join(said) or "nothing"
