"""Making the kernel match the configuration: observe, plan, carry out, read back; undo on failure.

This is the whole of ``apply``, ``diff`` and ``down``, and what the agent repeats.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator, Sequence

from gre_xdp import desired, errors, memory, pins
from gre_xdp.datapath import DataPath, source_digest
from gre_xdp.host import Host, read_host
from gre_xdp.model import Config, Tunnel
from gre_xdp.netlink import Netlink, NetlinkError, namespaces
from gre_xdp.netlink.firewall import ForwardChain, forward_chains
from gre_xdp.netlink.links import list_links
from gre_xdp.netlink.neighbours import list_neighbours
from gre_xdp.netlink.routes import Address
from gre_xdp.observed import add_current_sysctls, observe, tunnel_entries
from gre_xdp.plan import Step, plan
from gre_xdp.resources import NextHop, State
from gre_xdp.steps import Kernel, execute, sweep

# A step may take something else with it (a device that goes down takes routes along): what is
# missing after the first pass is brought back by the second, and missing then is drift.
_PASSES = 2
_SETTLE_S = 1.0
_SETTLE_POLL_S = 0.01


def diff(config: Config) -> list[Step]:
    """What ``apply`` would do; touches nothing. Raises ``GreXdpError``."""
    with _open_kernel() as kernel:
        return _plan(kernel, config)


def apply(config: Config) -> list[Step]:
    """Make the kernel match; returns the steps that it took (none when it matched already).

    Either all of them took effect or none: raises ``ApplyError`` or another ``GreXdpError`` after
    undoing, ``DriftError`` when the kernel does not hold what it was given.
    """
    with _lock(), _open_kernel() as kernel:
        _refuse_nothing(kernel, config)
        with _undoing(kernel) as done:
            for _ in range(_PASSES):
                steps = _plan(kernel, config)
                _execute_all(kernel, steps, done)
                sweep(kernel)
                if not steps:
                    break
            else:
                _verify(_plan(kernel, config))
        if kernel.data_path is not None:
            kernel.data_path.prune_programs(source_digest())
        _settle(kernel, done)
        return done


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
    if kernel.tunnels and not config.tunnels and not config.interfaces:
        raise errors.ConfigError(
            f"the file configures nothing, and {len(kernel.tunnels)} tunnels run",
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
        kernel.pins.remove()
        kernel.memory.forget_path_mtus()
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


def _plan(kernel: Kernel, config: Config) -> list[Step]:
    observed, host = _observe(kernel, config.tunnels)
    wanted = desired.desire(config, host, kernel.memory, source_digest())
    add_current_sysctls(observed, wanted)
    return plan(wanted, observed)


def _observe(kernel: Kernel, tunnels: Sequence[Tunnel]) -> tuple[State, Host]:
    attached = kernel.data_path.links() if kernel.data_path is not None else []
    ends = [(tunnel.local, tunnel.remote) for tunnel in tunnels]
    host = read_host(kernel.netlink, ends, frozenset(link.ifindex for link in attached))
    return observe(
        kernel.netlink, kernel.data_path, host, kernel.memory, digest=source_digest()
    ), host


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
    with Netlink() as netlink:
        kernel = Kernel(
            netlink=netlink,
            pins=place,
            memory=memory.Memory.of_namespace(cookie),
            data_path=DataPath.open_existing(place),
        )
        try:
            if kernel.data_path is not None and kernel.data_path.is_complete:
                kernel.tunnels = tunnel_entries(kernel.data_path, list_links(netlink))
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
