"""What a tunnel's veth pair needs beside its MTU, to behave like a tunnel; each for a reason."""

from __future__ import annotations

from gre_xdp import sysctl
from gre_xdp.netlink import DEVICE_GROUP, Netlink, links, offloads
from gre_xdp.netlink.links import Link
from gre_xdp.overhead import IPV6_MIN_MTU
from gre_xdp.resources import Payload, TunnelDevice

# Tells people, and us, whose inner end it is.
ALIAS = "inner end of gre-xdp tunnel "


def _sysctls(device: str, inner: str) -> dict[str, str]:
    return {
        # The inner end would send neighbour and multicast chatter into the device.
        f"ipv6/conf/{inner}/disable_ipv6": "1",
        # FIB look-ups "from" these devices are refused unless they forward.
        f"ipv4/conf/{inner}/forwarding": "1",
        f"ipv6/conf/{inner}/forwarding": "1",
        f"ipv4/conf/{device}/forwarding": "1",
        f"ipv6/conf/{device}/forwarding": "1",
        # Linux 6.17: the kernel forwards for this device though "all" does not.
        f"ipv6/conf/{device}/force_forwarding": "1",
        # The remote's router advertisements are none of our business.
        f"ipv6/conf/{device}/accept_ra": "0",
    }


_TAG_INSERTION = (offloads.TX_VLAN, offloads.TX_VLAN_STAG)


def _features(payload: Payload) -> dict[str, bool]:
    return {
        # A local sender's packets must have their checksums before XDP sends them on.
        offloads.TX_CHECKSUM: False,
        # NAPI, without which what is redirected into the inner end is lost.
        offloads.GRO: True,
        # Tags of frames that a bridge sends must be in the frame, where XDP sees them.
        **(dict.fromkeys(_TAG_INSERTION, False) if payload == "ethernet" else {}),
    }


def _inner_mtu(mtu: int) -> int:
    """A device below IPv6's minimum (RFC 8200 section 5) cannot be asked for IPv6 routes."""
    return max(mtu, IPV6_MIN_MTU)


def read_ipv6_mtu(device: Link) -> int | None:
    """How much IPv6 sends at once on a device, in bytes, where that is less than its MTU."""
    found = sysctl.read(f"ipv6/conf/{device.name}/mtu")
    return int(found) if found is not None and int(found) != device.mtu else None


def is_ready(device: Link, inner: Link, payload: Payload) -> bool:
    """Is everything as ``make_ready`` leaves it?"""
    try:
        return (
            device.is_up
            and inner.is_up
            and inner.group == DEVICE_GROUP
            and inner.mtu == _inner_mtu(device.mtu)
            and offloads.get(device.name, _features(payload)) == _features(payload)
            and all(
                sysctl.read(path) in (None, value)
                for path, value in _sysctls(device.name, inner.name).items()
            )
        )
    except OSError:
        return False


def make_ready(
    netlink: Netlink, device: Link, inner: Link, wanted: TunnelDevice
) -> tuple[Link, Link]:
    """Bring a tunnel's device into service, and return both ends as they are then.

    Raises ``OSError``, ``NetlinkError``.
    """
    for path, value in _sysctls(device.name, inner.name).items():
        if sysctl.read(path) not in (None, value):
            sysctl.write(path, value)
    mtu, payload = wanted.mtu, wanted.payload
    offloads.put(device.name, _features(payload))
    alias = ALIAS + device.name
    inner = links.set_up(netlink, inner, mtu=_inner_mtu(mtu), group=DEVICE_GROUP, alias=alias)
    # An IP tunnel asks no neighbours; a device that is an Ethernet port does.
    device = links.set_up(netlink, device, mtu=mtu, group=device.group, is_noarp=payload == "ip")
    # A new device MTU is one for IPv6, too: what is less comes after it.
    path = f"ipv6/conf/{device.name}/mtu"
    if sysctl.read(path) not in (None, str(wanted.ipv6_mtu or mtu)):
        sysctl.write(path, str(wanted.ipv6_mtu or mtu))
    return device, inner
