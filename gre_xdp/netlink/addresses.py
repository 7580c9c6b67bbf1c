"""IP addresses that are ours (they carry our protocol number)."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from gre_xdp.netlink import PROTOCOL, Netlink, dump, family

_IFA_F_NODAD = 0x02

Interface = ipaddress.IPv4Interface | ipaddress.IPv6Interface


@dataclass(frozen=True, slots=True)
class AddressOn:
    """An address with its prefix length, and the device that has it."""

    ifindex: int
    address: Interface
    is_ours: bool


def list_addresses(netlink: Netlink) -> list[AddressOn]:
    """All addresses of the namespace."""
    return [
        AddressOn(
            ifindex=message["index"],
            address=ipaddress.ip_interface(
                f"{message.get_attr('IFA_LOCAL') or message.get_attr('IFA_ADDRESS')}"
                f"/{message['prefixlen']}"
            ),
            is_ours=message.get_attr("IFA_PROTO") == PROTOCOL,
        )
        for message in dump(netlink.get_addr)
    ]


def add(netlink: Netlink, ifindex: int, address: Interface) -> None:
    """Give a device an address; nobody else can be on it, so IPv6 needs no duplicate detection."""
    is_ipv6 = address.version == 6
    netlink.addr(
        "add",
        index=ifindex,
        family=family(address.version),
        address=str(address.ip),
        prefixlen=address.network.prefixlen,
        proto=PROTOCOL,
        **({"flags": _IFA_F_NODAD} if is_ipv6 else {}),
    )


def delete(netlink: Netlink, ifindex: int, address: Interface) -> None:
    """Take an address away."""
    netlink.addr(
        "del",
        index=ifindex,
        family=family(address.version),
        address=str(address.ip),
        prefixlen=address.network.prefixlen,
    )
