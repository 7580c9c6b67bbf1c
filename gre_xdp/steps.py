"""Carrying out one step of a plan: how each kind of resource is created, changed and deleted.

Deleting what is absent succeeds, so that a step that failed half way can be undone.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby

from gre_xdp import datapath, encoding, pins, sysctl, tunnel_maps
from gre_xdp.datapath import DataPath, detach
from gre_xdp.device_settings import make_ready
from gre_xdp.memory import Memory, note_bpffs_mounted
from gre_xdp.migration import Former
from gre_xdp.netlink import Netlink, NetlinkError, addresses, links, neighbours, routes
from gre_xdp.netlink.links import Link, get_link
from gre_xdp.observed import GONE
from gre_xdp.pins import Pins
from gre_xdp.plan import Step
from gre_xdp.resources import (
    Attachment,
    DataPlane,
    NextHop,
    Policy,
    Port,
    Resource,
    Sysctl,
    Target,
    TunnelAddress,
    TunnelDevice,
    TunnelEntry,
    TunnelRoute,
    inner_name,
)
from gre_xdp.tunnel_maps import Placement

# Hears how many of how many steps are done.
Progress = Callable[[int, int], None]


def no_progress(done: int, total: int) -> None:
    """Nobody listens."""
    del done, total


@dataclass(slots=True)
class Kernel:
    """What steps work on: the open data plane, the netlink socket, and what to remember."""

    netlink: Netlink
    pins: Pins
    memory: Memory
    data_path: DataPath | None
    formers: list[Former] = field(default_factory=list)  # data planes of other layouts
    tunnels: Placement = field(default_factory=Placement)
    links: dict[str, Link] = field(default_factory=dict)  # as last seen; steps keep it so
    progress: Progress = no_progress

    @property
    def places(self) -> list[Pins]:
        """Where attachments may be pinned."""
        return [self.pins, *(former.pins for former in self.formers)]

    def open_data_path(self) -> DataPath:
        """The data plane, which a step before has made."""
        assert self.data_path is not None
        return self.data_path

    def ifindex(self, name: str) -> int:
        """The index of a device; raises ``OSError`` when there is none."""
        if name in self.links:
            return self.links[name].index
        found = self.netlink.link_lookup(ifname=name)
        if not found:
            raise OSError(errno.ENODEV, f"there is no device {name}")
        return int(found[0])

    def link(self, name: str) -> Link:
        """One device; raises ``OSError`` when there is none."""
        if name not in self.links:
            self.links[name] = get_link(self.netlink, self.ifindex(name))
        return self.links[name]

    def forget_links(self, tunnel_device: str) -> None:
        """Both ends of a tunnel's device are gone."""
        for name in (tunnel_device, inner_name(tunnel_device)):
            self.links.pop(name, None)


def execute(kernel: Kernel, step: Step) -> None:
    """Carry out a step; raises ``OSError``, ``NetlinkError``, ``GreXdpError``."""
    if step.new is None:
        assert step.old is not None
        _delete(kernel, step.old)
    else:
        _put(kernel, step.new, step.old)


def batches(steps: Iterable[Step]) -> Iterator[list[Step]]:
    """Steps that are carried out together: devices that go, and else each by itself."""
    for is_going, batch in groupby(
        steps, lambda step: step.new is None and isinstance(step.old, TunnelDevice)
    ):
        if is_going:
            yield list(batch)
        else:
            yield from ([step] for step in batch)


def execute_together(kernel: Kernel, batch: list[Step]) -> None:
    """Carry out a batch; raises what ``execute`` does."""
    if len(batch) == 1:
        execute(kernel, batch[0])
        return
    names = [step.subject.name for step in batch if isinstance(step.subject, TunnelDevice)]
    inner = [_known_ifindex(kernel, inner_name(name)) for name in names]
    links.delete_many(kernel.netlink, [index for index in inner if index is not None])
    for name in names:
        kernel.forget_links(name)


def _put(kernel: Kernel, new: Resource, old: Resource | None) -> None:
    match new:
        case Sysctl():
            _put_sysctl(kernel, new)
        case DataPlane():
            _put_data_plane(kernel, new)
        case Policy():
            kernel.open_data_path().put_unknown_gre(new.unknown_gre)
        case TunnelDevice():
            _put_device(kernel, new)
        case TunnelEntry():
            device, inner = kernel.link(new.device), kernel.link(inner_name(new.device))
            tunnel_maps.put(kernel.open_data_path(), kernel.tunnels, new, device, inner)
        case Target():
            kernel.open_data_path().put_target(kernel.ifindex(new.device))
        case Port():
            _put_port(kernel, new)
        case Attachment():
            _put_attachment(kernel, new, old)
        case TunnelAddress():
            addresses.add(kernel.netlink, kernel.ifindex(new.device), new.address)
        case NextHop():
            neighbours.keep(kernel.netlink, kernel.ifindex(new.interface), new.address)
        case TunnelRoute():
            routes.put(
                kernel.netlink,
                new.destination,
                kernel.ifindex(new.device),
                gateway=new.gateway,
                mtu=new.mtu,
                replace=old is not None,
            )


def _delete(kernel: Kernel, old: Resource) -> None:
    match old:
        case Sysctl():
            _restore_sysctl(kernel, old)
        case DataPlane():
            _delete_data_plane(kernel)
        case Attachment():
            _delete_attachment(kernel, old)
        case TunnelDevice():
            # By the inner end: somebody may have renamed the other.
            inner = inner_name(old.name)
            _delete_at(kernel, inner, lambda index: links.delete(kernel.netlink, index))
            kernel.forget_links(old.name)
        case TunnelAddress():
            address = old.address
            _delete_at(
                kernel, old.device, lambda index: addresses.delete(kernel.netlink, index, address)
            )
        case NextHop():
            neighbour = old.address
            _delete_at(
                kernel,
                old.interface,
                lambda index: neighbours.forget(kernel.netlink, index, neighbour),
            )
        case TunnelRoute():
            destination = old.destination
            _delete_at(
                kernel, old.device, lambda index: routes.delete(kernel.netlink, destination, index)
            )
        case _:
            if kernel.data_path is not None:
                _delete_entry(kernel, kernel.data_path, old)


def _delete_entry(kernel: Kernel, data_path: DataPath, old: Resource) -> None:
    match old:
        case TunnelEntry():
            tunnel_maps.delete(data_path, kernel.tunnels, old.name)
        case Port():
            ifindex = _known_ifindex(kernel, old.name)
            if ifindex is not None:
                data_path.delete_device(ifindex)
                data_path.forget_vlans(ifindex)
        case Target():
            ifindex = _known_ifindex(kernel, old.device)
            if ifindex is not None:
                data_path.delete_target(ifindex)
        case _:
            pass  # the policy goes with the maps


# A device whose MTU is too small for IPv6 has lost its IPv6 addresses: ENXIO.
_ABSENT = frozenset({errno.ENOENT, errno.ENODEV, errno.ESRCH, errno.EADDRNOTAVAIL, errno.ENXIO})


def _delete_at(kernel: Kernel, device: str, action: Callable[[int], object]) -> None:
    """Delete something of a device; that it, or the device, is absent is success."""
    try:
        action(kernel.ifindex(device))
    except (NetlinkError, OSError) as error:
        if _code(error) not in _ABSENT:
            raise


def _code(error: Exception) -> int | None:
    return error.code if isinstance(error, NetlinkError) else getattr(error, "errno", None)


# --- settings -----------------------------------------------------------------------------------


def _put_sysctl(kernel: Kernel, new: Sysctl) -> None:
    current = sysctl.read(new.path)
    if current is None:
        return
    if current != new.value:
        kernel.memory.remember(new.path, current)
        sysctl.write(new.path, new.value)
    # It is as it was before us: nothing is left to restore.
    if kernel.memory.sysctls.get(new.path) == new.value:
        kernel.memory.forget(new.path)


def _restore_sysctl(kernel: Kernel, old: Sysctl) -> None:
    previous = kernel.memory.sysctls.get(old.path)
    if previous is None:
        return
    if sysctl.read(old.path) not in (None, previous):
        sysctl.write(old.path, previous)
    kernel.memory.forget(old.path)


# --- maps and programs --------------------------------------------------------------------------


def _put_data_plane(kernel: Kernel, new: DataPlane) -> None:
    if not pins.is_bpffs_mounted():
        # Noted before: a note too many is dropped, a mount without one would stay for ever.
        note_bpffs_mounted()
        pins.mount_bpffs()
    # A removal that was interrupted may have left all maps, and no directory for programs.
    kernel.pins.make()
    if kernel.data_path is None or not kernel.data_path.is_complete:
        if kernel.data_path is not None:
            kernel.data_path.close()
        kernel.data_path = DataPath.create(kernel.pins, kernel.formers)
    if new.digest not in kernel.data_path.pinned_digests():
        kernel.data_path.load_programs(new.digest)


def _delete_data_plane(kernel: Kernel) -> None:
    if kernel.data_path is not None:
        kernel.data_path.close()
        kernel.data_path = None
    kernel.pins.remove()


# --- devices ------------------------------------------------------------------------------------


def _put_device(kernel: Kernel, new: TunnelDevice) -> None:
    name = inner_name(new.name)
    if _known_ifindex(kernel, name) is None:
        links.add_veth(kernel.netlink, new.name, name, new.mtu)
    inner = kernel.link(name)
    device = get_link(kernel.netlink, inner.peer_index or 0)
    if device.name != new.name:
        links.rename(kernel.netlink, device.index, new.name)
        kernel.links.pop(device.name, None)
        device = kernel.link(new.name)
    kernel.links |= {link.name: link for link in make_ready(kernel.netlink, device, inner, new)}


# --- interfaces ---------------------------------------------------------------------------------


def _put_port(kernel: Kernel, new: Port) -> None:
    data_path = kernel.open_data_path()
    ifindex = kernel.ifindex(new.name)
    trunk = kernel.ifindex(new.trunk) if new.trunk else 0
    data_path.forget_vlans(ifindex)
    data_path.put_device(ifindex, encoding.encode_port(new, trunk_ifindex=trunk))
    if trunk:
        data_path.put_vlan(encoding.encode_vlan(trunk, new.tags), ifindex)


def _known_ifindex(kernel: Kernel, device: str) -> int | None:
    """The index of a device, also of one that has vanished (its name is ``GONE`` and the index)."""
    if device.startswith(GONE):
        return int(device.removeprefix(GONE))
    try:
        return kernel.ifindex(device)
    except OSError:
        return None


def _put_attachment(kernel: Kernel, new: Attachment, old: Resource | None) -> None:
    data_path = kernel.open_data_path()
    ifindex = kernel.ifindex(new.device)
    if isinstance(old, Attachment) and old.mode != new.mode:
        # A link cannot change its mode; the gap is the price of asking for another one.
        data_path.detach(ifindex)
    try:
        data_path.attach(ifindex, new.program, new.digest, new.mode)
    except OSError as error:
        raise datapath.attach_failure(error, new.device, new.mode) from error


def _delete_attachment(kernel: Kernel, old: Attachment) -> None:
    ifindex = _known_ifindex(kernel, old.device)
    if ifindex is not None:
        detach(kernel.places, ifindex)


def sweep(kernel: Kernel) -> None:
    """Delete map entries that no tunnel has: of former values, or left by a crash."""
    if kernel.data_path is not None and kernel.data_path.is_complete:
        tunnel_maps.sweep(kernel.data_path, kernel.tunnels)
