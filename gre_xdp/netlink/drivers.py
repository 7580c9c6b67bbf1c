"""What a device's driver is, what XDP it can do, and how many queues it receives by."""

from __future__ import annotations

import ctypes as ct
import fcntl
import socket
import struct
from collections.abc import Iterable

from pyroute2.ethtool import Ethtool
from pyroute2.ethtool.ioctl import EthtoolError
from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.generic import GenericNetlinkSocket

from gre_xdp.netlink import NetlinkError, offloads

# <linux/netdev.h>, enum netdev_xdp_act; told since Linux 6.3.
XDP_BASIC = 1
XDP_REDIRECT = 2  # it takes "redirect" for an answer
XDP_XMIT = 4  # frames can be redirected into it
XDP_FRAGS = 32  # it receives frames of several pieces

_SIOCETHTOOL = 0x8946
_ETHTOOL_GDRVINFO = 3
_DRVINFO_BYTES = 196
_NAME_BYTES = 32
_NETDEV_CMD_DEV_GET = 1


class _Device(genlmsg):  # type: ignore[misc]  # pyroute2 has no types
    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def xdp_features(ifindex: int) -> int | None:
    """What XDP a device can do now, as ``XDP_…`` bits; None where the kernel does not say."""
    try:
        with GenericNetlinkSocket() as netdev:
            netdev.bind("netdev", _Device)
            question = _Device()
            question["cmd"] = _NETDEV_CMD_DEV_GET
            question["version"] = 1
            question["attrs"] = [("NETDEV_A_DEV_IFINDEX", ifindex)]
            (answer,) = netdev.nlm_request(question, msg_type=netdev.prid, msg_flags=NLM_F_REQUEST)
    except (NetlinkError, OSError, ValueError):
        return None
    found = answer.get_attr("NETDEV_A_DEV_XDP_FEATURES")
    return None if found is None else int(found)


def driver(device: str) -> str | None:
    """The name of a device's driver; None for one that does not tell.

    Asked by ioctl: /sys/class/net shows the devices of whoever has mounted it.
    """
    answer = ct.create_string_buffer(struct.pack("I", _ETHTOOL_GDRVINFO), _DRVINFO_BYTES)
    request = struct.pack("16sP16x", device.encode(), ct.addressof(answer))
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
            fcntl.ioctl(control, _SIOCETHTOOL, request)
    except OSError:
        return None
    name = answer.raw[4 : 4 + _NAME_BYTES].split(b"\0")[0]
    return name.decode(errors="replace") or None


def features(device: str, names: Iterable[str]) -> dict[str, bool]:
    """Which offload features are on, of those that the device has; none if it is gone."""
    try:
        return offloads.get(device, names)
    except (OSError, EthtoolError):
        return {}


def fixed_features(device: str, names: Iterable[str]) -> frozenset[str]:
    """Which of these offload features are on and cannot be switched off."""
    try:
        with Ethtool() as ethtool:
            found = ethtool.get_features(device).features
    except (OSError, EthtoolError):
        return frozenset()
    return frozenset(
        name for name in names if name in found and found[name].enable and not found[name].available
    )


def receive_queues(device: str) -> tuple[int, int] | None:
    """How many queues a device receives by, and how many it could; None if it does not tell."""
    try:
        with Ethtool() as ethtool:
            found = ethtool.get_channels(device)
    except (OSError, EthtoolError):
        return None
    return (
        int(found.rx_count + found.combined_count),
        int(found.max_rx + found.max_combined),
    )
