"""What is done to a gateway under traffic: each ``Fault`` is a row of docs/reliability.md."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from itertools import chain, cycle, islice
from pathlib import Path

import pytest

from gre_xdp import abi, agent_lock, compiler, datapath, errors, memory, steps
from gre_xdp.datapath import DataPath
from gre_xdp.netlink import namespaces
from gre_xdp.pins import Pins
from netns_helpers import wait_until
from traffic.bed import BASE, START_TIMEOUT_S, Bed, Keeper, gateway_a

PACKETS_UNDISTURBED = 150_000
LOADED = "loaded "
REFUSED = "the old configuration stays"


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that happens, a number of times; ``cause`` leaves the gateway as it found it.

    ``promise`` is false where packets may be lost, and ``note`` then says why.
    """

    name: str
    repetitions: int
    keeper: Keeper
    cause: Callable[[Bed, int], None]
    promise: bool = True
    note: str = ""


# --- programs -------------------------------------------------------------------------------------


@contextmanager
def release(number: int) -> Iterator[str]:
    """Let this process be another release, whose C differs by a comment; yields its digest."""
    with tempfile.TemporaryDirectory(prefix="gre-xdp-release-") as directory:
        sources = Path(directory, "bpf")
        shutil.copytree(compiler.source_dir(), sources)
        main = sources / compiler.MAIN_SOURCE
        main.write_text(f"{main.read_text()}/* release {number} */\n")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(compiler, "source_dir", lambda: sources)
            datapath.source_digest.cache_clear()
            try:
                yield datapath.source_digest()
            finally:
                datapath.source_digest.cache_clear()


def swap_programs(bed: Bed, repetitions: int) -> None:
    """Two releases are loaded, and one replaces the other on every device, back and forth."""

    def inside() -> None:
        data_path = DataPath.open_existing(Pins.of_namespace(namespaces.cookie()))
        assert data_path is not None
        ours = datapath.source_digest()
        try:
            with release(0) as other:
                data_path.load_programs(other)
            programs = datapath.program_ids([data_path.pins])
            devices = {link.ifindex: programs[link.program_id][0] for link in data_path.links()}
            for digest in islice(cycle((other, ours)), repetitions):
                for ifindex, program in devices.items():
                    data_path.attach(ifindex, program, digest, "native")
                assert {programs[link.program_id][1] for link in data_path.links()} == {digest}
                bed.meet()
            data_path.prune_programs(ours)
        finally:
            data_path.close()

    bed.gateway.call(inside)


def upgrade(bed: Bed, repetitions: int) -> None:
    """Another release applies the same file, and then this one again."""
    for number in range(repetitions):
        if number % 2 == 0:
            with release(number):
                assert bed.gateway.apply(BASE)
        else:
            assert bed.gateway.apply(BASE)
        bed.meet()


def change_layout(bed: Bed, repetitions: int) -> None:
    """A version with other pins takes over, and then this one again."""
    for number in range(repetitions):
        with pytest.MonkeyPatch.context() as patch:
            if number % 2 == 0:
                patch.setattr(abi, "PIN_VERSION", abi.PIN_VERSION + 1)
            datapath.source_digest.cache_clear()
            assert bed.gateway.apply(BASE)
            bed.meet()
    datapath.source_digest.cache_clear()


# --- the agent ------------------------------------------------------------------------------------


def do_nothing(bed: Bed, repetitions: int) -> None:
    """Traffic alone, with the agent beside it."""
    for _ in range(repetitions):
        bed.meet(PACKETS_UNDISTURBED)


def kill_agent(bed: Bed, repetitions: int) -> None:
    """Kill -9 while it starts, while it changes something, when it has done so, and at rest.

    Each start finds something to change.
    """
    for number, moment in zip(range(repetitions), cycle(Moment), strict=False):
        bed.kill()
        bed.path.write_text(gateway_a(others={"ams1": 101 - number % 2}))
        since = bed.logged()
        bed.start("agent")
        assert wait_until(partial(has_come, bed, moment, since), START_TIMEOUT_S)
        bed.meet()
    bed.kill()
    bed.path.write_text(BASE)
    since = bed.logged()
    bed.start("agent")
    bed.wait_for_log("applied ", since)
    bed.wait_for_answer()


class Moment(Enum):
    """When an agent is killed."""

    STARTING = auto()
    WRITING = auto()
    APPLIED = auto()
    RESTING = auto()


def has_come(bed: Bed, moment: Moment, since: int) -> bool:
    """Is the agent that far, or further?"""
    if "applied " in bed.log.read_bytes()[since:].decode():
        return moment is not Moment.RESTING or bed.answers()
    if moment is Moment.STARTING:
        return bed.gateway.call(agent_lock.running) is not None
    return moment is Moment.WRITING and is_writing(bed)


def is_writing(bed: Bed) -> bool:
    """Does somebody hold the lock of those who change the gateway?"""
    path = memory.RUN_DIRECTORY / f"{bed.gateway.call(namespaces.cookie)}.lock"
    try:
        with path.open() as lock:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def restart_agent(bed: Bed, repetitions: int) -> None:
    """Stop it and start it, as a service manager does."""
    for _ in range(repetitions):
        bed.stop()
        bed.meet()
        since = bed.logged()
        bed.start("agent")
        bed.wait_for_log("applied ", since)
        bed.meet()
    bed.wait_for_answer()


def reload_agent(bed: Bed, repetitions: int) -> None:
    """Another file, then a bad one that it refuses, and so on."""
    for number in range(repetitions):
        if number % 2:
            reload(bed, BASE + 'rubbish = "yes"\n', REFUSED)
        else:
            reload(bed, gateway_a(others={"ams1": 101 - number // 2 % 2}), LOADED)
    reload(bed, BASE, LOADED)


def reload(bed: Bed, toml: str, answer: str) -> None:
    """Write a file, and wait for the agent's answer to it."""
    bed.path.write_text(toml)
    since = bed.logged()
    assert bed.process is not None
    bed.process.send_signal(signal.SIGHUP)
    bed.wait_for_log(answer, since)
    bed.meet()


def restart_exporter(bed: Bed, repetitions: int) -> None:
    """Stop it, or kill -9 it, and start it."""
    for number in range(repetitions):
        if number % 2:
            bed.kill()
        else:
            bed.stop()
        bed.start("exporter")
        bed.wait_for_answer()
        bed.meet()


# --- changes --------------------------------------------------------------------------------------


def apply_each(*tomls: str) -> Callable[[Bed, int], None]:
    """Apply these in turn, and at last the usual one."""

    def cause(bed: Bed, repetitions: int) -> None:
        for toml in islice(cycle(tomls), repetitions):
            bed.gateway.apply(toml)
            bed.meet()
        bed.gateway.apply(BASE)

    return cause


def change_settings(bed: Bed, repetitions: int) -> None:
    """Each setting that the other end need not agree to, there and back."""
    there_and_back = chain.from_iterable((gateway_a(each), BASE) for each in cycle(SETTINGS))
    for toml in islice(there_and_back, repetitions):
        assert bed.gateway.apply(toml)
        bed.meet()


def add_and_remove(bed: Bed, repetitions: int) -> None:
    """Tunnels that nobody has had before, ten at a time."""
    for number in range(repetitions):
        others = {f"t{number}x{at}": 101 + number * 10 + at for at in range(10)}
        assert bed.gateway.apply(gateway_a(others={"ams1": 100, **others}))
        bed.meet()
        assert bed.gateway.apply(BASE)
        bed.meet()


def fail_to_apply(bed: Bed, repetitions: int) -> None:
    """The kernel has no room for an address, late in the plan: all that was done is undone."""

    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    addresses = ("169.254.10.1/30", "169.254.11.1/30")
    more = gateway_a("mtu = 1400\nttl = 9", addresses=addresses, others={"ams1": 101, "x": 102})
    for _ in range(repetitions):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(steps.addresses, "add", refuse)
            with pytest.raises(errors.ApplyError):
                bed.gateway.apply(more)
        bed.meet()
        assert bed.gateway.diff(BASE) == []


def confirm(bed: Bed, repetitions: int) -> None:
    """A change that is confirmed, and another back."""
    for number in range(repetitions):
        bed.path.write_text(gateway_a("ttl = 9") if number % 2 == 0 else BASE)
        bed.cli("apply", "--confirm-within", "60")
        bed.meet()
        bed.cli("confirm")
        bed.meet()


def do_not_confirm(bed: Bed, repetitions: int) -> None:
    """A change that nobody confirms is taken back."""
    for _ in range(repetitions):
        bed.path.write_text(gateway_a("ttl = 9"))
        bed.cli("apply", "--confirm-within", "1")
        assert bed.path.read_text() != BASE
        assert wait_until(lambda: bed.path.read_text() == BASE, 20)
        assert wait_until(lambda: bed.gateway.diff(BASE) == [], 20)
        bed.meet()


def roll_back(bed: Bed, repetitions: int) -> None:
    """A change, and the way back from it."""
    for _ in range(repetitions):
        bed.path.write_text(gateway_a("ttl = 9"))
        bed.cli("apply")
        bed.meet()
        bed.cli("rollback")
        assert bed.path.read_text() == BASE
        bed.meet()


# --- the network ----------------------------------------------------------------------------------


def flush_neighbours(bed: Bed, repetitions: int) -> None:
    """Somebody flushes the neighbour table; the agent has the next hop resolved again."""
    for _ in range(repetitions):
        bed.gateway.run(["ip", "neigh", "flush", "all"])
        assert wait_until(lambda: "REACHABLE" in _next_hop(bed))
        bed.meet()


def _next_hop(bed: Bed) -> str:
    return bed.gateway.run(["ip", "neigh", "show", "192.0.2.2", "dev", "eth0"]).stdout


def delete_route(bed: Bed, repetitions: int) -> None:
    """Somebody deletes the tunnel's route; the agent brings it back."""
    for _ in range(repetitions):
        bed.gateway.run(["ip", "route", "del", "10.2.0.0/24", "dev", "fra1"])
        bed.meet()


def lose_events(bed: Bed, repetitions: int) -> None:
    """More events than a socket holds, and among them one that the agent has to act on."""
    routes = [f"192.168.{number >> 8}.{number & 255}/32" for number in range(2500)]
    words = ("add", "del")
    flood = [f"route {word} {each} dev eth2 table 100" for word in words for each in routes]
    lines = [*flood, "route del 10.200.0.0/16 dev ams1", *flood]
    assert bed.process is not None
    bed.gateway.run(["ip", "link", "set", "eth2", "up"])
    for _ in range(repetitions):
        bed.process.send_signal(signal.SIGSTOP)
        bed.gateway.run(["ip", "-batch", "-"], stdin="\n".join(lines))
        assert bed.gateway.diff(BASE) != []
        bed.process.send_signal(signal.SIGCONT)
        assert wait_until(lambda: bed.gateway.diff(BASE) == [], START_TIMEOUT_S)
        bed.meet()


SETTINGS = (
    "mtu = 1300",
    "mss_clamp = 1000",
    "ttl = 9",
    "tos = 16",
    "pmtudisc = false",
    "mss_clamp = false",
    'ttl = "inherit"\ntos = 0',
    'allowed_sources = ["10.2.0.0/24"]',
    "ocsum = true",
    "mtu = 1400",
)

FAULTS = (
    Fault("none: the agent runs", 1, "agent", do_nothing),
    Fault("agent killed with -9 at any moment, and started again", 20, "agent", kill_agent),
    Fault("agent stopped and started", 3, "agent", restart_agent),
    Fault("SIGHUP, every second time with a bad file", 20, "agent", reload_agent),
    Fault("`apply --confirm-within`, then `confirm`", 2, "agent", confirm),
    Fault("`apply --confirm-within`, taken back", 2, "agent", do_not_confirm),
    Fault("`apply`, then `rollback`", 2, "agent", roll_back),
    Fault("10,000 netlink events at once, and a change among them", 2, "agent", lose_events),
    Fault(
        "all neighbours flushed by somebody",
        5,
        "agent",
        flush_neighbours,
        promise=False,
        note="no next hop until the agent has had it resolved again, 0.07 to 0.3 s each time",
    ),
    Fault(
        "the tunnel's route deleted by somebody",
        3,
        "agent",
        delete_route,
        promise=False,
        note="no route until the agent has brought it back, 0.07 to 0.3 s each time",
    ),
    Fault("programs of all devices swapped", 100, "exporter", swap_programs),
    Fault("another release applied: compile, load, swap", 4, "exporter", upgrade),
    Fault("another layout of maps applied", 4, "nobody", change_layout),
    Fault("exporter restarted", 4, "exporter", restart_exporter),
    Fault("`apply` of the same file", 20, "exporter", apply_each(BASE)),
    Fault(
        "another tunnel's key changed",
        20,
        "exporter",
        apply_each(gateway_a(others={"ams1": 101}), BASE),
    ),
    Fault("this tunnel's MTU, MSS, TTL, TOS… changed", 20, "exporter", change_settings),
    Fault("ten other tunnels added and removed", 5, "exporter", add_and_remove),
    Fault(
        "routes and addresses added to this tunnel, and removed",
        10,
        "exporter",
        apply_each(
            gateway_a(
                routes=("10.2.0.0/24", "10.3.0.0/16"),
                addresses=("169.254.10.1/30", "169.254.11.1/30"),
            ),
            BASE,
        ),
    ),
    Fault(
        "an interface added and removed",
        6,
        "exporter",
        apply_each(gateway_a(interfaces=("eth0", "eth1", "eth2")), BASE),
    ),
    Fault("`apply` that fails and is undone", 5, "exporter", fail_to_apply),
)
