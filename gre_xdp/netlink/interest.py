"""Which changes of routes and neighbours concern a configuration; all others are not looked at."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field

from gre_xdp.netlink import PROTOCOL
from gre_xdp.netlink.routes import Address, Network

_BITS = {4: 32, 16: 128}  # by bytes of an address


@dataclass(frozen=True, slots=True)
class Interest:
    """Ends of tunnels and routes into them; addresses are numbers, by their length in bytes."""

    ends: dict[int, list[int]] = field(default_factory=dict)  # ascending
    prefixes: dict[int, frozenset[tuple[int, int]]] = field(default_factory=dict)

    @classmethod
    def of(cls, ends: Iterable[Address], prefixes: Iterable[Network]) -> Interest:
        """Locals and remotes of tunnels, and the prefixes that are to be routed into them."""
        addresses: dict[int, set[int]] = {size: set() for size in _BITS}
        for end in ends:
            addresses[len(end.packed)].add(int(end))
        networks: dict[int, set[tuple[int, int]]] = {size: set() for size in _BITS}
        for prefix in prefixes:
            start = prefix.network_address
            networks[len(start.packed)].add((int(start), prefix.prefixlen))
        return cls(
            {size: sorted(found) for size, found in addresses.items()},
            {size: frozenset(found) for size, found in networks.items()},
        )

    def has_route(self, protocol: int, destination: bytes | memoryview, prefixlen: int) -> bool:
        """Does a change of this route concern us?

        Ours do, and those that may lead to an end or that are in the way of one of ours. A full
        table of somebody's routing daemon does not. ``destination`` has its full length.
        """
        if protocol == PROTOCOL or not prefixlen:
            return True
        size = len(destination)
        start = int.from_bytes(destination, "big")
        if (start, prefixlen) in self.prefixes.get(size, ()):
            return True
        ends = self.ends.get(size, [])
        first = bisect_left(ends, start)
        return first < len(ends) and ends[first] < start + (1 << _BITS[size] - prefixlen)
