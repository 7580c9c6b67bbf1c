"""Firewall chains that forwarded packets meet in the kernel, and would not meet in XDP."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from pyroute2.nftables.main import NFTables

from gre_xdp.netlink import NetlinkError

_FAMILIES = {1: "inet", 2: "ip", 10: "ip6"}
_HOOK_FORWARD = 2
_POLICY_DROP = 0
# A kernel without nf_tables answers so, and then there is nothing in it.
_NO_NFTABLES = frozenset(
    {errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.ENOENT, errno.EINVAL}
)
_LEGACY_TABLES = {
    "ip": Path("/proc/net/ip_tables_names"),
    "ip6": Path("/proc/net/ip6_tables_names"),
}


@dataclass(frozen=True, slots=True)
class ForwardChain:
    """A base chain at the forward hook that may drop, or a legacy table that may hold one."""

    name: str  # "inet filter forward", as nft lists it
    rules: int
    is_drop_policy: bool


def forward_chains() -> list[ForwardChain]:
    """The chains of this namespace's forward hook that have rules or a drop policy."""
    return [chain for chain in _nft_chains() if chain.rules or chain.is_drop_policy] + [
        ForwardChain(name=f"{family}tables-legacy filter", rules=0, is_drop_policy=False)
        for family, path in _LEGACY_TABLES.items()
        if "filter" in _lines(path)
    ]


def _nft_chains() -> list[ForwardChain]:
    try:
        with NFTables(nfgen_family=0) as nft:
            messages = list(nft.get_chains())
    except (NetlinkError, OSError) as error:
        code = error.code if isinstance(error, NetlinkError) else error.errno
        if code in _NO_NFTABLES:
            return []
        raise
    chains = []
    for message in messages:
        hook = message.get_attr("NFTA_CHAIN_HOOK")
        family = _FAMILIES.get(message["nfgen_family"])
        if not hook or not family or hook.get_attr("NFTA_HOOK_HOOKNUM") != _HOOK_FORWARD:
            continue
        chains.append(
            ForwardChain(
                name=f"{family} {message.get_attr('NFTA_CHAIN_TABLE')}"
                f" {message.get_attr('NFTA_CHAIN_NAME')}",
                rules=message.get_attr("NFTA_CHAIN_USE") or 0,
                is_drop_policy=message.get_attr("NFTA_CHAIN_POLICY") == _POLICY_DROP,
            )
        )
    return chains


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().split()
    except OSError:
        return []
