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
import multiprocessing
import os
import re
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from pyroute2 import netns

from fault_injection import Faults
from gre_xdp import (
    abi,
    bpf,
    compiler,
    config,
    datapath,
    history,
    memory,
    pins,
    reconcile,
    tunnel_maps,
)
from gre_xdp.datapath import DataPath
from gre_xdp.lab.topology import Namespace
from gre_xdp.netlink import Netlink, namespaces
from gre_xdp.netlink.addresses import list_addresses
from gre_xdp.netlink.links import list_links
from gre_xdp.netlink.neighbours import list_neighbours
from gre_xdp.netlink.routes import list_own_routes
from gre_xdp_cli.main import cli

_CLONE_NEWNS = 0x00020000
_MS_PRIVATE_ALL = (1 << 18) | 0x4000
_MNT_DETACH = 2
_PR_SET_CHILD_SUBREAPER = 36
_PR_SET_PDEATHSIG = 1
# After so many points where all is old the next apply is carried out to its end; otherwise it is
# that of the next point, which comes as far as the call behind the one that was broken.
_COMPLETE_EACH = 6
_NOT_REACHED = 42
# Maps are made and removed hundreds of times: large ones take the kernel longer than all else.
_MAP_ENTRIES = 512
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
    gateways: Sequence[Namespace],
    directory: Path,
    scenario: Scenario,
    programs: compiler.Bytecode,
    meanwhile: AbstractContextManager[object],
) -> dict[str, Outcome]:
    """Break every call of the way from the old state to the new one; by what was done to them.

    The work is shared out to as many processes as there are gateways. ``meanwhile`` is entered once
    all have reached the old state, and left before the last one leaves it for good.
    """
    workers = []
    for share, namespace in enumerate(gateways):
        place = directory / str(share)
        place.mkdir()
        ours, theirs = multiprocessing.Pipe()
        pid = os.fork()
        if not pid:
            try:
                _isolate(namespace, place)
                Sweep(place, scenario, programs, share, len(gateways)).run(theirs)
            except BaseException:  # noqa: BLE001 - it is told to the test
                theirs.send(traceback.format_exc())
            os._exit(0)
        theirs.close()
        workers.append((pid, ours))
    try:
        for _, worker in workers:
            _expect(worker.recv(), str)
        with meanwhile:
            for _, worker in workers:
                worker.send("go")
            answers = [_expect(worker.recv(), dict) for _, worker in workers]
        for _, worker in workers:
            worker.send("end")
            _expect(worker.recv(), str)
    finally:
        for pid, worker in workers:
            worker.close()
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    total = {effect: Outcome() for effect in EFFECTS}
    for answer in answers:
        for effect, outcome in answer.items():
            total[effect].points += outcome.points
            total[effect].wrong += outcome.wrong
    return total


def _expect(answer: Any, kind: type) -> Any:
    assert isinstance(answer, kind), answer
    assert answer in ("ready", "ended") or kind is dict, answer
    return answer


def _isolate(namespace: Namespace, place: Path) -> None:
    """Go into the namespace; mount nothing for others, and be the parent of orphans."""
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.unshare(_CLONE_NEWNS) == 0
    assert libc.mount(b"none", b"/", None, ctypes.c_ulong(_MS_PRIVATE_ALL), None) == 0
    while pins.is_bpffs_mounted():
        assert libc.umount2(os.fsencode(pins.BPFFS), _MNT_DETACH) == 0
    # As /run is: what is written there does not wait for a disk.
    assert libc.mount(b"tmpfs", os.fsencode(place), b"tmpfs", ctypes.c_ulong(0), None) == 0
    netns.setns(str(namespace.path), flags=0)
    assert libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) == 0


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
        self._points = 0
        self._scenario = scenario
        self._file = directory / "config.toml"
        self._digest = scenario.old.digest
        memory.RUN_DIRECTORY = directory / "run"
        memory._BPFFS_MARK = memory.RUN_DIRECTORY / "bpffs-mounted"
        history.STATE_DIRECTORY = directory / "state"
        for index, spec in abi.MAPS.items():
            abi.MAPS[index] = replace(spec, max_entries=min(spec.max_entries, _MAP_ENTRIES))
        compiler.compile_programs = lambda *_: programs
        datapath._digest_on_disk = lambda: self._digest
        reconcile.source_digest = lambda: self._digest  # type: ignore[assignment]
        roots = (memory.RUN_DIRECTORY, history.STATE_DIRECTORY, pins.BPFFS, _SYSCTLS)
        self._faults = Faults(roots)
        self._faults.install()

    def run(self, test: Connection) -> None:
        """All effects at all points of this share, when the test says so."""
        self._reach(self._scenario.new)
        self._new = fingerprint()
        self._reach(self._scenario.old)
        self._old = fingerprint()
        assert self._old != self._new
        self._life = self._look_at_untouched()
        with self._faults.armed(None, changes=False, at=0):
            assert self._operate().code == 0
        calls = self._faults.calls
        self._reach(self._scenario.old)
        test.send("ready")
        assert test.recv() == "go"
        test.send(
            {
                CHANGE_FAILS: self._sweep(self._fail, calls, changes=True),
                READ_FAILS: self._sweep(self._fail, calls, changes=False),
                KILLED: self._sweep(self._kill, calls, changes=True),
            }
        )
        assert test.recv() == "end"
        self._reach(State(None))
        test.send("ended")

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
            self._points += 1
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
        if self._is_new_but_for_old_programs(found):
            found = self._new
        if found not in (self._old, self._new):
            from_old = _differences(self._old, found)
            yield f"half: {from_old} from old, {_differences(self._new, found)} from new"
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
        if found == self._old and self._points % _COMPLETE_EACH:
            return
        following = self._operate()
        if following != Ended(0, "") or self._diff(new) or fingerprint() != self._new:
            yield f"the next one fails: {following} {_differences(self._new, fingerprint())}"
        life, self._life = self._life, self._look_at_untouched()
        if life is not None and self._life is not None:
            is_growing = all(a <= b for a, b in zip(life.counts, self._life.counts, strict=True))
            if life.ifindex != self._life.ifindex or not is_growing:
                yield f"the untouched tunnel was {life}, and is {self._life}"

    def _is_new_but_for_old_programs(self, found: dict[str, Any]) -> bool:
        """They are removed last of all; what is left of them the next apply removes."""
        old, new = self._scenario.old.digest, self._scenario.new.digest
        rest = {path for path in found["pins"] if f"/programs/{old}" not in path}
        return old != new and {**found, "pins": rest} == self._new

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
            number = tunnel_maps.read(data_path, links).by_name[self._scenario.untouched].id
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
    """Of calls that are alike, the first and the last one."""
    alike: dict[str, list[int]] = {}
    for number, name in enumerate(names):
        alike.setdefault(re.sub(r"/proc/sys/\S+|\d+", "", name), []).append(number)
    return sorted(
        {
            numbers[round(place * (len(numbers) - 1))]
            for numbers in alike.values()
            for place in (0.0, 1.0)
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
                for r in list_own_routes(netlink)
            },
            "addresses": {
                (str(a.address), names[a.ifindex]) for a in list_addresses(netlink) if a.is_ours
            },
            "next hops": {
                (str(n.address), names[n.ifindex]) for n in list_neighbours(netlink) if n.is_kept
            },
            "sysctls": _sysctls(),
            # What the data path learns of neighbours is not what was applied.
            "maps": {use.name: use.entries for use in uses if use.name != "neighbours"},
            "pins": {_named(path, names) for path in pins.BPFFS.glob("gre-xdp/**/*")},
            # An empty one that is noted as ours is as good as none: the next command unmounts it.
            "mounted": pins.is_bpffs_mounted()
            and not (memory.was_bpffs_mounted_by_us() and not any(pins.BPFFS.glob("gre-xdp"))),
            "files": _files(),
        }


def _files() -> dict[str, object]:
    """What is remembered, but for locks that nobody holds and notes for ``show``."""
    is_noted = any(pins.BPFFS.glob("gre-xdp"))
    # The file that becomes the notes is used by the next writer.
    passing = (".lock", ".new") if is_noted else (".lock",)
    found: dict[str, object] = {}
    for path in memory.RUN_DIRECTORY.glob("*"):
        if path.suffix == ".json":
            found[path.name] = sorted(json.loads(path.read_text())["sysctls"].items())
        elif path.suffix not in passing and (is_noted or path != memory._BPFFS_MARK):
            found[path.name] = path.read_text()
    return {name: str(content) for name, content in found.items() if content != []}


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
