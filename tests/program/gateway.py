"""A gateway in a network namespace of its own, configured by gre-xdp, for BPF_PROG_RUN.

LAN                         gxprog-PID         underlay 192.0.2.0/24, 2001:db8:e::/64
10.1.0.2, 2001:db8:a::2 ─── eth1    eth0 ─┬─── .2 .3 .4 .5 .6 .66, ::2 ::3 ::4 ::5 ::66
10.9.0.2, 2001:db8:9::2 ─── eth2          ├─── .254 ─── 198.51.100.0/24
                                          └─── ::fe ─── 2001:db8:f::/48
eth2 is not in the configuration. What is outside the namespace exists as neighbour entries only.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from pyroute2 import IPRoute, netns

import packets
from gre_xdp import config, reconcile
from gre_xdp.datapath import DataPath
from gre_xdp.netlink import namespaces
from gre_xdp.pins import Pins
from program.bench import Bench

CONFIG = """
unknown_gre = "drop"
interface = [{ name = "eth0" }, { name = "eth1" }]
"""
# Each tunnel routes 10.N.0.0/16 and 2001:db8:N::/48, N from 20 on in the order of ALL_TUNNELS.
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
OVER_IPV6 = {
    "plain6": "",
    "zero6": "key = 0",
    "keyed6": f"key = {packets.KEY}",
    "split6": f"ikey = {packets.IKEY}\nokey = {packets.OKEY}",
    "inherit6": 'ttl = "inherit"',
    "fixed6": "ttl = 9\ntos = 0xbb\npmtudisc = false",
    "second6": "",
    "lost6": "",
    "nowhere6": "",
    "astray6": "",
    "nested6": "",
    "summed6": "csum = true",
    "numbered6": "seq = true",
    "full6": f"key = {packets.KEY}\ncsum = true\nseq = true",
}
ETHERNET = {
    "tap": "",
    "tapfull": f"key = {packets.KEY}\ncsum = true\nseq = true",
    "tapinherit": 'ttl = "inherit"',
    "tapfixed": "ttl = 9\ntos = 0xbb\npmtudisc = false\nmtu = 1400",
    "tap6": "",
    "tapfull6": f"key = {packets.KEY}\ncsum = true\nseq = true",
    "tapinherit6": 'ttl = "inherit"',
}
# Their remotes have no route when the configuration is applied.
BEHIND_VLANS = {"behind": "", "behind6": "", "behindtwo": ""}
ALL_TUNNELS = TUNNELS | {
    name: f'local = "{packets.ENDS[name].local}"\nremote = "{packets.ENDS[name].remote}"\n' + keys
    for name, keys in (
        *OVER_IPV6.items(),
        *((name, f'payload = "ethernet"\n{keys}') for name, keys in ETHERNET.items()),
        *BEHIND_VLANS.items(),
    )
}
INTERFACES = {
    "eth0": (
        packets.UNDERLAY_MAC,
        [
            *(f"{host}/24" for host in (packets.LOCAL, packets.OTHER_LOCAL, packets.NO_LOCAL)),
            *(f"{host}/64" for host in (packets.LOCAL6, packets.OTHER_LOCAL6, packets.NO_LOCAL6)),
        ],
    ),
    "eth1": (packets.LAN_MAC, ["10.1.0.1/24", "2001:db8:a::1/64"]),
    "eth2": (packets.UNATTACHED_MAC, ["10.9.0.1/24", "2001:db8:9::1/64"]),
}
NEIGHBOURS = {
    "eth0": [
        ("192.0.2.254", packets.GATEWAY_MAC),
        (packets.GATEWAY6, packets.GATEWAY_MAC),
        *(
            (remote, packets.REMOTE_MAC)
            for remote in {packets.LOST_REMOTE, *(end.remote for end in packets.ENDS.values())}
            if remote.startswith(("192.0.2.", "2001:db8:e:"))
        ),
    ],
    "eth1": [(packets.HOST4, packets.HOST_MAC), (packets.HOST6, packets.HOST_MAC)],
    "eth2": [("10.9.0.2", packets.HOST_MAC), ("2001:db8:9::2", packets.HOST_MAC)],
}
ROUTES = [
    {"dst": "198.51.100.0/24", "gateway": "192.0.2.254"},
    {"dst": "2001:db8:f::/48", "gateway": packets.GATEWAY6},
    # Prefixes of the LAN whose path is narrower than the LAN itself. The lock (of RTAX_MTU, 2): the
    # kernel's FIB look-up for BPF minds only a locked MTU.
    {"dst": "10.3.0.0/16", "gateway": packets.HOST4, "metrics": {"mtu": 1300, "lock": 1 << 2}},
    {"dst": "2001:db8:3::/48", "gateway": packets.HOST6, "metrics": {"mtu": 1300, "lock": 1 << 2}},
    {"dst": "10.99.0.0/16", "type": "unreachable"},
    {"dst": "2001:db8:99::/48", "type": "unreachable"},
]


def config_text(names: Collection[str]) -> str:
    """The configuration of some of the tunnels."""
    tables = []
    for n, (name, keys) in enumerate(ALL_TUNNELS.items(), start=20):
        if name not in names:
            continue
        local = "" if "local" in keys else f'local = "{packets.LOCAL}"\n'
        tables.append(
            f'[[tunnel]]\nname = "{name}"\n{local}{keys}\n'
            f'addresses = ["169.254.{n}.1/30", "fd00:{n}::1/64"]\n'
            f'routes = ["10.{n}.0.0/16", "2001:db8:{n}::/48"]\n'
        )
    return CONFIG + "".join(tables)


@contextmanager
def namespace(name: str) -> Iterator[None]:
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


def build(ip: IPRoute, mtu: int) -> None:
    """Interfaces whose other ends are silent, and neighbours who need not be asked."""
    ip.link("set", index=1, state="up")
    for name, (mac, addresses) in INTERFACES.items():
        far = f"far-{name}"
        peer = {"ifname": far, "mtu": mtu}
        ip.link("add", kind="veth", ifname=name, address=mac, mtu=mtu, peer=peer)
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


def lead_astray(ip: IPRoute, tunnels: Collection[str]) -> None:
    """What ``apply`` would refuse, and what happens to a host all the same."""
    [underlay] = ip.link_lookup(ifname="eth0")
    for remote in (packets.LOST_REMOTE, packets.LOST_REMOTE6):
        ip.neigh("del", ifindex=underlay, dst=remote)
    ip.route("add", dst=f"{packets.ASTRAY_REMOTE}/32", gateway="10.9.0.2")
    ip.route("add", dst=f"{packets.ASTRAY_REMOTE6}/128", gateway="2001:db8:9::2")
    if "nested" in tunnels:
        [device] = ip.link_lookup(ifname="plain")
        ip.route("add", dst=f"{packets.NESTED_REMOTE}/32", oif=device)
    if "nested6" in tunnels:
        [device] = ip.link_lookup(ifname="plain6")
        ip.route("add", dst=f"{packets.NESTED_REMOTE6}/128", oif=device)


@contextmanager
def running(tunnels: Sequence[str], mtu: int) -> Iterator[Bench]:
    """The configured gateway, whose counters nobody moves but the caller, who is in its namespace.

    The programs stay pinned but are detached again: else the system's own multicast would count.
    """
    with ExitStack() as undo:
        undo.enter_context(namespace(f"gxprog-{os.getpid()}"))
        ip = undo.enter_context(IPRoute())
        build(ip, mtu)
        undo.callback(reconcile.down)
        reconcile.apply(config.parse(config_text(tunnels), "test"))
        data_path = DataPath.open_existing(Pins.of_namespace(namespaces.cookie()))
        assert data_path is not None
        undo.callback(data_path.close)
        for link in data_path.links():
            data_path.detach(link.ifindex)
        lead_astray(ip, tunnels)
        interfaces = {
            link.get("ifname"): (link["index"], link.get("address")) for link in ip.get_links()
        }
        made = Bench(data_path, tunnels, interfaces)
        undo.callback(made.close)
        yield made
