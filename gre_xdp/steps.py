"""Carrying out one step of a plan: how each kind of resource is created, changed and deleted.

Deleting what is absent succeeds, so that a step that failed half way can be undone.
"""

from __future__ import annotations

import errno
from collections.abc import Callable
from dataclasses import dataclass, field

from gre_xdp import abi, datapath, encoding, pins, sysctl
from gre_xdp.datapath import DataPath
from gre_xdp.device_settings import make_ready
from gre_xdp.memory import Memory, note_bpffs_mounted
from gre_xdp.netlink import Netlink, NetlinkError, addresses, links, neighbours, routes
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
    TunnelAddress,
    TunnelDevice,
    TunnelEntry,
    TunnelRoute,
    inner_name,
)


@dataclass(slots=True)
class Kernel:
    """What steps work on: the open data plane, the netlink socket, and what to remember."""

    netlink: Netlink
    pins: Pins
    memory: Memory
    data_path: DataPath | None
    tunnels: dict[int, TunnelEntry] = field(default_factory=dict)

    def open_data_path(self) -> DataPath:
        """The data plane, which a step before has made."""
        assert self.data_path is not None
        return self.data_path

    def ifindex(self, name: str) -> int:
        """The index of a device; raises ``OSError`` when there is none."""
        found = self.netlink.link_lookup(ifname=name)
        if not found:
            raise OSError(errno.ENODEV, f"there is no device {name}")
        return int(found[0])

    def link(self, name: str) -> links.Link:
        """One device as it is now; raises ``OSError`` when there is none."""
        return links.get_link(self.netlink, self.ifindex(name))


def execute(kernel: Kernel, step: Step) -> None:
    """Carry out a step; raises ``OSError``, ``NetlinkError``, ``GreXdpError``."""
    if step.new is None:
        assert step.old is not None
        _delete(kernel, step.old)
    else:
        _put(kernel, step.new, step.old)


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
            _put_tunnel(kernel, new)
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
                is_on_link=new.is_on_link,
                mtu=new.mtu,
                replace=old is not None,
            )


def _delete(kernel: Kernel, old: Resource) -> None:
    match old:
        case Sysctl():
            _restore_sysctl(kernel, old)
        case DataPlane():
            _delete_data_plane(kernel)
        case Policy():
            pass  # it goes with the maps
        case TunnelDevice():
            # By the inner end: somebody may have renamed the other.
            inner = inner_name(old.name)
            _delete_at(kernel, inner, lambda index: links.delete(kernel.netlink, index))
        case TunnelEntry():
            _delete_tunnel(kernel, old)
        case Port():
            _delete_port(kernel, old)
        case Attachment():
            _delete_attachment(kernel, old)
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
        pins.mount_bpffs()
        note_bpffs_mounted()
    if kernel.data_path is None or not kernel.data_path.is_complete:
        if kernel.data_path is not None:
            kernel.data_path.close()
        kernel.data_path = DataPath.create(kernel.pins)
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
    if not kernel.netlink.link_lookup(ifname=name):
        links.add_veth(kernel.netlink, new.name, name, new.mtu)
    inner = kernel.link(name)
    device = links.get_link(kernel.netlink, inner.peer_index or 0)
    if device.name != new.name:
        links.rename(kernel.netlink, device.index, new.name)
        device = kernel.link(new.name)
    make_ready(kernel.netlink, device, inner, new)


# --- interfaces ---------------------------------------------------------------------------------


def _put_port(kernel: Kernel, new: Port) -> None:
    data_path = kernel.open_data_path()
    ifindex = kernel.ifindex(new.name)
    trunk = kernel.ifindex(new.trunk) if new.trunk else 0
    data_path.forget_vlans(ifindex)
    data_path.put_device(ifindex, encoding.encode_port(new, trunk_ifindex=trunk))
    if trunk:
        data_path.put_vlan(encoding.encode_vlan(trunk, new.tags), ifindex)


def _delete_port(kernel: Kernel, old: Port) -> None:
    ifindex = _known_ifindex(kernel, old.name)
    if kernel.data_path is not None and ifindex is not None:
        kernel.data_path.delete_device(ifindex)
        kernel.data_path.forget_vlans(ifindex)


def _known_ifindex(kernel: Kernel, device: str) -> int | None:
    """The index of a device, also of one that has vanished (its name is ``GONE`` and the index)."""
    if device.startswith(GONE):
        return int(device.removeprefix(GONE))
    found = kernel.netlink.link_lookup(ifname=device)
    return int(found[0]) if found else None


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
    data_path.put_target(ifindex)


def _delete_attachment(kernel: Kernel, old: Attachment) -> None:
    ifindex = _known_ifindex(kernel, old.device)
    if kernel.data_path is not None and ifindex is not None:
        kernel.data_path.detach(ifindex)
        kernel.data_path.delete_target(ifindex)


# --- tunnels ------------------------------------------------------------------------------------


def _put_tunnel(kernel: Kernel, new: TunnelEntry) -> None:
    data_path = kernel.open_data_path()
    device, inner = kernel.link(new.name), kernel.link(inner_name(new.name))
    tunnel_id = _tunnel_id(kernel, new.name)
    before = kernel.tunnels.get(tunnel_id)
    if before is None:
        data_path.reset_tunnel_counters(tunnel_id)
    if before is None or _peer(before) != _peer(new):
        data_path.reset_sequences(tunnel_id)
    # Allowed before they are asked for, and forgotten when nobody asks any more.
    for network in new.allowed_sources:
        data_path.put_source(encoding.encode_source(tunnel_id, network))
    data_path.put_tunnel(
        tunnel_id,
        encoding.encode_tunnel(
            new, device_ifindex=device.index, inner_ifindex=inner.index, device_mac=device.mac
        ),
    )
    kernel.tunnels[tunnel_id] = new
    _forget_devices(data_path, tunnel_id, keep=(device.index, inner.index))
    for link, role in ((device, abi.DeviceRole.TUNNEL), (inner, abi.DeviceRole.INNER)):
        data_path.put_device(link.index, abi.Device(role=role, tunnel=tunnel_id))
    # What the remote sends already has somewhere to go before the program is on the inner end.
    data_path.put_target(inner.index)
    data_path.put_endpoint(encoding.local_endpoint(new), tunnel_id)
    data_path.put_endpoint(encoding.pair_endpoint(new), tunnel_id)
    data_path.put_endpoint(encoding.receiving_endpoint(new), tunnel_id)


def _peer(entry: TunnelEntry) -> tuple[object, ...]:
    """With another of these it is another sender, whose sequence starts at 0 (RFC 2890 2.2)."""
    return (entry.local, entry.remote, entry.ikey, entry.iseq)


def _delete_tunnel(kernel: Kernel, old: TunnelEntry) -> None:
    tunnel_id = next((i for i, entry in kernel.tunnels.items() if entry.name == old.name), None)
    if kernel.data_path is None or tunnel_id is None:
        return
    endpoint = encoding.receiving_endpoint(kernel.tunnels.pop(tunnel_id))
    # Unless another tunnel has taken it over. What else there is of it, sweep() finds.
    if kernel.data_path.endpoint(endpoint) == tunnel_id:
        kernel.data_path.delete_endpoint(bytes(endpoint))
    _forget_devices(kernel.data_path, tunnel_id, keep=())
    kernel.data_path.put_tunnel(tunnel_id, abi.Tunnel())


def sweep(kernel: Kernel) -> None:
    """Delete endpoints and sources that no tunnel has: of former values, or left by a crash."""
    if kernel.data_path is None or not kernel.data_path.is_complete:
        return
    wanted: dict[bytes, int | None] = {}
    for tunnel_id, entry in kernel.tunnels.items():
        wanted[bytes(encoding.receiving_endpoint(entry))] = tunnel_id
        # These two stand for no tunnel in particular.
        wanted[bytes(encoding.pair_endpoint(entry))] = None
        wanted[bytes(encoding.local_endpoint(entry))] = None
    for key, found in kernel.data_path.endpoints().items():
        if key not in wanted or wanted[key] not in (None, found):
            kernel.data_path.delete_endpoint(key)
    for source in kernel.data_path.sources():
        owner, network = encoding.decode_source(source)
        entry_ = kernel.tunnels.get(owner)
        if entry_ is None or network not in entry_.allowed_sources:
            kernel.data_path.delete_source(source)


def _tunnel_id(kernel: Kernel, name: str) -> int:
    """The index that a tunnel has, or the lowest free one."""
    for tunnel_id, entry in kernel.tunnels.items():
        if entry.name == name:
            return tunnel_id
    return next(i for i in range(abi.TUNNELS_MAX) if i not in kernel.tunnels)


def _forget_devices(data_path: DataPath, tunnel_id: int, keep: tuple[int, ...]) -> None:
    """Drop devices that a tunnel had before it got these."""
    for ifindex, device in data_path.devices().items():
        is_its = device.role != abi.DeviceRole.PORT and device.tunnel == tunnel_id
        if is_its and ifindex not in keep:
            data_path.delete_device(ifindex)
