"""What changes in the network: one netlink subscription, reduced to "look again"."""

from __future__ import annotations

import ipaddress
from collections.abc import AsyncIterator, Callable

from pyroute2 import AsyncIPRoute
from pyroute2.netlink import rtnl

from gre_xdp.netlink.neighbours import NUD_FAILED
from gre_xdp.netlink.routes import Address

_GROUPS = (
    rtnl.RTMGRP_LINK
    | rtnl.RTMGRP_NEIGH
    | rtnl.RTMGRP_IPV4_IFADDR
    | rtnl.RTMGRP_IPV6_IFADDR
    | rtnl.RTMGRP_IPV4_ROUTE
    | rtnl.RTMGRP_IPV6_ROUTE
)


async def changes(is_next_hop: Callable[[Address], bool]) -> AsyncIterator[str]:
    """Yield the name of each event that may concern us, for ever.

    Of neighbours only those for which ``is_next_hop`` answers yes, and only when they are lost:
    a busy host has thousands of neighbour events. Raises ``OSError`` (ENOBUFS: events were lost,
    look at everything again).
    """
    async with AsyncIPRoute() as netlink:
        await netlink.bind(groups=_GROUPS)
        # Whatever happened before the subscription is seen by looking once after it.
        yield "subscribed"
        while True:
            async for message in netlink.get():
                # A type that pyroute2 has no name for stays a number.
                event = str(message.get("event"))
                if event.endswith("NEIGH"):
                    address = message.get_attr("NDA_DST")
                    is_lost = event == "RTM_DELNEIGH" or message["state"] & NUD_FAILED
                    if not address or not is_lost or not is_next_hop(ipaddress.ip_address(address)):
                        continue
                yield event
