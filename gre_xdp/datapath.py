"""The data plane of one network namespace: its pinned maps, programs and attachments.

Loads what ``compiler`` compiled, with attach type BPF_XDP, and attaches it by pinned links: they
survive us, refuse other programs with EBUSY, and change programs atomically.
"""

from __future__ import annotations

import contextlib
import ctypes as ct
import errno
import hashlib
import os
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gre_xdp import abi, bpf, compiler, errors
from gre_xdp.abi import MapIndex
from gre_xdp.migration import SHARED_MAPS, Former
from gre_xdp.pins import Pins
from gre_xdp.resources import Program

_PROGRAM_FUNCTIONS: dict[Program, str] = {"port": "gre_xdp_port", "inner": "gre_xdp_inner"}
_MODE_FLAGS = {"native": bpf.XDP_FLAGS_NATIVE, "skb": bpf.XDP_FLAGS_SKB}
_DIGEST_CHARACTERS = 12
_ATTACH_TRIES = 20
_ATTACH_RETRY_S = 0.01
_FILLING_MAPS = (
    MapIndex.ENDPOINTS,
    MapIndex.DEVICES,
    MapIndex.PORTS,
    MapIndex.SOURCES,
    MapIndex.NEXT_HOPS,
    MapIndex.NEIGHBOURS,
)


@cache
def source_digest() -> str:
    """What this process's programs are compiled from; names their pins.

    Read once: an upgrade that replaces files under a running process is not for that process.
    """
    return _digest_on_disk()


def _digest_on_disk() -> str:
    # The same sources with another layout of the maps are other programs.
    digest = hashlib.sha256(f"v{abi.PIN_VERSION}".encode())
    for path in sorted(compiler.source_dir().glob("*.[ch]")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:_DIGEST_CHARACTERS]


@dataclass(frozen=True, slots=True)
class PinnedLink:
    """One of our attachments; ``ifindex`` is 0 when its device is gone."""

    path: Path
    ifindex: int
    program_id: int


@dataclass(frozen=True, slots=True)
class MapUse:
    """How full a map is."""

    name: str
    entries: int
    max_entries: int


class DataPath:
    """Open maps of a namespace. Use ``open_existing`` or ``create``, and ``close``.

    ``formers`` are data planes of other layouts, whose attachments and counters are taken over.
    """

    def __init__(
        self, pins: Pins, fds: dict[MapIndex, int], formers: Sequence[Former] = ()
    ) -> None:
        self.pins = pins
        self._fds = fds
        self._places = (pins, *(former.pins for former in formers))

    @classmethod
    def open_existing(cls, pins: Pins, formers: Sequence[Former] = ()) -> DataPath | None:
        """The data plane that is pinned, or None if there is none.

        Raises ``KernelError`` when a pinned map has another layout than this version's.
        """
        if not pins.exists():
            return None
        fds: dict[MapIndex, int] = {}
        for index, spec in abi.MAPS.items():
            path = pins.maps / spec.name
            try:
                fds[index] = bpf.get(path)
            except FileNotFoundError:
                # Interrupted before it was complete: creating continues where that stopped.
                continue
        data_path = cls(pins, fds, formers)
        try:
            for index, fd in fds.items():
                _require_layout(fd, abi.MAPS[index], pins.maps / abi.MAPS[index].name)
        except errors.KernelError:
            data_path.close()
            raise
        return data_path

    @classmethod
    def create(cls, pins: Pins, formers: Sequence[Former] = ()) -> DataPath:
        """Make and pin what is missing of the maps; raises ``OSError``, ``KernelError``."""
        pins.make()
        data_path = cls.open_existing(pins, formers)
        assert data_path is not None
        for index, spec in abi.MAPS.items():
            if index not in data_path._fds:
                is_shared = bool(formers) and index in SHARED_MAPS
                fd = formers[0].open_shared_map(index) if is_shared else bpf.map_create(spec)
                data_path._fds[index] = fd
                bpf.pin(fd, pins.maps / spec.name)
        return data_path

    @property
    def is_complete(self) -> bool:
        """Are all maps there?"""
        return len(self._fds) == len(abi.MAPS)

    def close(self) -> None:
        """Close the descriptors; pins keep everything alive."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()

    # --- programs -------------------------------------------------------------------------------

    def load_programs(self, digest: str) -> None:
        """Compile, load and pin the programs under their digest; raises ``KernelError``."""
        bytecode = compiler.compile_programs()
        if _digest_on_disk() != digest:
            raise errors.KernelError(
                "the C sources are no longer those that this process started with",
                remedy="restart the agent after an upgrade",
            )
        directory = self.pins.programs / digest
        directory.mkdir(mode=0o700, exist_ok=True)
        fds = [self._fds[index] for index in abi.MapIndex]
        for program, function in _PROGRAM_FUNCTIONS.items():
            path = directory / program
            path.unlink(missing_ok=True)
            with bpf.owned(bpf.prog_load(function, bytecode.programs[function], fds)) as fd:
                bpf.pin(fd, path)

    def pinned_digests(self) -> list[str]:
        """Digests of which all programs are pinned."""
        return sorted(
            directory.name
            for directory in _entries(self.pins.programs)
            if all((directory / program).exists() for program in _PROGRAM_FUNCTIONS)
        )

    def prune_programs(self, keep: str) -> None:
        """Unpin programs of other digests; those still attached live on in their links."""
        for directory in _entries(self.pins.programs):
            if directory.name != keep:
                for path in directory.iterdir():
                    path.unlink()
                directory.rmdir()

    @contextlib.contextmanager
    def open_program(self, digest: str, program: Program) -> Iterator[int]:
        """A pinned program's descriptor for the time of a block."""
        place = self._place_of(digest)
        with bpf.owned(bpf.get(place.programs / digest / program)) as fd:
            yield fd

    def _place_of(self, digest: str) -> Pins:
        """Where programs are pinned: with ours, or with those of another layout."""
        return next(
            (place for place in self._places if (place.programs / digest).is_dir()), self.pins
        )

    # --- attachments ----------------------------------------------------------------------------

    def links(self) -> list[PinnedLink]:
        """Our attachments."""
        return pinned_links(self._places)

    def attach(self, ifindex: int, program: Program, digest: str, mode: str) -> None:
        """Attach a program to a device, or replace ours there; raises ``OSError``."""
        path = self._place_of(digest).links / str(ifindex)
        found = next(_link_paths(self._places, ifindex), None)
        with self.open_program(digest, program) as program_fd:
            if found is not None:
                with bpf.owned(bpf.get(found)) as link_fd:
                    if bpf.link_info(link_fd).ifindex == ifindex:
                        bpf.link_update(link_fd, program_fd)
                        # Taken over from another layout, or given back to it.
                        if found != path:
                            found.rename(path)
                        return
                found.unlink()
            with bpf.owned(_create_link(program_fd, ifindex, _MODE_FLAGS[mode])) as link_fd:
                bpf.pin(link_fd, path)

    def detach(self, ifindex: int) -> None:
        """Detach ours from a device; nothing happens if it is not there."""
        detach(self._places, ifindex)

    # --- targets and devices --------------------------------------------------------------------

    def put_target(self, ifindex: int) -> None:
        """Let the programs send out of a device."""
        key = abi.u32(ifindex)
        bpf.map_update(self._fds[MapIndex.PORTS], key, key)

    def delete_target(self, ifindex: int) -> None:
        """Stop that."""
        bpf.map_delete(self._fds[MapIndex.PORTS], abi.u32(ifindex))

    def targets(self) -> list[int]:
        """The devices that the programs may send out of; the kernel takes vanished ones out."""
        return [abi.read_u32(key) for key in bpf.map_keys(self._fds[MapIndex.PORTS], 4)]

    def put_device(self, ifindex: int, device: abi.Device) -> None:
        """Tell the programs what a device is."""
        bpf.map_update(self._fds[MapIndex.DEVICES], abi.u32(ifindex), bytes(device))

    def delete_device(self, ifindex: int) -> None:
        """Let the programs forget a device."""
        bpf.map_delete(self._fds[MapIndex.DEVICES], abi.u32(ifindex))

    def devices(self) -> dict[int, abi.Device]:
        """What the programs know of devices, by interface index."""
        return {
            abi.read_u32(key): abi.Device.from_buffer_copy(value)
            for key, value in bpf.map_items(self._fds[MapIndex.DEVICES])
        }

    def vlan(self, vlan: abi.Vlan) -> int | None:
        """The index of the device that a VLAN's frames come in by."""
        value = bpf.map_lookup(self._fds[MapIndex.VLANS], bytes(vlan), 4)
        return None if value is None else abi.read_u32(value)

    def put_vlan(self, vlan: abi.Vlan, ifindex: int) -> None:
        """Let a VLAN's frames come in by a device."""
        bpf.map_update(self._fds[MapIndex.VLANS], bytes(vlan), abi.u32(ifindex))

    def forget_vlans(self, ifindex: int) -> None:
        """Let no VLAN's frames come in by a device."""
        fd = self._fds[MapIndex.VLANS]
        for key, value in bpf.map_items(fd):
            if value == abi.u32(ifindex):
                bpf.map_delete(fd, key)

    # --- settings -------------------------------------------------------------------------------

    def put_unknown_gre(self, policy: str) -> None:
        """Set the policy for GRE that no tunnel takes: ``drop`` or ``pass``."""
        settings = abi.Settings(unknown_gre_pass=policy == "pass")
        bpf.map_update(self._fds[MapIndex.SETTINGS], abi.u32(0), bytes(settings))

    def unknown_gre(self) -> str:
        """The policy in force."""
        value = bpf.map_lookup(self._fds[MapIndex.SETTINGS], abi.u32(0), ct.sizeof(abi.Settings))
        assert value is not None  # an array always has its entries
        return "pass" if abi.Settings.from_buffer_copy(value).unknown_gre_pass else "drop"

    # --- tunnels --------------------------------------------------------------------------------

    def tunnel(self, slot: int) -> abi.Tunnel:
        """What is in a slot."""
        value = bpf.map_lookup(self._fds[MapIndex.TUNNELS], abi.u32(slot), ct.sizeof(abi.Tunnel))
        assert value is not None  # an array always has its entries
        return abi.Tunnel.from_buffer_copy(value)

    def put_tunnel(self, slot: int, tunnel: abi.Tunnel) -> None:
        """Write into a slot."""
        bpf.map_update(self._fds[MapIndex.TUNNELS], abi.u32(slot), bytes(tunnel))

    def endpoint(self, endpoint: abi.Endpoint) -> int | None:
        """The slot of the tunnel that receives from an endpoint."""
        value = bpf.map_lookup(self._fds[MapIndex.ENDPOINTS], bytes(endpoint), 4)
        return None if value is None else abi.read_u32(value)

    def endpoints(self) -> dict[bytes, int]:
        """All endpoints, as keys of their map, and the slots they stand for."""
        items = bpf.map_items(self._fds[MapIndex.ENDPOINTS])
        return {key: abi.read_u32(value) for key, value in items}

    def put_endpoint(self, endpoint: abi.Endpoint, slot: int) -> None:
        """Let the tunnel in a slot receive from an endpoint."""
        bpf.map_update(self._fds[MapIndex.ENDPOINTS], bytes(endpoint), abi.u32(slot))

    def delete_endpoint(self, key: bytes) -> None:
        """Stop that."""
        bpf.map_delete(self._fds[MapIndex.ENDPOINTS], key)

    def next_hop(self, hop: abi.NextHop) -> int | None:
        """The slot of the tunnel that a next hop on a shared device selects."""
        value = bpf.map_lookup(self._fds[MapIndex.NEXT_HOPS], bytes(hop), 4)
        return None if value is None else abi.read_u32(value)

    def next_hops(self) -> dict[bytes, int]:
        """All next hops on shared devices, as keys of their map, and the slots they select."""
        items = bpf.map_items(self._fds[MapIndex.NEXT_HOPS])
        return {key: abi.read_u32(value) for key, value in items}

    def put_next_hop(self, hop: abi.NextHop, slot: int) -> None:
        """Let a next hop on a shared device select the tunnel in a slot."""
        bpf.map_update(self._fds[MapIndex.NEXT_HOPS], bytes(hop), abi.u32(slot))

    def delete_next_hop(self, key: bytes) -> None:
        """Stop that."""
        bpf.map_delete(self._fds[MapIndex.NEXT_HOPS], key)

    def neighbours(self) -> dict[bytes, int]:
        """Neighbours that frames were sent to, and when last, in ns since boot."""
        items = bpf.map_items(self._fds[MapIndex.NEIGHBOURS])
        return {key: int.from_bytes(value, sys.byteorder) for key, value in items}

    def sources(self) -> list[abi.SourcePrefix]:
        """All prefixes of allowed inner sources."""
        items = bpf.map_items(self._fds[MapIndex.SOURCES])
        return [abi.SourcePrefix.from_buffer_copy(key) for key, _ in items]

    def put_source(self, source: abi.SourcePrefix) -> None:
        """Allow a tunnel an inner source."""
        bpf.map_update(self._fds[MapIndex.SOURCES], bytes(source), b"\1")

    def delete_source(self, source: abi.SourcePrefix) -> None:
        """Stop that."""
        bpf.map_delete(self._fds[MapIndex.SOURCES], bytes(source))

    def reset_sequences(self, tunnel_id: int) -> None:
        """Start a new tunnel's sequence numbers at zero (RFC 2890 section 2.2)."""
        empty = bytes(abi.Sequences())
        bpf.map_update(self._fds[MapIndex.SEQUENCES], abi.u32(tunnel_id), empty)

    # --- counters -------------------------------------------------------------------------------

    def tunnel_counters(self, tunnel_id: int) -> abi.Counters:
        """Packets and bytes of one tunnel, both directions, all CPUs."""
        value = bpf.map_lookup(
            self._fds[MapIndex.TUNNEL_COUNTERS],
            abi.u32(tunnel_id),
            abi.percpu_size(ct.sizeof(abi.TunnelCounters)),
        )
        assert value is not None  # an array always has its entries
        return abi.sum_counters(value)

    def reset_tunnel_counters(self, tunnel_id: int) -> None:
        """Start a new tunnel at zero."""
        zeros = bytes(abi.percpu_size(ct.sizeof(abi.TunnelCounters)))
        bpf.map_update(self._fds[MapIndex.TUNNEL_COUNTERS], abi.u32(tunnel_id), zeros)

    def reason_count(self, code: int) -> int:
        """How many packets met a reason, all CPUs."""
        value = bpf.map_lookup(
            self._fds[MapIndex.REASON_COUNTERS], abi.u32(code), abi.percpu_size(8)
        )
        assert value is not None  # an array always has its entries
        return abi.sum_u64(value)

    def map_uses(self) -> list[MapUse]:
        """How full the maps are whose number of entries follows the configuration."""
        alone = [
            device.slot
            for device in self.devices().values()
            if device.role == abi.DeviceRole.TUNNEL and not device.is_shared
        ]
        counted = {MapIndex.TUNNELS: len({*alone, *self.next_hops().values()})}
        for index in _FILLING_MAPS:
            counted[index] = len(bpf.map_keys(self._fds[index], abi.MAPS[index].key_size))
        return [
            MapUse(abi.MAPS[index].name, entries, abi.MAPS[index].max_entries)
            for index, entries in counted.items()
        ]


def _create_link(program_fd: int, ifindex: int, flags: int) -> int:
    """Attach; the kernel detaches a link that was unpinned a moment after that, from a queue."""
    for _ in range(_ATTACH_TRIES):
        try:
            return bpf.link_create(program_fd, ifindex, flags)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
        time.sleep(_ATTACH_RETRY_S)
    return bpf.link_create(program_fd, ifindex, flags)


def pinned_links(places: Iterable[Pins]) -> list[PinnedLink]:
    """The attachments that are pinned in some places."""
    found = []
    for place in places:
        for path in _entries(place.links):
            try:
                with bpf.owned(bpf.get(path)) as fd:
                    info = bpf.link_info(fd)
            except FileNotFoundError:
                # Whoever only looks holds no lock: it has just been unpinned.
                continue
            found.append(PinnedLink(path=path, ifindex=info.ifindex, program_id=info.prog_id))
    return found


def _link_paths(places: Iterable[Pins], ifindex: int) -> Iterator[Path]:
    """Where the attachment to a device may be pinned."""
    for place in places:
        path = place.links / str(ifindex)
        if path.exists():
            yield path


def detach(places: Iterable[Pins], ifindex: int) -> None:
    """Detach what is pinned in one of some places from a device; being absent is success."""
    for path in _link_paths(places, ifindex):
        path.unlink()


def program_ids(places: Iterable[Pins]) -> dict[int, tuple[Program, str]]:
    """The programs that are pinned in some places: number → (program, digest)."""
    found: dict[int, tuple[Program, str]] = {}
    for place in places:
        for directory in _entries(place.programs):
            for program in _PROGRAM_FUNCTIONS:
                with (
                    contextlib.suppress(FileNotFoundError),
                    bpf.owned(bpf.get(directory / program)) as fd,
                ):
                    found[bpf.prog_id(fd)] = (program, directory.name)
    return found


def _entries(directory: Path) -> list[Path]:
    """What is in a directory of pins; nothing if making the pins was interrupted before it."""
    return sorted(directory.iterdir()) if directory.is_dir() else []


def _require_layout(fd: int, expected: bpf.MapSpec, path: Path) -> None:
    if not bpf.has_layout(fd, expected):
        raise errors.KernelError(
            f"the pinned map {expected.name} has another layout than this version's",
            remedy="run gre-xdp down with the version that made it, then apply with this one",
            where=str(path),
        )


def attach_failure(error: OSError, device: str, mode: str) -> errors.GreXdpError:
    """Say why a program could not be attached, and what to do."""
    if error.errno == errno.EBUSY:
        return errors.ForeignError(
            f"another XDP program is attached to {device}",
            remedy=f"detach it (ip link set dev {device} xdp off, or its owner's own command)",
            where=device,
        )
    if error.errno in (errno.EOPNOTSUPP, errno.EINVAL) and mode == "native":
        return errors.KernelError(
            f"the driver of {device} refuses native XDP ({error.strerror})",
            remedy='update the driver, or set mode = "skb" for this interface (slower)',
            where=device,
        )
    if error.errno == errno.ERANGE:
        return errors.KernelError(
            f"the MTU of {device} is too large for native XDP",
            remedy="lower its MTU (3500 always fits), or update the driver",
            where=device,
        )
    return errors.KernelError(
        f"attaching to {device} in mode {mode}: {error.strerror}",
        remedy="see dmesg for the driver's own words",
        where=device,
    )
