"""Making the kernel match the configuration: observe, plan, carry out, read back; undo on failure.

This is the whole of ``apply``, ``diff`` and ``down``, and what the agent repeats.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from gre_xdp import desired, errors, memory, migration, pins, tunnel_maps
from gre_xdp.datapath import DataPath, pinned_links, source_digest
from gre_xdp.desired import Desired
from gre_xdp.host import Host, read_host
from gre_xdp.model import Config, Tunnel
from gre_xdp.netlink import Netlink, NetlinkError, namespaces
from gre_xdp.netlink.firewall import ForwardChain, forward_chains
from gre_xdp.netlink.links import Link
from gre_xdp.netlink.neighbours import list_neighbours
from gre_xdp.netlink.routes import Address
from gre_xdp.observed import add_current_sysctls, observe
from gre_xdp.plan import Step, plan
from gre_xdp.resources import NextHop, State
from gre_xdp.steps import Kernel, execute, sweep
from gre_xdp.tunnel_maps import Placement

# A step may take something else with it (a device that goes down takes routes along): what is
# missing after the first pass is brought back by the second, and missing then is drift.
_PASSES = 2
_SETTLE_S = 1.0
_SETTLE_POLL_S = 0.01


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done, or would be, and what of the configuration was left as it is."""

    steps: list[Step]
    wanted: Desired


def diff(config: Config) -> list[Step]:
    """What ``apply`` would do; touches nothing. Raises ``GreXdpError``."""
    with _open_kernel() as kernel:
        steps, wanted = _plan(kernel, config)
        _refuse(wanted)
        return steps


def apply(config: Config) -> list[Step]:
    """Make the kernel match; returns the steps that it took (none when it matched already).

    Either all of them took effect or none: raises ``ApplyError`` or another ``GreXdpError`` after
    undoing, ``DriftError`` when the kernel does not hold what it was given.
    """
    with _lock(), _open_kernel() as kernel:
        return _apply(kernel, config, is_strict=True).steps


def keep(config: Config, *, takes_over: bool = False) -> Outcome:
    """The same for an agent: what does not fit the host is left as it is, and the rest goes on.

    Another version's data plane is taken over when it starts, and not later: then somebody else has
    put it there. Raises ``GreXdpError``.
    """
    with _lock(), _open_kernel() as kernel:
        if kernel.formers and not takes_over:
            raise errors.HostError(
                "another version of gre-xdp has taken over here",
                remedy="restart the agent",
                where=str(kernel.formers[0].pins.root),
            )
        return _apply(kernel, config, is_strict=False)


def differences(config: Config) -> Outcome:
    """What ``keep`` would do; touches nothing. Raises ``GreXdpError``."""
    with _open_kernel() as kernel:
        steps, wanted = _plan(kernel, config)
        return Outcome(steps, wanted)


def _apply(kernel: Kernel, config: Config, *, is_strict: bool) -> Outcome:
    with _undoing(kernel) as done:
        for _ in range(_PASSES):
            steps, wanted = _plan(kernel, config)
            _refuse_nothing(kernel, config)
            if is_strict:
                _refuse(wanted)
            _execute_all(kernel, steps, done)
            sweep(kernel)
            if not steps:
                break
        else:
            _verify(_plan(kernel, config)[0])
    if kernel.data_path is not None:
        kernel.data_path.prune_programs(source_digest())
    for former in kernel.formers:
        former.pins.remove()
    kernel.memory.note_applied(wanted.pending | _reasons(wanted), wanted.interfaces)
    _settle(kernel, done)
    return Outcome(done, wanted)


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
    with _lock():
        notes = memory.Memory.of_namespace(namespaces.cookie())
        before = notes.path_mtu(local, remote)
        if before is not None and before < mtu:
            return False
        notes.believe_path_mtu(local, remote, mtu, until_s)
        return before != mtu


def note_probes(probes: dict[str, tuple[int, float]]) -> None:
    """Note for ``show`` and the metrics how far each tunnel's probes come."""
    with _lock():
        memory.Memory.of_namespace(namespaces.cookie()).note_probes(probes)


def keep_next_hops(config: Config) -> list[Step]:
    """Keep the outer next hops resolved, and touch nothing else; returns the steps it took."""
    with _lock(), _open_kernel() as kernel:
        observed, host = _observe(kernel, config.tunnels)
        kept = {key: found for key, found in observed.items() if isinstance(found, NextHop)}
        with _undoing(kernel) as done:
            _execute_all(kernel, plan(desired.next_hops(config, host), kept), done)
        return done


def _refuse_nothing(kernel: Kernel, config: Config) -> None:
    """An empty file is more often an accident than a wish to remove everything."""
    running = len(kernel.tunnels.by_name)
    if running and not config.tunnels and not config.interfaces:
        raise errors.ConfigError(
            f"the file configures nothing, and {running} tunnels run",
            remedy="gre-xdp down removes them; if that is not what you want, restore the file",
        )


def _verify(remaining: list[Step]) -> None:
    if remaining:
        raise errors.DriftError(
            "the kernel did not keep what was applied, so everything is as before: "
            + "; ".join(f"{step.action} {step.object}" for step in remaining[:5]),
            remedy="something else changes the same things; find out what, then apply again",
        )


def down() -> list[Step]:
    """Remove everything that we made in this namespace, and nothing else."""
    with _lock(), _open_kernel() as kernel:
        observed, _ = _observe(kernel, ())
        with _undoing(kernel) as done:
            _execute_all(kernel, plan({}, observed), done)
        for place in kernel.places:
            place.remove()
        kernel.memory.forget_all_but_sysctls()
        _unmount_bpffs_if_ours()
        return done


def _unmount_bpffs_if_ours() -> None:
    if memory.was_bpffs_mounted_by_us() and pins.unmount_bpffs_if_empty():
        memory.forget_bpffs_mounted()


def bypassed_chains() -> list[ForwardChain]:
    """Firewall chains that packets forwarded by XDP do not meet in this namespace."""
    return forward_chains()


def next_hops() -> frozenset[Address]:
    """The neighbours that are kept for tunnels of this namespace."""
    with Netlink() as netlink:
        return frozenset(
            neighbour.address for neighbour in list_neighbours(netlink) if neighbour.is_kept
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
    attached = frozenset(link.ifindex for link in pinned_links(kernel.places))
    destinations = [route for tunnel in tunnels for route in tunnel.routes]
    host = read_host(kernel.netlink, ends, attached, destinations=destinations)
    kernel.links = dict(host.links)
    _read_tunnels(kernel, host.links)
    observed = observe(
        kernel.netlink,
        kernel.data_path,
        host,
        kernel.memory,
        tunnels=kernel.tunnels,
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
def _undoing(kernel: Kernel) -> Iterator[list[Step]]:
    """Undo the steps that the block has put into the list, when it fails or is interrupted."""
    done: list[Step] = []
    try:
        yield done
    except BaseException:
        # Best effort, last step first: what cannot be undone shows in the next plan.
        for step in reversed(done):
            with contextlib.suppress(Exception):
                execute(kernel, step.inverse)
        with contextlib.suppress(Exception):
            sweep(kernel)
        with contextlib.suppress(Exception):
            _unmount_bpffs_if_ours()
        raise


def _execute_all(kernel: Kernel, steps: list[Step], done: list[Step]) -> None:
    """Carry out steps, each noted as done before it begins: half done is to be undone, too."""
    for step in steps:
        done.append(step)
        try:
            execute(kernel, step)
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
        for neighbour in list_neighbours(kernel.netlink):
            if neighbour.is_resolved:
                new.discard((neighbour.ifindex, neighbour.address))
        time.sleep(_SETTLE_POLL_S)


@contextlib.contextmanager
def _open_kernel() -> Iterator[Kernel]:
    """Everything that steps and observation work on, in the current network namespace."""
    require_root()
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
        except (OSError, NetlinkError) as error:
            # Steps explain themselves; this was in reading.
            raise errors.KernelError(
                f"reading the kernel's state failed: {_words(error)}",
                remedy="try again; if it stays, report it with your kernel version (uname -r)",
            ) from error
        finally:
            if kernel.data_path is not None:
                kernel.data_path.close()


def require_root() -> None:
    """Raise ``PrivilegeError`` for an ordinary user."""
    if os.geteuid() != 0:
        raise errors.PrivilegeError(
            "this needs root: it reads and changes pinned BPF maps and network devices",
            remedy="run it as root, for instance with sudo",
        )


@contextlib.contextmanager
def _lock() -> Iterator[None]:
    """One writer at a time in a network namespace; others wait."""
    require_root()
    path = memory.RUN_DIRECTORY / f"{namespaces.cookie()}.lock"
    while True:
        memory.make_directory()
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            # The last writer of another namespace has just removed the directory.
            continue
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            # The one before us may have removed the file while we waited for it.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.fstat(descriptor), path.stat()):
                    break
        except BaseException:
            # Whoever leaves without closing it keeps everybody else waiting.
            os.close(descriptor)
            raise
        os.close(descriptor)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)
        memory.remove_directory_if_empty()
