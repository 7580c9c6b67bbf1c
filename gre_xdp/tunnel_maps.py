"""A tunnel across the maps of the data path: reading it, putting it there, taking it away.

What packets meet is a slot, which is never changed while something points to it: a changed tunnel
is written to a free slot, and then endpoints and devices (or next hops on a shared device) are
turned to it, each atomically. Its ``id`` stays, and with it counters and sequence numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from gre_xdp import abi, encoding, errors
from gre_xdp.datapath import DataPath
from gre_xdp.netlink.links import Link
from gre_xdp.netlink.routes import Address, Network
from gre_xdp.resources import TunnelEntry, inner_name


@dataclass(frozen=True, slots=True)
class Placed:
    """A tunnel in the maps, and its place there."""

    entry: TunnelEntry
    slot: int
    id: int
    device_ifindex: int
    inner_ifindex: int


class Placement:
    """All tunnels in the maps by name, and what is free."""

    def __init__(self) -> None:
        self.by_name: dict[str, Placed] = {}
        self._former_ids: dict[str, int] = {}
        self._ids: set[int] = set()
        self._slots: set[int] = set()
        self._next_slot = -1
        self._next_id = 0

    def take_over(self, former_ids: Mapping[str, int]) -> None:
        """Give tunnels the ids that they had in another layout: their counters come along."""
        self._former_ids = dict(former_ids)
        self._ids |= {*former_ids.values()}

    def occupy(self, slot: int) -> None:
        """Note that something points to a slot, whatever it holds."""
        self._slots.add(slot)
        self._next_slot = max(self._next_slot, slot)

    def put(self, placed: Placed) -> None:
        """Note where a tunnel stands now."""
        self.remove(placed.entry.name)
        self.by_name[placed.entry.name] = placed
        self._ids.add(placed.id)
        self.occupy(placed.slot)

    def remove(self, name: str) -> Placed | None:
        """Note that a tunnel is no longer there."""
        placed = self.by_name.pop(name, None)
        if placed is not None:
            self._slots.discard(placed.slot)
            if name not in self._former_ids:
                self._ids.discard(placed.id)
                self._next_id = min(self._next_id, placed.id)
        return placed

    def free_slot(self) -> int:
        """A slot that nobody points to, and nobody has for a while: a packet may still be in it."""
        for _ in range(abi.SLOTS_MAX):
            self._next_slot = (self._next_slot + 1) % abi.SLOTS_MAX
            if self._next_slot not in self._slots:
                return self._next_slot
        raise _too_many()

    def id_of(self, name: str) -> tuple[int, bool]:
        """The id that a tunnel has, or gets; is it new?"""
        if name in self.by_name:
            return self.by_name[name].id, False
        if name in self._former_ids:
            return self._former_ids[name], False
        while self._next_id in self._ids:
            self._next_id += 1
        if self._next_id >= abi.TUNNELS_MAX:
            raise _too_many()
        return self._next_id, True


def _too_many() -> errors.HostError:
    return errors.HostError(
        f"there are more tunnels than the {abi.TUNNELS_MAX} that one host can have",
        remedy="take tunnels out of the configuration",
    )


# --- reading ------------------------------------------------------------------------------------


@dataclass(slots=True)
class _References:
    """What points to a slot."""

    device: int | None = None
    inner: int | None = None
    next_hops: list[tuple[int, Address]] = field(default_factory=list)


def read(data_path: DataPath, links: dict[str, Link]) -> Placement:
    """The tunnels that the data path knows; an entry is bound when all its map entries agree."""
    names = {link.index: link.name for link in links.values()}
    devices = data_path.devices()
    endpoints = data_path.endpoints()
    sources = _sources(data_path)
    found = Placement()
    pointed_to = _references(data_path, devices)
    for slot, references in pointed_to.items():
        tunnel = data_path.tunnel(slot)
        if not tunnel.name:
            continue
        device_name = names.get(tunnel.device_ifindex, tunnel.name.decode())
        hops = references.next_hops
        entry = encoding.decode_tunnel(
            tunnel,
            sources.get(tunnel.id, frozenset()),
            device=device_name,
            next_hops=tuple(sorted((address for _, address in hops), key=_by_version)),
        )
        device, inner = links.get(device_name), links.get(inner_name(device_name))
        is_bound = (
            entry.name not in found.by_name
            and entry.is_bound
            and device is not None
            and inner is not None
            and (tunnel.device_ifindex, tunnel.inner_ifindex) == (device.index, inner.index)
            and abi.read_mac(tunnel.device_mac) == device.mac
            and _is_pointed_to(references, devices, device.index, inner.index)
            and endpoints.get(bytes(encoding.receiving_endpoint(entry))) == slot
            and bytes(encoding.pair_endpoint(entry)) in endpoints
            and bytes(encoding.local_endpoint(entry)) in endpoints
        )
        if not is_bound:
            entry = encoding.unbound(entry)
        # A change that was interrupted leaves two slots of one name: neither is whole.
        found.put(Placed(entry, slot, tunnel.id, tunnel.device_ifindex, tunnel.inner_ifindex))
    for slot in pointed_to:
        found.occupy(slot)
    return found


def _by_version(address: Address) -> int:
    return address.version


def _is_pointed_to(
    references: _References, devices: Mapping[int, abi.Device], device: int, inner: int
) -> bool:
    """Is all that leads packets to a slot there?"""
    if not references.next_hops:
        return (references.device, references.inner) == (device, inner)
    ends = {device: abi.DeviceRole.TUNNEL, inner: abi.DeviceRole.INNER}
    return all(ifindex == device for ifindex, _ in references.next_hops) and all(
        ifindex in devices and devices[ifindex].role == role and devices[ifindex].is_shared
        for ifindex, role in ends.items()
    )


def _references(data_path: DataPath, devices: Mapping[int, abi.Device]) -> dict[int, _References]:
    found: dict[int, _References] = {}
    for ifindex, device in devices.items():
        if device.is_shared or device.role == abi.DeviceRole.PORT:
            continue
        references = found.setdefault(device.slot, _References())
        if device.role == abi.DeviceRole.TUNNEL:
            references.device = ifindex
        else:
            references.inner = ifindex
    for key, slot in data_path.next_hops().items():
        hop = abi.NextHop.from_buffer_copy(key)
        found.setdefault(slot, _References()).next_hops.append(encoding.decode_next_hop(hop))
    return found


def _sources(data_path: DataPath) -> dict[int, frozenset[Network]]:
    """The allowed inner sources of tunnels, by id."""
    found: dict[int, set[Network]] = {}
    for key in data_path.sources():
        tunnel_id, network = encoding.decode_source(key)
        found.setdefault(tunnel_id, set()).add(network)
    return {tunnel_id: frozenset(networks) for tunnel_id, networks in found.items()}


# --- writing ------------------------------------------------------------------------------------


def put(
    data_path: DataPath, placement: Placement, new: TunnelEntry, device: Link, inner: Link
) -> None:
    """Let packets meet a tunnel as it should be; raises ``OSError``, ``HostError``."""
    before = placement.by_name.get(new.name)
    tunnel_id, is_new = placement.id_of(new.name)
    if is_new:
        data_path.reset_tunnel_counters(tunnel_id)
    if is_new or (before is not None and _peer(before.entry) != _peer(new)):
        data_path.reset_sequences(tunnel_id)
    # Allowed before they are asked for, and forgotten when nobody asks any more.
    for network in new.allowed_sources:
        data_path.put_source(encoding.encode_source(tunnel_id, network))
    placed = Placed(new, placement.free_slot(), tunnel_id, device.index, inner.index)
    data_path.put_tunnel(
        placed.slot,
        encoding.encode_tunnel(
            new,
            tunnel_id=tunnel_id,
            device_ifindex=device.index,
            inner_ifindex=inner.index,
            device_mac=device.mac,
        ),
    )
    data_path.put_endpoint(encoding.local_endpoint(new), 0)
    data_path.put_endpoint(encoding.pair_endpoint(new), 0)
    data_path.put_endpoint(encoding.receiving_endpoint(new), placed.slot)
    for ifindex, wanted in _devices(placed):
        data_path.put_device(ifindex, wanted)
    for address in new.next_hops:
        data_path.put_next_hop(encoding.encode_next_hop(device.index, address), placed.slot)
    placement.put(placed)


def _devices(placed: Placed) -> Iterator[tuple[int, abi.Device]]:
    """Both ends of its device, as the data path must know them."""
    is_shared = bool(placed.entry.next_hops)
    slot = 0 if is_shared else placed.slot
    yield placed.inner_ifindex, abi.Device(abi.DeviceRole.INNER, slot, is_shared=is_shared)
    yield placed.device_ifindex, abi.Device(abi.DeviceRole.TUNNEL, slot, is_shared=is_shared)


def _peer(entry: TunnelEntry) -> tuple[object, ...]:
    """With another of these it is another sender, whose sequence starts at 0 (RFC 2890 2.2)."""
    return (entry.local, entry.remote, entry.ikey, entry.iseq)


def delete(data_path: DataPath, placement: Placement, name: str) -> None:
    """Let no packet meet a tunnel any more; what else there is of it, ``sweep`` finds."""
    placed = placement.remove(name)
    if placed is None:
        return
    endpoint = encoding.receiving_endpoint(placed.entry)
    # Unless another tunnel has taken it over.
    if data_path.endpoint(endpoint) == placed.slot:
        data_path.delete_endpoint(bytes(endpoint))
    for address in placed.entry.next_hops:
        hop = encoding.encode_next_hop(placed.device_ifindex, address)
        if data_path.next_hop(hop) == placed.slot:
            data_path.delete_next_hop(bytes(hop))
    # The ends of a shared device are for others, too.
    if not placed.entry.next_hops:
        data_path.delete_device(placed.device_ifindex)
        data_path.delete_device(placed.inner_ifindex)


def sweep(data_path: DataPath, placement: Placement) -> None:
    """Delete what no tunnel has: of former values, or left by a crash."""
    endpoints: dict[bytes, int] = {}
    hops: dict[bytes, int] = {}
    devices: dict[int, bytes] = {}
    sources: dict[int, frozenset[Network]] = {}
    for placed in placement.by_name.values():
        endpoints[bytes(encoding.receiving_endpoint(placed.entry))] = placed.slot
        # These two stand for no tunnel in particular.
        endpoints[bytes(encoding.pair_endpoint(placed.entry))] = 0
        endpoints[bytes(encoding.local_endpoint(placed.entry))] = 0
        for address in placed.entry.next_hops:
            hops[bytes(encoding.encode_next_hop(placed.device_ifindex, address))] = placed.slot
        devices |= {ifindex: bytes(wanted) for ifindex, wanted in _devices(placed)}
        sources[placed.id] = placed.entry.allowed_sources
    for key, slot in data_path.endpoints().items():
        if endpoints.get(key) != slot:
            data_path.delete_endpoint(key)
    for key, slot in data_path.next_hops().items():
        if hops.get(key) != slot:
            data_path.delete_next_hop(key)
    for ifindex, device in data_path.devices().items():
        if device.role != abi.DeviceRole.PORT and devices.get(ifindex) != bytes(device):
            data_path.delete_device(ifindex)
    for source in data_path.sources():
        owner, network = encoding.decode_source(source)
        if network not in sources.get(owner, ()):
            data_path.delete_source(source)
