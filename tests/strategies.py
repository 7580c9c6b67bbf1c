"""Hypothesis strategies for values of the project, so that every test draws the same ones."""

from __future__ import annotations

import string
from ipaddress import ip_interface, ip_network
from typing import Any

from hypothesis import strategies as st

from gre_xdp.model import Config, Interface, Tunnel
from gre_xdp.values import RESERVED_PREFIX

_NAME_SIGNS = "".join(sorted({*string.printable} - {*string.whitespace, *"/:%"}))
_OTHER_MEANING = {".", "..", "all", "default", "lo"}

device_names = st.text(_NAME_SIGNS, min_size=1, max_size=15).filter(
    lambda name: name not in _OTHER_MEANING and not name.startswith(RESERVED_PREFIX)
)
keys = st.none() | st.integers(0, 2**32 - 1)


def _within(pool: str) -> st.SearchStrategy[str]:
    """ADDRESS/LENGTH with a network inside the pool."""
    network = ip_network(pool)
    lengths = st.integers(network.prefixlen, network.max_prefixlen)
    return st.builds("{}/{}".format, st.ip_addresses(network=pool), lengths)


# Pools that do not meet: no route and no address can cover a remote.
_locals = st.ip_addresses(network="192.0.2.0/24")
_remotes = st.ip_addresses(network="198.18.0.0/15")
_addresses = (_within("10.0.0.0/8") | _within("fd00::/8")).map(ip_interface)
_routes = (_within("172.16.0.0/12") | _within("2001:db8::/32")).map(
    lambda text: ip_network(text, strict=False)
) | st.sampled_from([ip_network("0.0.0.0/0"), ip_network("::/0")])


@st.composite
def configs(draw: st.DrawFn, max_tunnels: int = 5) -> Config:
    """Any configuration that this version accepts, with at most ``max_tunnels`` tunnels."""

    def some(values: st.SearchStrategy[Any], size: int, **kwargs: Any) -> list[Any]:
        return draw(st.lists(values, min_size=size, max_size=size, unique=True, **kwargs))

    def shared_out(values: list[Any]) -> list[list[Any]]:
        """The values in one list per tunnel."""
        hands: list[list[Any]] = [[] for _ in endpoints]
        for value in values if hands else ():
            hands[draw(st.integers(0, len(hands) - 1))].append(value)
        return hands

    ports = draw(st.integers(0, 3))
    names = some(device_names, ports + (draw(st.integers(0, max_tunnels)) if ports else 0))
    endpoints = some(st.tuples(_locals, _remotes, keys), len(names) - ports)
    addresses = shared_out(draw(st.lists(_addresses, max_size=6, unique_by=lambda a: a.ip)))
    routes = shared_out(draw(st.lists(_routes, max_size=6, unique=True)))
    return Config(
        unknown_gre=draw(st.sampled_from([None, "drop", "pass"])),
        bypass_firewall=draw(st.booleans()),
        drift=draw(st.sampled_from(["repair", "report"])),
        exporter=draw(st.sampled_from(["", "127.0.0.1:9747", "[::1]:1", "metrics.example:65535"])),
        interfaces=tuple(
            Interface(name=name, mode=draw(st.sampled_from(["native", "skb"])))
            for name in names[:ports]
        ),
        tunnels=tuple(
            Tunnel(
                name=name,
                local=local,
                remote=remote,
                ikey=ikey,
                okey=draw(keys),
                ttl=draw(st.integers(1, 255) | st.just("inherit")),
                tos=draw(st.integers(0, 255) | st.just("inherit")),
                pmtudisc=draw(st.booleans()),
                mtu=draw(st.integers(68, 65535) | st.just("auto")),
                mss_clamp=draw(st.booleans() | st.integers(88, 65495)),
                addresses=tuple(own_addresses),
                routes=tuple(own_routes),
            )
            for name, (local, remote, ikey), own_addresses, own_routes in zip(
                names[ports:], endpoints, addresses, routes, strict=True
            )
        ),
    )
