"""Data planes of other layouts in this namespace: taking over from one without losing a packet.

Each layout has pins of its own (``v<N>``). The other's links are kept and get the new programs by
``bpf_link_update``, one after the other; maps that look the same in both layouts, the counters
above all, are shared, so nothing is copied and nothing is counted twice. It works both ways: an
older version takes over from a newer one.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from gre_xdp import abi, bpf, errors, memory
from gre_xdp.abi import MapIndex
from gre_xdp.netlink import namespaces
from gre_xdp.pins import BPFFS, Pins

# What must outlive a change of layout.
SHARED_MAPS = (MapIndex.TUNNEL_COUNTERS, MapIndex.REASON_COUNTERS, MapIndex.SEQUENCES)

# What never changes (bpf/gre_abi.h).
_NAME_BYTES = 16
_ID_OFFSET = 16
_FIRST_LAYOUT_WITH_ID = 3
_TUNNEL_ROLES = (2, 3)


@dataclass(frozen=True, slots=True)
class Former:
    """A data plane of another layout."""

    version: int
    pins: Pins

    def open_shared_map(self, index: MapIndex) -> int:
        """A descriptor of a map to go on with; the caller closes it.

        Raises ``KernelError`` where this version's map looks different.
        """
        spec = abi.MAPS[index]
        try:
            fd = bpf.get(self.pins.maps / spec.name)
        except FileNotFoundError as error:
            raise self._refusal(f"has no map {spec.name}") from error
        if not bpf.has_layout(fd, spec):
            os.close(fd)
            raise self._refusal(f"keeps {spec.name} in another form")
        return fd

    def require_takeover(self) -> None:
        """Raise ``KernelError`` when its counters cannot be taken over."""
        for index in SHARED_MAPS:
            os.close(self.open_shared_map(index))

    def _refusal(self, why: str) -> errors.KernelError:
        return errors.KernelError(
            f"layout v{self.version} of another gre-xdp version runs here, and it {why}",
            remedy="run gre-xdp down with that version, then apply with this one;"
            " counters start again",
            where=str(self.pins.root),
        )

    def tunnel_ids(self) -> dict[str, int]:
        """Its tunnels' ids by name: where their counters are. Raises ``OSError``."""
        slots = set()
        with bpf.owned(bpf.get(self.pins.maps / "devices")) as fd:
            for _, value in bpf.map_items(fd):
                role, slot = abi.read_u32(value[:4]), abi.read_u32(value[4:8])
                if role in _TUNNEL_ROLES:
                    slots.add(slot)
        with contextlib.suppress(FileNotFoundError), bpf.owned(self._open("next_hops")) as fd:
            slots |= {abi.read_u32(value) for _, value in bpf.map_items(fd)}
        found = {}
        with bpf.owned(self._open("tunnels")) as fd:
            for slot in slots:
                value = bpf.map_lookup(fd, abi.u32(slot), bpf.map_spec(fd).value_size) or b""
                name = value[:_NAME_BYTES].rstrip(b"\0").decode(errors="replace")
                has_id = self.version >= _FIRST_LAYOUT_WITH_ID
                if name:
                    at = value[_ID_OFFSET : _ID_OFFSET + 4]
                    found[name] = abi.read_u32(at) if has_id else slot
        return found

    def _open(self, name: str) -> int:
        return bpf.get(self.pins.maps / name)


def find(pins: Pins) -> list[Former]:
    """Data planes of other layouts in the namespace of these pins, the newest first."""
    found = []
    for root in _layouts():
        other = Pins(root / pins.root.name)
        if root != pins.root.parent and other.maps.is_dir():
            found.append(Former(int(root.name.removeprefix("v")), other))
    return sorted(found, key=lambda former: -former.version)


def prune_dead_namespaces() -> None:
    """Remove pins and notes of network namespaces that are gone; pins keep programs alive.

    Whoever may not look into other namespaces removes nothing.
    """
    dead = [place for root in _layouts() for place in _without_devices(root)]
    notes = memory.notes_by_namespace()
    if not dead and not notes:
        return
    try:
        alive = {str(cookie) for cookie in namespaces.live_cookies()}
    except OSError:
        return
    for place in dead:
        if place.root.name not in alive:
            place.remove()
    for cookie, paths in notes.items():
        if cookie not in alive:
            for path in paths:
                path.unlink(missing_ok=True)


def _without_devices(layout: Path) -> Iterator[Pins]:
    """Pins of which no attachment is on a device any more."""
    for root in layout.iterdir():
        place = Pins(root)
        links = list(place.links.iterdir()) if place.links.is_dir() else []
        if not any(_is_attached(link) for link in links):
            yield place


def _is_attached(path: Path) -> bool:
    with bpf.owned(bpf.get(path)) as fd:
        return bpf.link_info(fd).ifindex != 0


def _layouts() -> list[Path]:
    directory = BPFFS / "gre-xdp"
    if not directory.is_dir():
        return []
    return [path for path in directory.iterdir() if path.name.removeprefix("v").isdecimal()]
