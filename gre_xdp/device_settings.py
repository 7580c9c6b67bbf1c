"""What a tunnel's veth pair needs beside its MTU, to behave like a tunnel; each for a reason."""

from __future__ import annotations

from gre_xdp import sysctl
from gre_xdp.netlink import Netlink, links, offloads
from gre_xdp.netlink.links import Link

# Tells people, and us, whose inner end it is.
ALIAS = "inner end of gre-xdp tunnel "


def _sysctls(device: str, inner: str) -> dict[str, str]:
    return {
        # The inner end would send neighbour and multicast chatter into the device.
        f"ipv6/conf/{inner}/disable_ipv6": "1",
        # FIB look-ups "from" these devices are refused unless they forward.
        f"ipv4/conf/{inner}/forwarding": "1",
        f"ipv4/conf/{device}/forwarding": "1",
        f"ipv6/conf/{device}/forwarding": "1",
        # Linux 6.17: the kernel forwards for this device though "all" does not.
        f"ipv6/conf/{device}/force_forwarding": "1",
        # The remote's router advertisements are none of our business.
        f"ipv6/conf/{device}/accept_ra": "0",
    }


def is_ready(device: Link, inner: Link) -> bool:
    """Is everything as ``make_ready`` leaves it?"""
    try:
        return (
            device.is_up
            and inner.is_up
            and device.is_noarp
            and inner.mtu == device.mtu
            and not offloads.get(device.name, offloads.TX_CHECKSUM)
            and offloads.get(device.name, offloads.GRO)
            and all(
                sysctl.read(path) in (None, value)
                for path, value in _sysctls(device.name, inner.name).items()
            )
        )
    except OSError:
        return False


def make_ready(netlink: Netlink, device: Link, inner: Link, mtu: int) -> None:
    """Bring a tunnel's device into service; raises ``OSError``, ``NetlinkError``."""
    for path, value in _sysctls(device.name, inner.name).items():
        if sysctl.read(path) not in (None, value):
            sysctl.write(path, value)
    if not device.is_noarp:
        links.set_noarp(netlink, device.index)
    for link in (device, inner):
        if link.mtu != mtu:
            links.set_mtu(netlink, link.index, mtu)
    offloads.put(device.name, offloads.TX_CHECKSUM, enable=False)
    offloads.put(device.name, offloads.GRO, enable=True)
    links.set_alias(netlink, inner.index, ALIAS + device.name)
    links.set_up(netlink, inner.index)
    links.set_up(netlink, device.index)
