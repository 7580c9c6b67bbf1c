"""The interop matrix: which tunnels it has, and its results as a table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from typing import Final

from kernel_network import FAMILIES, KINDS, Family, Pair

# Keys by their name: in our words and in the kernel's, whose "i" is our "o".
KEYS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "nokey": ((), ()),
    "key": (("key = 77",), ("key", "77")),
    "ikey-okey": (("ikey = 5", 'okey = "192.0.2.9"'), ("ikey", "192.0.2.9", "okey", "5")),
}
OPTIONS: Final[dict[str, tuple[str, ...]]] = {
    "plain": (),
    "csum": ("csum",),
    "seq": ("seq",),
    "csum-seq": ("csum", "seq"),
}


@dataclass(frozen=True, slots=True)
class Tunnel:
    """A row's tunnel: its ends, and the place that it has in the table."""

    pair: Pair
    key: str
    options: str

    @property
    def row(self) -> tuple[str, str]:
        """Kind and key."""
        return self.pair.kind, self.key


def _tunnels() -> list[Tunnel]:
    found = []
    for number, (kind, key, options) in enumerate(product(KINDS, KEYS, OPTIONS), start=1):
        ours, theirs = KEYS[key]
        ours += tuple(f"{option} = true" for option in OPTIONS[options])
        theirs += OPTIONS[options]
        # By default the kernel's ip6gre puts Destination Options before GRE (encaplimit 4,
        # RFC 2473): half of the tunnels have them, the others do not.
        if kind.startswith("ip6") and "seq" in OPTIONS[options]:
            theirs += ("encaplimit", "none")
        found.append(Tunnel(Pair(number, kind, ours, theirs), key, options))
    return found


TUNNELS: Final = _tunnels()


@dataclass(frozen=True, slots=True)
class Cell:
    """A tunnel and the family of what it carries."""

    tunnel: Tunnel
    family: Family

    def __str__(self) -> str:
        options = [] if self.tunnel.options == "plain" else [self.tunnel.options]
        return "-".join([*self.tunnel.row, *options, self.family])


CELLS: Final = [Cell(tunnel, family) for tunnel in TUNNELS for family in FAMILIES]


def to_markdown(results: Mapping[str, bool]) -> str:
    """The table of results by cell; a cell without one was not run."""
    columns = list(product(OPTIONS, FAMILIES))
    titles = {"ipv4": "IPv4", "ipv6": "IPv6"}
    headers = {"plain": "", "csum": "csum ", "seq": "seq ", "csum-seq": "csum, seq "}
    rows = [["tunnel", "key", *(headers[options] + titles[family] for options, family in columns)]]
    for kind, key in product(KINDS, KEYS):
        cells = {
            (cell.tunnel.options, cell.family): results.get(str(cell))
            for cell in CELLS
            if cell.tunnel.row == (kind, key)
        }
        names = {"nokey": "none", "ikey-okey": "ikey ≠ okey"}
        words = {True: "ok", False: "FAIL", None: "not run"}
        rows.append([kind, names.get(key, key), *(words[cells[column]] for column in columns)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [f"| {' | '.join(map(str.ljust, row, widths))} |" for row in rows]
    ruler = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
    return "\n".join([lines[0], ruler, *lines[1:]])
