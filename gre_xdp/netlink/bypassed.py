"""What packets that XDP forwards do not meet, beside the forward hook: NAT, tc, shapers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pyroute2.nftables.main import NFTables

from gre_xdp.netlink import Netlink, NetlinkError

_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 10: "ip6"}
_INET_HOOKS = {0: "prerouting", 4: "postrouting", 5: "ingress"}
_NETDEV_HOOKS = {0: "ingress", 1: "egress"}
_LEGACY_TABLES = {
    "ip": Path("/proc/net/ip_tables_names"),
    "ip6": Path("/proc/net/ip6_tables_names"),
}
# How every device sends unless somebody has decided otherwise.
_PLAIN_QDISCS = frozenset(
    {"noqueue", "pfifo_fast", "pfifo", "bfifo", "fq", "fq_codel", "codel", "cake", "mq", "sfq"}
)
_ROOT = 0xFFFFFFFF
_INGRESS_QDISCS = frozenset({"clsact", "ingress"})
_CLSACT_INGRESS, _CLSACT_EGRESS, _INGRESS = 0xFFFFFFF2, 0xFFFFFFF3, 0xFFFF0000


@dataclass(frozen=True, slots=True)
class Chain:
    """A firewall chain with rules, not at the forward hook; ``is_nat``: it rewrites addresses."""

    name: str  # "ip nat postrouting", as nft lists it
    hook: str
    is_nat: bool


@dataclass(frozen=True, slots=True)
class Traffic:
    """What tc does on a device: filters, and the kind of a shaping root qdisc or None."""

    filters: int = 0
    shaper: str | None = None


def chains() -> list[Chain]:
    """The chains with rules that forwarded packets meet; raises ``NetlinkError``, ``OSError``."""
    found = [
        Chain(f"{family}tables-legacy nat", "postrouting", is_nat=True)
        for family, path in _LEGACY_TABLES.items()
        if "nat" in _words(path)
    ]
    with NFTables(nfgen_family=0) as nft:
        messages = list(nft.get_chains())
    for message in messages:
        hook = message.get_attr("NFTA_CHAIN_HOOK")
        family = _FAMILIES.get(message["nfgen_family"])
        if not hook or not family or not message.get_attr("NFTA_CHAIN_USE"):
            continue
        hooks = _NETDEV_HOOKS if family == "netdev" else _INET_HOOKS
        name = hooks.get(hook.get_attr("NFTA_HOOK_HOOKNUM"))
        if name is not None:
            table, chain = (message.get_attr(f"NFTA_CHAIN_{word}") for word in ("TABLE", "NAME"))
            is_nat = message.get_attr("NFTA_CHAIN_TYPE") == "nat"
            found.append(Chain(f"{family} {table} {chain}", name, is_nat))
    return found


def traffic(netlink: Netlink, ifindex: int) -> Traffic:
    """What tc does on a device."""
    filters, shaper = 0, None
    for message in netlink.get_qdiscs(ifindex):
        if message["index"] != ifindex:
            continue
        kind = message.get_attr("TCA_KIND")
        if kind in _INGRESS_QDISCS:
            parents = (_CLSACT_INGRESS, _CLSACT_EGRESS) if kind == "clsact" else (_INGRESS,)
            filters += sum(_count_filters(netlink, ifindex, parent) for parent in parents)
        elif message["parent"] == _ROOT and kind not in _PLAIN_QDISCS:
            shaper = str(kind)
    return Traffic(filters, shaper)


def _count_filters(netlink: Netlink, ifindex: int, parent: int) -> int:
    try:
        found = list(netlink.get_filters(index=ifindex, parent=parent))
    except NetlinkError:
        return 0
    # Each filter is listed with a head of its priority, which has no handle.
    return sum(1 for message in found if message["handle"])


def _words(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
