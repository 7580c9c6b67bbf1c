"""A gateway in a network namespace of its own, configured by gre-xdp, for BPF_PROG_RUN.

LAN                         gxprog-PID         underlay 192.0.2.0/24
10.1.0.2, 2001:db8:a::2 ─── eth1    eth0 ─┬─── .2 .3 .4 .5 .6 .66
10.9.0.2, 2001:db8:9::2 ─── eth2          └─── .254 ─── 198.51.100.0/24
eth2 is not in the configuration. What is outside the namespace exists as neighbour entries only.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from hypothesis import settings
from pyroute2 import IPRoute, netns

import packets
from gre_xdp import config, reconcile
from gre_xdp.datapath import DataPath
from gre_xdp.netlink import namespaces
from gre_xdp.pins import Pins
from program.bench import Bench

settings.register_profile("gre-xdp", deadline=None)
settings.load_profile("gre-xdp")

CONFIG = """
unknown_gre = "drop"
interface = [{ name = "eth0" }, { name = "eth1" }]
"""
# Each tunnel routes 10.N.0.0/16 and 2001:db8:N::/48, N from 20 on in this order.
TUNNELS = {
    "plain": f'remote = "{packets.REMOTE}"',
    "keyed": f'remote = "{packets.FAR_REMOTE}"\nkey = {packets.KEY}',
    "zero": f'remote = "{packets.REMOTE}"\nkey = 0',
    "split": f'remote = "{packets.SPLIT_REMOTE}"\nikey = {packets.IKEY}\nokey = {packets.OKEY}',
    "inherit": f'remote = "{packets.INHERIT_REMOTE}"\nttl = "inherit"',
    "fixed": f'remote = "{packets.FIXED_REMOTE}"\nttl = 9\ntos = 0xbb\npmtudisc = false',
    "second": f'remote = "{packets.SECOND_REMOTE}"\nlocal = "{packets.OTHER_LOCAL}"',
    "lost": f'remote = "{packets.LOST_REMOTE}"',
    "nowhere": f'remote = "{packets.NOWHERE_REMOTE}"',
    "astray": f'remote = "{packets.ASTRAY_REMOTE}"',
    "nested": f'remote = "{packets.NESTED_REMOTE}"',
    "narrow": f'remote = "{packets.NARROW_REMOTE}"\nmtu = 1300',
    "summed": f'remote = "{packets.SUMMED_REMOTE}"\ncsum = true',
    "numbered": f'remote = "{packets.NUMBERED_REMOTE}"\nseq = true',
    "full": f'remote = "{packets.FULL_REMOTE}"\nkey = {packets.KEY}\ncsum = true\nseq = true',
    "guarded": f'remote = "{packets.GUARDED_REMOTE}"\n'
    'allowed_sources = ["10.35.0.0/16", "10.36.1.0/24", "2001:db8:35::/48"]',
}
INTERFACES = {
    "eth0": (
        packets.UNDERLAY_MAC,
        [f"{packets.LOCAL}/24", f"{packets.OTHER_LOCAL}/24", f"{packets.NO_LOCAL}/24"],
    ),
    "eth1": (packets.LAN_MAC, ["10.1.0.1/24", "2001:db8:a::1/64"]),
    "eth2": (packets.UNATTACHED_MAC, ["10.9.0.1/24", "2001:db8:9::1/64"]),
}
NEIGHBOURS = {
    "eth0": [
        ("192.0.2.254", packets.GATEWAY_MAC),
        *(
            (remote, packets.REMOTE_MAC)
            for remote in (
                packets.REMOTE,
                packets.INHERIT_REMOTE,
                packets.FIXED_REMOTE,
                packets.SECOND_REMOTE,
                packets.NARROW_REMOTE,
                packets.SUMMED_REMOTE,
                packets.NUMBERED_REMOTE,
                packets.FULL_REMOTE,
                packets.GUARDED_REMOTE,
                packets.LOST_REMOTE,
            )
        ),
    ],
    "eth1": [(packets.HOST4, packets.HOST_MAC), (packets.HOST6, packets.HOST_MAC)],
    "eth2": [("10.9.0.2", packets.HOST_MAC), ("2001:db8:9::2", packets.HOST_MAC)],
}
ROUTES = [
    {"dst": "198.51.100.0/24", "gateway": "192.0.2.254"},
    # Prefixes of the LAN whose path is narrower than the LAN itself. The lock (of RTAX_MTU, 2): the
    # kernel's FIB look-up for BPF minds only a locked MTU.
    {"dst": "10.3.0.0/16", "gateway": packets.HOST4, "metrics": {"mtu": 1300, "lock": 1 << 2}},
    {"dst": "2001:db8:3::/48", "gateway": packets.HOST6, "metrics": {"mtu": 1300, "lock": 1 << 2}},
    {"dst": "10.99.0.0/16", "type": "unreachable"},
    {"dst": "2001:db8:99::/48", "type": "unreachable"},
]


def _config() -> str:
    tables = []
    for n, (name, keys) in enumerate(TUNNELS.items(), start=20):
        local = "" if "local" in keys else f'local = "{packets.LOCAL}"\n'
        tables.append(
            f'[[tunnel]]\nname = "{name}"\n{local}{keys}\n'
            f'addresses = ["169.254.{n}.1/30", "fd00:{n}::1/64"]\n'
            f'routes = ["10.{n}.0.0/16", "2001:db8:{n}::/48"]\n'
        )
    return CONFIG + "".join(tables)


@contextmanager
def _namespace(name: str) -> Iterator[None]:
    """Make a network namespace, be in it, and come back."""
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    netns.create(name)
    try:
        netns.setns(name, flags=0)
        try:
            yield
        finally:
            netns.setns(before)
    finally:
        os.close(before)
        netns.remove(name)


def _build(ip: IPRoute) -> None:
    """Interfaces whose other ends are silent, and neighbours who need not be asked."""
    ip.link("set", index=1, state="up")
    for name, (mac, addresses) in INTERFACES.items():
        far = f"far-{name}"
        ip.link("add", kind="veth", ifname=name, address=mac, peer={"ifname": far})
        Path(f"/proc/sys/net/ipv6/conf/{far}/disable_ipv6").write_text("1")
        [index] = ip.link_lookup(ifname=name)
        for end in (name, far):
            ip.link("set", index=ip.link_lookup(ifname=end)[0], state="up")
        for address in addresses:
            host, _, length = address.partition("/")
            flags = {"flags": 0x02} if ":" in host else {}  # IFA_F_NODAD
            ip.addr("add", index=index, address=host, prefixlen=int(length), **flags)
        for host, lladdr in NEIGHBOURS[name]:
            ip.neigh("add", ifindex=index, dst=host, lladdr=lladdr, state=0x80)  # NUD_PERMANENT
    for route in ROUTES:
        ip.route("add", **route)


def _lead_astray(ip: IPRoute) -> None:
    """What ``apply`` would refuse, and what happens to a host all the same."""
    index = {name: ip.link_lookup(ifname=name)[0] for name in ("eth0", "eth2", "plain")}
    ip.neigh("del", ifindex=index["eth0"], dst=packets.LOST_REMOTE)
    ip.route("add", dst=f"{packets.ASTRAY_REMOTE}/32", gateway="10.9.0.2")
    ip.route("add", dst=f"{packets.NESTED_REMOTE}/32", oif=index["plain"])


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    """The configured gateway, whose counters nobody moves but the tests.

    The programs stay pinned but are detached again: else the system's own multicast would count.
    """
    with ExitStack() as undo:
        undo.enter_context(_namespace(f"gxprog-{os.getpid()}"))
        ip = undo.enter_context(IPRoute())
        _build(ip)
        undo.callback(reconcile.down)
        reconcile.apply(config.parse(_config(), "test"))
        data_path = DataPath.open_existing(Pins.of_namespace(namespaces.cookie()))
        assert data_path is not None
        undo.callback(data_path.close)
        for link in data_path.links():
            data_path.detach(link.ifindex)
        _lead_astray(ip)
        interfaces = {
            link.get("ifname"): (link["index"], link.get("address")) for link in ip.get_links()
        }
        made = Bench(data_path, tuple(TUNNELS), interfaces)
        undo.callback(made.close)
        yield made
