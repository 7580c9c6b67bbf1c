"""Network devices: what there is, and our veth pairs."""

from __future__ import annotations

import errno
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from gre_xdp.netlink import DEVICE_GROUP, DOOMED_GROUP, Netlink, NetlinkError, dump

_IFF_UP = 0x1
_IFF_NOARP = 0x80
_XDP_MODES = {1: "native", 2: "skb", 3: "offload", 4: "several"}


@dataclass(frozen=True, slots=True)
class Link:
    """One network device; ``mtu`` in bytes."""

    name: str
    index: int
    mtu: int
    mac: str
    kind: str | None
    is_up: bool
    is_noarp: bool
    group: int
    peer_index: int | None  # of a veth its other end, of a VLAN the device that it is on
    vlan: tuple[int, int] | None  # of a VLAN: the protocol and ID of its tag
    xdp_mode: str | None
    xdp_program_id: int | None
    rx_dropped: int
    tx_dropped: int
    alias: str


def list_links(netlink: Netlink) -> dict[str, Link]:
    """All devices of the namespace, by name."""
    links = (_link(message) for message in dump(netlink.get_links))
    return {link.name: link for link in links}


def get_link(netlink: Netlink, index: int) -> Link:
    """One device by its index; raises ``NetlinkError`` when there is none."""
    (message,) = netlink.get_links(index)
    return _link(message)


def _link(message: Any) -> Link:
    # A device has some forty attributes: each look-up by name would walk through them.
    found = {slot.name: slot for slot in message["attrs"]}

    def attribute(name: str) -> Any:
        return found[name].value if name in found else None

    info = attribute("IFLA_LINKINFO")
    xdp = attribute("IFLA_XDP")
    mode = _xdp_mode(xdp.get_attr("IFLA_XDP_ATTACHED")) if xdp else None
    statistics = attribute("IFLA_STATS64") or {}
    return Link(
        name=attribute("IFLA_IFNAME"),
        index=message["index"],
        mtu=attribute("IFLA_MTU"),
        mac=attribute("IFLA_ADDRESS") or "",
        kind=info.get_attr("IFLA_INFO_KIND") if info else None,
        is_up=bool(message["flags"] & _IFF_UP),
        is_noarp=bool(message["flags"] & _IFF_NOARP),
        group=attribute("IFLA_GROUP") or 0,
        peer_index=attribute("IFLA_LINK"),
        vlan=_vlan(info) if info else None,
        xdp_mode=mode,
        xdp_program_id=xdp.get_attr("IFLA_XDP_PROG_ID") if mode else None,
        rx_dropped=statistics.get("rx_dropped", 0),
        tx_dropped=statistics.get("tx_dropped", 0),
        alias=attribute("IFLA_IFALIAS") or "",
    )


def _vlan(info: Any) -> tuple[int, int] | None:
    data = info.get_attr("IFLA_INFO_DATA")
    if info.get_attr("IFLA_INFO_KIND") != "vlan" or data is None:
        return None
    return int(data.get_attr("IFLA_VLAN_PROTOCOL")), int(data.get_attr("IFLA_VLAN_ID"))


def _xdp_mode(attached: Any) -> str | None:
    # pyroute2 names some of the values; the kernel's numbers are in if_link.h (XDP_ATTACHED_*).
    names = {None: None, "xdp": "native", "xdpgeneric": "skb", "xdpoffload": "offload"}
    return names[attached] if attached in names else _XDP_MODES.get(attached)


def add_veth(netlink: Netlink, name: str, inner_name: str, mtu: int) -> None:
    """Make a tunnel's device and its inner end, marked as ours from the first moment."""
    netlink.link(
        "add",
        ifname=name,
        kind="veth",
        mtu=mtu,
        peer={"ifname": inner_name, "group": DEVICE_GROUP, "mtu": mtu},
    )


def set_up(
    netlink: Netlink,
    link: Link,
    *,
    mtu: int,
    group: int = 0,
    is_noarp: bool | None = None,
    alias: str = "",
) -> Link:
    """Bring a device up with this MTU (bytes), group and alias, in one request; what it is then.

    ``is_noarp``: whether it asks no neighbours; None leaves that as it is.
    """
    flags, mask = _IFF_UP, _IFF_UP
    if is_noarp is not None:
        flags, mask = flags | (_IFF_NOARP if is_noarp else 0), mask | _IFF_NOARP
    changes: dict[str, object] = {"flags": flags, "change": mask}
    # A request that names the MTU it has is a change to those who listen.
    if link.mtu != mtu:
        changes["mtu"] = mtu
    if link.group != group:
        changes["group"] = group
    if alias and link.alias != alias:
        changes["ifalias"] = alias
    netlink.link("set", index=link.index, **changes)
    return replace(
        link,
        mtu=mtu,
        is_up=True,
        group=group,
        is_noarp=link.is_noarp if is_noarp is None else is_noarp,
        alias=alias or link.alias,
    )


def rename(netlink: Netlink, index: int, name: str) -> None:
    """Give a device its name back; before Linux 6.2 only a device that is down takes one."""
    netlink.link("set", index=index, state="down")
    netlink.link("set", index=index, ifname=name)


def delete(netlink: Netlink, index: int) -> None:
    """Delete a device (of a veth pair: both ends)."""
    netlink.link("del", index=index)


def delete_many(netlink: Netlink, indices: Iterable[int]) -> None:
    """The same for several, in one request at the end; what is gone already is no error.

    Each request waits for packets that may still be on their way: for a thousand devices a minute.
    """
    for index in indices:
        try:
            netlink.link("set", index=index, group=DOOMED_GROUP)
        except NetlinkError as error:
            if error.code != errno.ENODEV:
                raise
    try:
        netlink.link("del", group=DOOMED_GROUP)
    except NetlinkError as error:
        if error.code != errno.ENODEV:
            raise
