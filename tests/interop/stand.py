"""Two gateways with the same tunnels, addresses, routes and neighbours: ours and a stock kernel's.

               ┌─► eth0 [gateway: our program, by BPF_PROG_RUN] ─► verdict and frame
    one frame ─┤
               └─► under ── eth0 [User-Mode Linux: ip_gre, ip6_gre] eth1 ── lan ─► what it sends
                                              └──────────────────── eth2 ── seen ─► what it takes

``seen`` gets a copy of whatever a tunnel's device of the kernel takes in, before the kernel looks
at what that is; ``lan`` is where both forward to. The kernel's wires are socket pairs, so that
nothing of this host's network touches a frame. All link addresses are alike on both sides.
"""

from __future__ import annotations

import os
import select
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pyroute2 import IPRoute

from gre_xdp import config, reconcile
from gre_xdp.datapath import DataPath
from gre_xdp.lab import kernel_gre
from gre_xdp.lab.topology import Link, Node, Topology
from gre_xdp.lab.uml import UmlKernel
from gre_xdp.netlink import namespaces
from gre_xdp.pins import Pins
from interop import wire
from program.bench import Bench, Outcome, unrelated

NUD_PERMANENT = 0x80
MARKER_TIMEOUT_S, MARKER_AGAIN_S = 10.0, 0.1

LOCAL = {4: "192.0.2.1", 6: "2001:db8:f::1"}
HOST = {4: "10.1.0.2", 6: "2001:db8:a::2"}  # on the LAN
OURS = {4: "10.1.0.1", 6: "2001:db8:a::1"}  # the gateways' address there
SILENT = {4: "10.1.0.77", 6: "2001:db8:a::77"}  # on the LAN, but its link address is not known
UNREACHABLE = {4: "10.99.0.2", 6: "2001:db8:99::2"}  # by a route of this type
NOWHERE = {4: "10.200.0.2", 6: "2001:db8:c8::2"}  # no route at all
NARROW = {4: "10.3.0.2", 6: "2001:db8:3::2"}  # by a route whose MTU is NARROW_MTU bytes
NARROW_MTU = 1280
REMOTE_MAC = "02:00:00:00:00:02"
HOST_MAC = "02:00:00:00:01:02"
KEY = 77


@dataclass(frozen=True)
class Tunnel:
    """One tunnel of both gateways; ``number`` is its place in all address plans."""

    name: str
    number: int
    outer: int = 4
    payload: str = "ip"
    key: int | None = None
    csum: bool = False
    seq: bool = False
    shares: int | None = None  # the number of the tunnel whose remote is this one's too
    is_apart: bool = False  # for tests that spoil it for others

    @property
    def remote(self) -> str:
        host = self.shares or self.number
        return f"192.0.2.{host}" if self.outer == 4 else f"2001:db8:f::{host}"

    def site(self, version: int) -> str:
        """A host behind the tunnel."""
        return f"10.{self.number}.0.2" if version == 4 else f"2001:db8:{self.number}::2"

    @property
    def mtu(self) -> int:
        words = self.csum + self.seq + (self.key is not None)
        ethernet = 14 if self.payload == "ethernet" else 0
        return 1500 - {4: 20, 6: 40}[self.outer] - 4 - 4 * words - ethernet

    @property
    def routes(self) -> tuple[str, str]:
        return f"10.{self.number}.0.0/16", f"2001:db8:{self.number}::/48"

    @property
    def addresses(self) -> tuple[str, str]:
        return f"169.254.{self.number}.1/30", f"fd00:{self.number}::1/64"

    def toml(self) -> str:
        """Our end. A clamped MSS would differ, and is nothing that the kernel's tunnels do."""
        words = [
            "[[tunnel]]",
            f'name = "{self.name}"',
            f'local = "{LOCAL[self.outer]}"',
            f'remote = "{self.remote}"',
            f'payload = "{self.payload}"',
            f"csum = {str(self.csum).lower()}",
            f"seq = {str(self.seq).lower()}",
            "mss_clamp = false",
            f"addresses = {list(self.addresses)}",
            f"routes = {list(self.routes)}",
        ]
        if self.key is not None:
            words.append(f"key = {self.key}")
        return "\n".join(words) + "\n"

    def ip_batch(self) -> list[str]:
        """The kernel's end, in lines of ``ip -batch``."""
        kind = {4: "gre", 6: "ip6gre"}[self.outer] + ("tap" if self.payload == "ethernet" else "")
        options = [] if self.key is None else [f"key {self.key}"]
        options += ["csum"] * self.csum + ["seq"] * self.seq
        name = self.name
        return [
            f"link add {name} type {kind} local {LOCAL[self.outer]} remote {self.remote} "
            + " ".join(options),
            f"link set {name} up",
            *(
                f"address add {address} dev {name}" + (" nodad" if ":" in address else "")
                for address in self.addresses
            ),
            *(f"route add {route} dev {name}" for route in self.routes),
        ]


TUNNELS = {
    tunnel.name: tunnel
    for tunnel in (
        Tunnel("plain4", 20),
        Tunnel("zero4", 21, key=0, shares=20),
        Tunnel("keyed4", 22, key=KEY),
        Tunnel("summed4", 23, csum=True),
        Tunnel("numbered4", 24, seq=True),
        Tunnel("full4", 25, key=KEY, csum=True, seq=True),
        Tunnel("plain6", 30, 6),
        Tunnel("zero6", 31, 6, key=0),
        Tunnel("keyed6", 32, 6, key=KEY),
        Tunnel("summed6", 33, 6, csum=True),
        Tunnel("numbered6", 34, 6, seq=True),
        Tunnel("full6", 35, 6, key=KEY, csum=True, seq=True),
        Tunnel("frames4", 40, 4, "ethernet"),
        Tunnel("kframes4", 41, 4, "ethernet", key=KEY),
        Tunnel("fframes4", 42, 4, "ethernet", key=KEY, csum=True, seq=True),
        Tunnel("frames6", 50, 6, "ethernet"),
        Tunnel("kframes6", 51, 6, "ethernet", key=KEY),
        Tunnel("fframes6", 52, 6, "ethernet", key=KEY, csum=True, seq=True),
        Tunnel("leaps", 61, seq=True, is_apart=True),
        Tunnel("wraps", 62, seq=True, is_apart=True),
    )
}
# Its packets come out of the LAN behind all that was sent before.
MARKER = Tunnel("marker", 60)


@dataclass(frozen=True)
class Kernel:
    """What the stock kernel made of a frame.

    ``seen``: what a tunnel's device took in. ``sent``: packets to the host on the LAN, from their
    IP header on. ``answers``: what it sent to the underlay, as frames.
    """

    seen: tuple[bytes, ...] = ()
    sent: tuple[bytes, ...] = ()
    answers: tuple[bytes, ...] = ()


class Stand:
    """Both gateways, ready for frames that are sent to ``mac``."""

    def __init__(
        self, gateway: Callable[[Sequence[bytes]], list[Outcome]], probe: Probe, mac: str
    ) -> None:
        self.ours = gateway
        self.theirs = probe.run
        self.mac = mac


class Probe:
    """The wires of the stock kernel: what is put on one, and what comes out of the others."""

    def __init__(self, under: socket.socket, lan: socket.socket, seen: socket.socket, mac: str):
        self._under, self._lan, self._seen = under, lan, seen
        self._mac = wire.mac(mac)
        self._markers = 0

    def run(self, frames: Sequence[bytes]) -> list[Kernel]:
        """One frame after the other, each with all its consequences before the next."""
        self._collect()
        return [self._run(frame) for frame in frames]

    def _run(self, frame: bytes) -> Kernel:
        self._under.send(frame)
        lan = self._settle()
        lan += self._settle()
        return Kernel(
            tuple(_pending(self._seen, bool)),
            tuple(packet[14:] for packet in lan),
            tuple(_pending(self._under, _is_answer)),
        )

    def _settle(self) -> list[bytes]:
        """Send a marker through the same devices and queues, and wait until it comes out.

        The kernel decapsulates in one soft interrupt and goes on in a later one (gro_cells): what
        came before the marker may still come behind it, but not behind the next.
        """
        self._markers += 1
        mark = self._markers.to_bytes(4, "big")
        inner = wire.ipv4(MARKER.site(4), HOST[4], 17, wire.udp(mark))
        gre = wire.ipv4(MARKER.remote, LOCAL[4], 47, wire.gre(0x0800, inner))
        source = socket.inet_aton(MARKER.site(4))
        others: list[bytes] = []
        deadline = time.monotonic() + MARKER_TIMEOUT_S
        is_sent_on = False
        while time.monotonic() < deadline:
            # Again after a while: one frame in some ten thousand leaves UML asleep until another
            # one comes (seen in 6.1).
            if not is_sent_on:
                self._under.send(self._mac + wire.mac(REMOTE_MAC) + b"\x08\x00" + gre)
            is_sent_on = bool(select.select([self._lan], [], [], MARKER_AGAIN_S)[0])
            for packet in _pending(self._lan, _is_sent):
                if packet[26:30] != source:
                    others.append(packet)
                elif packet[-4:] == mark:
                    return others
        raise AssertionError("the stock kernel forwards no more")

    def _collect(self) -> None:
        for wired in (self._under, self._lan, self._seen):
            _pending(wired, lambda _: False)


def _is_sent(frame: bytes) -> bool:
    """To the host on the LAN, and no ARP or neighbour discovery."""
    return frame[:6] == wire.mac(HOST_MAC) and frame[12:14] in (b"\x08\x00", b"\x86\xdd")


def _is_answer(frame: bytes) -> bool:
    """GRE or ICMP of the kernel to a remote, and no neighbour discovery or multicast listening."""
    return frame[:6] == wire.mac(REMOTE_MAC) and frame[12:14] in (b"\x08\x00", b"\x86\xdd")


def _pending(wired: socket.socket, is_wanted: Callable[[bytes], bool]) -> list[bytes]:
    """The frames that have come."""
    frames = []
    with suppress(BlockingIOError):
        while True:
            frame = wired.recv(1 << 16)
            if is_wanted(frame):
                frames.append(frame)
    return frames


@contextmanager
def up() -> Iterator[Stand]:
    """Both gateways, for the time of a block."""
    name = f"gxdiff{os.getpid() % 100000}"
    with ExitStack() as undo:
        directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix=name)))
        topology = Topology(
            name,
            [
                Node("gateway", {"eth0": _underlay(), "eth1": _lan()}),
                Node("silence", {"eth0": (), "eth1": ()}),
            ],
            [Link("gateway:eth0", "silence:eth0"), Link("gateway:eth1", "silence:eth1")],
        )
        undo.enter_context(topology)
        wires = [_wire(undo) for _ in ("under", "lan", "seen")]
        (directory / "uml").mkdir()
        uml = UmlKernel.start(directory / "uml", [far.fileno() for _, far in wires])
        undo.callback(uml.stop)
        macs = [uml.run(f"cat /sys/class/net/eth{n}/address")[1].strip() for n in (0, 1)]
        _configure_uml(uml, directory)
        gateway = topology.nodes["gateway"]
        gateway.call(lambda: _configure_ours(macs))
        undo.callback(gateway.call, reconcile.down)
        bench = gateway.call(_bench)
        undo.callback(bench.data_path.close)
        undo.callback(bench.close)

        def run(frames: Sequence[bytes]) -> list[Outcome]:
            return gateway.call(lambda: _run(bench, frames))

        yield Stand(run, Probe(*(near for near, _ in wires), macs[0]), macs[0])


def _wire(undo: ExitStack) -> tuple[socket.socket, socket.socket]:
    """Two ends, near and far, that keep frames apart."""
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for end in (near, far):
        undo.callback(end.close)
        end.setblocking(False)
    return near, far


def _underlay() -> tuple[str, ...]:
    return f"{LOCAL[4]}/24", f"{LOCAL[6]}/64"


def _lan() -> tuple[str, ...]:
    return f"{OURS[4]}/24", f"{OURS[6]}/64"


def _neighbours() -> list[tuple[str, str, str]]:
    """Interface, address, link address."""
    remotes = {tunnel.remote for tunnel in (*TUNNELS.values(), MARKER)}
    return [
        *(("eth0", remote, REMOTE_MAC) for remote in sorted(remotes)),
        *(("eth1", host, HOST_MAC) for host in HOST.values()),
    ]


def _configure_uml(uml: UmlKernel, directory: Path) -> None:
    """Long lists are files: UML reads the host's disk, and a request to it is short."""
    tunnels = (*TUNNELS.values(), MARKER)
    (directory / "ip").write_text(
        "\n".join(
            [
                *(f"address add {a} dev eth0" + " nodad" * (":" in a) for a in _underlay()),
                *(f"address add {a} dev eth1" + " nodad" * (":" in a) for a in _lan()),
                *(f"neigh add {to} lladdr {m} dev {i} nud permanent" for i, to, m in _neighbours()),
                "route add unreachable 10.99.0.0/16",
                "route add unreachable 2001:db8:99::/48",
                f"route add 10.3.0.0/16 via {HOST[4]} mtu lock {NARROW_MTU}",
                f"route add 2001:db8:3::/48 via {HOST[6]} mtu lock {NARROW_MTU}",
                *(line for tunnel in tunnels for line in tunnel.ip_batch()),
            ]
        )
    )
    (directory / "tc").write_text(
        "".join(
            f"qdisc add dev {tunnel.name} ingress\n"
            f"filter add dev {tunnel.name} ingress matchall action mirred egress mirror dev eth2\n"
            for tunnel in TUNNELS.values()
        )
    )
    kernel_gre.run_all(
        uml.run,
        [
            ["/mnt/modprobe", "-a", "sch_ingress", "cls_matchall", "act_mirred"],
            kernel_gre.set_sysctl("net/ipv6/conf/eth2/disable_ipv6", 1),
            kernel_gre.set_sysctl("net/ipv4/ip_forward", 1),
            kernel_gre.set_sysctl("net/ipv6/conf/all/forwarding", 1),
            *(kernel_gre.set_sysctl(f"net/ipv4/conf/{i}/rp_filter", 0) for i in ("all", "default")),
            ["ip", "-batch", str(directory / "ip")],
            ["tc", "-batch", str(directory / "tc")],
        ],
    )


def _configure_ours(macs: Sequence[str]) -> None:
    """In the gateway's namespace: the kernel's link addresses, neighbours and routes; then ours."""
    with IPRoute() as ip:
        index = {name: ip.link_lookup(ifname=name)[0] for name in ("eth0", "eth1")}
        for name, address in zip(index, macs, strict=True):
            ip.link("set", index=index[name], address=address)
        for name, host, lladdr in _neighbours():
            ip.neigh("add", ifindex=index[name], dst=host, lladdr=lladdr, state=NUD_PERMANENT)
        ip.route("add", dst="10.99.0.0/16", type="unreachable")
        ip.route("add", dst="2001:db8:99::/48", type="unreachable")
        # The kernel's FIB look-up for BPF minds only a locked MTU: RTAX_MTU is metric 2.
        narrow = {"mtu": NARROW_MTU, "lock": 1 << 2}
        ip.route("add", dst="10.3.0.0/16", gateway=HOST[4], metrics=narrow)
        ip.route("add", dst="2001:db8:3::/48", gateway=HOST[6], metrics=narrow)
    interfaces = 'interface = [{ name = "eth0" }, { name = "eth1" }]\n'
    toml = 'unknown_gre = "drop"\n' + interfaces + "".join(t.toml() for t in TUNNELS.values())
    reconcile.apply(config.parse(toml, "test"))


def _bench() -> Bench:
    """Detached from the interfaces, so that the system's own multicast does not count."""
    data_path = DataPath.open_existing(Pins.of_namespace(namespaces.cookie()))
    assert data_path is not None
    for link in data_path.links():
        data_path.detach(link.ifindex)
    with IPRoute() as ip:
        interfaces = {
            link.get("ifname"): (link["index"], link.get("address")) for link in ip.get_links()
        }
    return Bench(data_path, tuple(TUNNELS), interfaces)


def _run(bench: Bench, frames: Sequence[bytes]) -> list[Outcome]:
    """Our program over each frame, once nothing but that moves the counters."""
    nothing = bytes(60)
    while bench.port(nothing, "eth0") != unrelated(nothing):
        pass
    return [bench.port(frame, "eth0") for frame in frames]
