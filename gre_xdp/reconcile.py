"""Making the kernel match the configuration: observe, plan, carry out, read back; undo on failure.

This is the whole of ``apply``, ``diff`` and ``down``, and what the agent repeats.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

from gre_xdp import (
    agent_counters,
    desired,
    errors,
    memory,
    migration,
    pins,
    tunnel_maps,
    writer_lock,
)
from gre_xdp.datapath import DataPath, pinned_links, source_digest
from gre_xdp.desired import Desired
from gre_xdp.guardian import Journal
from gre_xdp.host import Host, read_host
from gre_xdp.model import Config, Tunnel
from gre_xdp.netlink import Netlink, NetlinkError, namespaces
from gre_xdp.netlink.firewall import ForwardChain, forward_chains
from gre_xdp.netlink.links import Link, list_links
from gre_xdp.netlink.neighbours import list_neighbours
from gre_xdp.netlink.routes import Address
from gre_xdp.observed import add_current_sysctls, observe
from gre_xdp.plan import Step, plan
from gre_xdp.resources import DataPlane, NextHop, State
from gre_xdp.steps import (
    Kernel,
    Progress,
    batches,
    execute,
    execute_together,
    no_progress,
    sweep,
)
from gre_xdp.tunnel_maps import Placement
from gre_xdp.writer_lock import WriterLock, require_root

# A step may take something else with it (a device that goes down takes routes along): what is
# missing after the first pass is brought back by the second, and missing then is drift.
_PASSES = 2
_SETTLE_S = 1.0
_SETTLE_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, or would be, and what of the configuration was left as it is.

    ``undone`` is what somebody has undone meanwhile.
    """

    steps: list[Step]
    wanted: Desired
    undone: list[Step] = field(default_factory=list)


def diff(config: Config) -> list[Step]:
    """What ``apply`` would do; touches nothing. Raises ``GreXdpError``."""
    with _open_kernel() as kernel:
        steps, wanted = _plan(kernel, config)
        _refuse(wanted)
        return steps


def apply(config: Config, progress: Progress = no_progress) -> list[Step]:
    """Make the kernel match; returns the steps that it took (none when it matched already).

    ``progress`` hears of it while it takes long.

    Either all of them took effect or none: raises ``ApplyError`` or another ``GreXdpError`` after
    undoing, ``DriftError`` when the kernel does not hold what it was given.
    """
    with writer_lock.hold() as lock, _open_kernel() as kernel:
        kernel.progress = progress
        return _apply(kernel, lock, config, is_strict=True).steps


def keep(config: Config, *, takes_over: bool = False) -> Outcome:
    """The same for an agent: what does not fit the host is left as it is, and the rest goes on.

    Another version's data plane is taken over when it starts, and not later: then somebody else has
    put it there. Raises ``GreXdpError``.
    """
    with writer_lock.hold() as lock, _open_kernel() as kernel:
        if kernel.formers and not takes_over:
            raise errors.HostError(
                "another version of gre-xdp has taken over here",
                remedy="restart the agent",
                where=str(kernel.formers[0].pins.root),
            )
        return _apply(kernel, lock, config, is_strict=False)


def differences(config: Config) -> Outcome:
    """What ``keep`` would do; touches nothing. Raises ``GreXdpError``."""
    with _open_kernel() as kernel:
        steps, wanted = _plan(kernel, config)
        return Outcome(steps, wanted)


def _apply(kernel: Kernel, lock: WriterLock, config: Config, *, is_strict: bool) -> Outcome:
    wanted = Desired()

    def remaining() -> list[Step]:
        nonlocal wanted
        steps, wanted = _plan(kernel, config)
        _refuse_nothing(kernel, config)
        if is_strict:
            _refuse(wanted)
        return steps

    with _undoing(kernel, lock) as journal:
        undone = _converge(kernel, journal, remaining)
        # For an agent one who meddles with a thing is no reason to give up the others.
        if is_strict:
            _verify(undone)
    # All took effect: what is left to do is no reason to say that it failed.
    with contextlib.suppress(OSError, NetlinkError):
        if kernel.data_path is not None:
            kernel.data_path.prune_programs(source_digest())
        for former in kernel.formers:
            former.pins.remove()
        kernel.memory.note_applied(wanted.pending | _reasons(wanted), wanted.interfaces)
        # An agent has to look again soon, and not to wait.
        if is_strict:
            if journal.steps:
                migration.prune_dead_namespaces()
            _settle(kernel, journal.steps)
    return Outcome(journal.steps, wanted, undone)


def _refuse(wanted: Desired) -> None:
    if wanted.refusals:
        raise wanted.refusals[0].error


def _reasons(wanted: Desired) -> dict[str, str]:
    """Why what is refused is refused, by what it is."""
    return {
        (refusal.error.where or "").replace('"', ""): refusal.error.message
        for refusal in wanted.refusals
    }


def believe_path_mtu(local: Address, remote: Address, mtu: int, until_s: float) -> bool:
    """Note that the way between two addresses takes ``mtu`` bytes; is that news?

    News is what changes the tunnels: something narrower than what was believed so far.
    """
    with writer_lock.hold():
        notes = memory.Memory.of_namespace(namespaces.cookie())
        before = notes.path_mtu(local, remote)
        if before is not None and before < mtu:
            return False
        notes.believe_path_mtu(local, remote, mtu, until_s)
        return before != mtu


def note_probes(probes: dict[str, tuple[int, float]]) -> None:
    """Note for ``show`` and the metrics how far each tunnel's probes come."""
    with writer_lock.hold():
        memory.Memory.of_namespace(namespaces.cookie()).note_probes(probes)


def keep_next_hops(config: Config) -> list[Step]:
    """Keep the outer next hops resolved, and touch nothing else; returns the steps it took."""
    with writer_lock.hold() as lock, _open_kernel() as kernel:
        observed, host = _observe(kernel, config.tunnels)
        kept = {key: found for key, found in observed.items() if isinstance(found, NextHop)}
        with _undoing(kernel, lock) as journal:
            _execute_all(kernel, plan(desired.next_hops(config, host), kept), journal)
        return journal.steps


def _refuse_nothing(kernel: Kernel, config: Config) -> None:
    """An empty file is more often an accident than a wish to remove everything."""
    running = len(kernel.tunnels.by_name)
    if running and not config.tunnels and not config.interfaces:
        raise errors.ConfigError(
            f"the file configures nothing, and {running} tunnels run",
            remedy="gre-xdp down removes them; if that is not what you want, restore the file",
        )


def _converge(kernel: Kernel, journal: Journal, remaining: Callable[[], list[Step]]) -> list[Step]:
    """Carry out what remains to be done, until nothing does; returns what remains all the same."""
    for _ in range(_PASSES):
        steps = remaining()
        _execute_all(kernel, steps, journal)
        sweep(kernel)
        if not steps:
            return []
    return remaining()


def _verify(remaining: list[Step]) -> None:
    if remaining:
        raise errors.DriftError(
            "the kernel did not keep what was applied, so everything is as before: "
            + "; ".join(f"{step.action} {step.object}" for step in remaining[:5]),
            remedy="something else changes the same things; find out what, then apply again",
        )


def down(progress: Progress = no_progress) -> list[Step]:
    """Remove everything that we made in this namespace, and nothing else."""
    with writer_lock.hold() as lock, _open_kernel() as kernel:
        kernel.progress = progress
        with _undoing(kernel, lock) as journal:
            _verify(_converge(kernel, journal, lambda: plan({}, _observe(kernel, ())[0])))
            for place in kernel.places:
                place.remove()
            kernel.memory.forget_all_but_sysctls()
            kernel.memory.drop_unfinished()
        with contextlib.suppress(OSError):
            agent_counters.path_of(namespaces.cookie()).unlink(missing_ok=True)
            _unmount_bpffs_if_ours()
        return journal.steps


def _unmount_bpffs_if_ours() -> None:
    if memory.was_bpffs_mounted_by_us() and (
        pins.unmount_bpffs_if_empty() or not pins.is_bpffs_mounted()
    ):
        memory.forget_bpffs_mounted()


def bypassed_chains() -> list[ForwardChain]:
    """Firewall chains that packets forwarded by XDP do not meet in this namespace."""
    return forward_chains()


def next_hops(outcome: Outcome) -> frozenset[tuple[int, Address]]:
    """The neighbours that tunnels need here: index of the interface, and address.

    Whether they are there or not: one that was lost before this could be read is to be missed, too.
    """
    with Netlink() as netlink:
        links = list_links(netlink)
    return frozenset(
        (links[hop.interface].index, hop.address)
        for hop in outcome.wanted.state.values()
        if isinstance(hop, NextHop) and hop.interface in links
    )


def _plan(kernel: Kernel, config: Config) -> tuple[list[Step], Desired]:
    for former in kernel.formers:
        former.require_takeover()
    observed, host = _observe(kernel, config.tunnels)
    wanted = desired.desire(config, host, kernel.memory, source_digest())
    wanted.hold(observed)
    add_current_sysctls(observed, wanted.state)
    return plan(wanted.state, observed), wanted


def _observe(kernel: Kernel, tunnels: Sequence[Tunnel]) -> tuple[State, Host]:
    ends = [(tunnel.local, tunnel.remote) for tunnel in tunnels]
    attached = pinned_links(kernel.places)
    ours = frozenset(link.ifindex for link in attached)
    destinations = [route for tunnel in tunnels for route in tunnel.routes]
    host = read_host(kernel.netlink, ends, ours, destinations=destinations)
    kernel.links = dict(host.links)
    _read_tunnels(kernel, host.links)
    observed = observe(
        kernel.netlink,
        kernel.data_path,
        host,
        kernel.memory,
        tunnels=kernel.tunnels,
        attached=attached,
        places=kernel.places,
        digest=source_digest(),
    )
    return observed, host


def _read_tunnels(kernel: Kernel, links: dict[str, Link]) -> None:
    kernel.tunnels = Placement()
    if kernel.data_path is not None and kernel.data_path.is_complete:
        kernel.tunnels = tunnel_maps.read(kernel.data_path, links)
    for former in reversed(kernel.formers):
        kernel.tunnels.take_over(former.tunnel_ids())


@contextlib.contextmanager
def _undoing(kernel: Kernel, lock: WriterLock) -> Iterator[Journal]:
    """Undo the steps that the block has begun when it fails, is interrupted, or the process dies.

    The last is the guardian's part, and so is the rest of an undoing that is interrupted itself.
    """
    journal = Journal(lock.descriptor)
    try:
        yield journal
        journal.end()
    except BaseException:
        lock.is_guardians = bool(journal.steps)
        try:
            _undo(kernel, journal.steps)
            journal.end()
            lock.is_guardians = False
        finally:
            journal.leave()
        raise


def _undo(kernel: Kernel, begun: Sequence[Step]) -> None:
    """Best effort, last step first: what cannot be undone shows in the next plan."""
    if not begun:
        return
    with contextlib.ExitStack() as stack:
        # An interrupt leaves the old socket in the middle of a request.
        with contextlib.suppress(Exception):
            kernel.netlink = stack.enter_context(Netlink())
        # What the step that failed has done to them is not known.
        kernel.links.clear()
        for step in reversed(begun):
            with contextlib.suppress(Exception):
                execute(kernel, step.inverse)
            # Of an upgrade that did not take place: its programs.
            if isinstance(step.old, DataPlane) and step.new is not None and kernel.data_path:
                with contextlib.suppress(Exception):
                    kernel.data_path.prune_programs(step.old.digest)
        for last in (partial(sweep, kernel), kernel.memory.drop_unfinished, _unmount_bpffs_if_ours):
            with contextlib.suppress(Exception):
                last()


def undo_after_death(begun: Sequence[Step], lock: int) -> None:
    """The guardian's part: undo what a killed writer had begun, and release its lock."""
    if not begun:
        return
    try:
        with _open_kernel() as kernel:
            _read_tunnels(kernel, list_links(kernel.netlink))
            _undo(kernel, begun)
    finally:
        writer_lock.release(lock)


def _execute_all(kernel: Kernel, steps: list[Step], journal: Journal) -> None:
    """Carry out steps, each noted before it begins: half done is to be undone, too."""
    done = 0
    for batch in batches(steps):
        kernel.progress(done, len(steps))
        done += len(batch)
        step = batch[0]
        try:
            for each in batch:
                journal.begin(each)
            execute_together(kernel, batch)
        except (OSError, NetlinkError) as error:
            raise errors.ApplyError(
                f"{step.action} {step.object} failed: {_words(error)}; everything is as before",
                remedy="run it as root on Linux 6.1 or newer; gre-xdp diff shows the whole plan",
                where=step.object,
            ) from error


def _words(error: OSError | NetlinkError) -> str:
    if isinstance(error, NetlinkError):
        return os.strerror(error.code) if error.code else str(error)
    return error.strerror or str(error)


def _settle(kernel: Kernel, steps: list[Step]) -> None:
    """Wait until new next hops have answered, so that the first packet has somewhere to go."""
    new = {
        (kernel.ifindex(step.new.interface), step.new.address)
        for step in steps
        if isinstance(step.new, NextHop)
    }
    deadline = time.monotonic() + _SETTLE_S
    while new and time.monotonic() < deadline:
        # One that is gone again will not answer.
        new &= {
            (neighbour.ifindex, neighbour.address)
            for neighbour in list_neighbours(kernel.netlink)
            if not neighbour.is_resolved
        }
        time.sleep(_SETTLE_POLL_S)


@contextlib.contextmanager
def _open_kernel() -> Iterator[Kernel]:
    """Everything that steps and observation work on, in the current network namespace."""
    require_root()
    try:
        pins.require_shared_mounts()
        cookie = namespaces.cookie()
        place = pins.Pins.of_namespace(cookie)
        formers = migration.find(place)
        with Netlink() as netlink:
            kernel = Kernel(
                netlink=netlink,
                pins=place,
                memory=memory.Memory.of_namespace(cookie),
                data_path=DataPath.open_existing(place, formers),
                formers=formers,
            )
            try:
                yield kernel
            finally:
                if kernel.data_path is not None:
                    kernel.data_path.close()
    except (OSError, NetlinkError) as error:
        # Steps explain themselves; this was in reading.
        raise errors.KernelError(
            f"reading the kernel's state failed: {_words(error)}",
            remedy="try again; if it stays, report it with your kernel version (uname -r)",
        ) from error
