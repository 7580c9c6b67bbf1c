"""Encapsulation: what comes from the LAN or from this host and leaves as GRE, octet by octet."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPOption_NOP, IPOption_Router_Alert
from scapy.layers.inet6 import (
    ICMPv6EchoRequest,
    ICMPv6MLReport2,
    IPv6,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
    RouterAlert,
)
from scapy.layers.l2 import ARP, Ether
from scapy.packet import Packet

import packets as p
from program.bench import Bench, Outcome, dropped, encapsulated, passed

VERSIONS = pytest.mark.parametrize("version", [4, 6], ids=["ipv4", "ipv6"])

# Tunnel -> the outer fields that differ from (DF, id 0, TTL 64, TOS 0), for an inner TTL of 64.
TUNNELS = [
    pytest.param("plain", {}, id="no-key"),
    pytest.param("keyed", {}, id="key"),
    pytest.param("zero", {}, id="key-0-is-a-key"),
    pytest.param("split", {}, id="okey-not-ikey"),
    pytest.param("inherit", {"ttl": 63}, id="ttl-inherit"),
    pytest.param("second", {}, id="another-local"),
    pytest.param("narrow", {}, id="mtu-configured"),
]


def gre_of(tunnel: str, inner: Packet) -> Packet:
    return p.gre(inner, p.ENDS[tunnel].okey)


def outer_id(outcome: Outcome) -> int:
    return int(Ether(outcome.frame)[IP].id)


class TestFromLan:
    """Packets that the kernel would route to a tunnel's device."""

    @VERSIONS
    @pytest.mark.parametrize(("tunnel", "outer"), TUNNELS)
    def test_encapsulated(
        self, bench: Bench, tunnel: str, outer: dict[str, int], version: int
    ) -> None:
        """Duties 1, 6, 12, 14: one hop is spent and the outer header is the configured one."""
        inner = p.to_site(tunnel, version)
        expected = p.sent(gre_of(tunnel, p.spent(inner)), tunnel, **outer)
        assert bench.port(p.on_lan(inner), "eth1") == encapsulated(tunnel, expected, inner)

    @pytest.mark.parametrize("ecn", range(4), ids=["not-ect", "ect1", "ect0", "ce"])
    @VERSIONS
    def test_tos_inherited(self, bench: Bench, version: int, ecn: int) -> None:
        """Duties 23, 25: with ``tos = "inherit"`` DSCP and ECN of the inner header go outside."""
        inner = p.to_site("plain", version, tos=0x48 | ecn)
        expected = p.sent(p.gre(p.spent(inner)), tos=0x48 | ecn)
        assert bench.port(p.on_lan(inner), "eth1") == encapsulated("plain", expected, inner)

    @pytest.mark.parametrize("ecn", range(4), ids=["not-ect", "ect1", "ect0", "ce"])
    @VERSIONS
    def test_tos_fixed(self, bench: Bench, version: int, ecn: int) -> None:
        """Duties 23, 25: a configured TOS sets the outer DSCP; ECN is the inner one even so."""
        inner = p.to_site("fixed", version, tos=0x48 | ecn)
        outcome = bench.port(p.on_lan(inner), "eth1")
        outer = {"ttl": 9, "tos": 0xB8 | ecn, "flags": 0, "id": outer_id(outcome)}
        expected = p.sent(p.gre(p.spent(inner)), "fixed", **outer)
        assert outcome == encapsulated("fixed", expected, inner)

    @pytest.mark.parametrize("ttl", [2, 3, 64, 255])
    @VERSIONS
    def test_ttl_inherited(self, bench: Bench, version: int, ttl: int) -> None:
        """Duty 12: with ``ttl = "inherit"`` the outer TTL is the inner one after its decrement."""
        inner = p.to_site("inherit", version, ttl=ttl)
        expected = p.sent(p.gre(p.spent(inner)), "inherit", ttl=ttl - 1)
        assert bench.port(p.on_lan(inner), "eth1") == encapsulated("inherit", expected, inner)

    @pytest.mark.parametrize(
        ("tunnel", "inner_df", "outer_df"),
        [
            pytest.param("plain", "DF", "DF", id="pmtudisc,df"),
            pytest.param("plain", 0, "DF", id="pmtudisc,no-df"),
            pytest.param("plain", "MF", "DF", id="pmtudisc,fragment"),
            pytest.param("fixed", "DF", "DF", id="nopmtudisc,df"),
            pytest.param("fixed", 0, 0, id="nopmtudisc,no-df"),
            pytest.param("fixed", "MF", 0, id="nopmtudisc,fragment"),
        ],
    )
    def test_df(self, bench: Bench, tunnel: str, inner_df: str | int, outer_df: str | int) -> None:
        """Duty 13: inner DF makes outer DF, else ``pmtudisc`` decides; the id is 0 with DF."""
        inner = p.to_site(tunnel, 4, flags=inner_df)
        outcome = bench.port(p.on_lan(inner), "eth1")
        outer: dict[str, object] = {"flags": outer_df, "id": 0 if outer_df else outer_id(outcome)}
        if tunnel == "fixed":
            outer |= {"ttl": 9, "tos": 0xB8}
        expected = p.sent(p.gre(p.spent(inner)), tunnel, **outer)
        assert outcome == encapsulated(tunnel, expected, inner)

    @VERSIONS
    def test_identification_varies(self, bench: Bench, version: int) -> None:
        """Duty 13: datagrams that may be fragmented do not share an identification (RFC 6864)."""
        frame = bytes(p.on_lan(p.to_site("fixed", version)))
        seen = {outer_id(bench.port(frame, "eth1")) for _ in range(64)}
        assert len(seen) > 60

    @pytest.mark.parametrize(
        "inner",
        [
            pytest.param(p.to_site("plain", 4, 0), id="no-payload"),
            pytest.param(IP(src=p.HOST4, dst=p.SITE4, proto=253), id="header-only"),
            pytest.param(IPv6(src=p.HOST6, dst=p.SITE6, nh=59), id="ipv6-header-only"),
            pytest.param(p.to_site("plain", 4, frag=185), id="last-fragment"),
            pytest.param(p.to_site("plain", 4, flags="DF+evil"), id="evil-bit"),
            pytest.param(
                IPv6(src=p.HOST6, dst=p.SITE6) / IPv6ExtHdrFragment(m=1) / p.payload(64),
                id="ipv6-fragment",
            ),
            pytest.param(
                IPv6(src=p.HOST6, dst=p.SITE6) / IPv6ExtHdrRouting() / p.payload(64),
                id="ipv6-routing-header",
            ),
            pytest.param(IP(src=p.HOST4, dst=p.SITE4) / ICMP() / p.payload(56), id="icmp"),
            pytest.param(
                IPv6(src=p.HOST6, dst=p.SITE6) / ICMPv6EchoRequest() / p.payload(56), id="icmpv6"
            ),
            pytest.param(
                IP(src=p.HOST4, dst=p.SITE4) / TCP(sport=1024, dport=80, flags="A"), id="tcp"
            ),
            pytest.param(
                IPv6(src=p.HOST6, dst=p.SITE6, fl=0xABCDE, tc=0xFC) / TCP(flags="A"),
                id="ipv6-flow-label",
            ),
            pytest.param(p.udp(p.HOST4, "169.254.20.2"), id="to-the-remote's-inner-address"),
            pytest.param(p.udp(p.HOST6, "fd00:20::2"), id="to-the-remote's-inner-ipv6-address"),
        ],
    )
    def test_any_packet(self, bench: Bench, inner: Packet) -> None:
        """Whatever IP carries is carried on unchanged but for the hop."""
        inner = type(inner)(bytes(inner))
        tos = inner.tc if isinstance(inner, IPv6) else inner.tos
        expected = p.sent(p.gre(p.spent(inner)), tos=tos)
        assert bench.port(p.on_lan(inner), "eth1") == encapsulated("plain", expected, inner)

    @VERSIONS
    @pytest.mark.parametrize("padding", [1, 6, 18, 200])
    def test_padding_trimmed(self, bench: Bench, version: int, padding: int) -> None:
        """Octets behind the IP packet are Ethernet's and stay outside the tunnel."""
        inner = p.to_site("keyed", version, 1)
        frame = bytes(p.on_lan(inner)) + b"\xa5" * padding
        expected = p.sent(gre_of("keyed", p.spent(inner)), "keyed")
        assert bench.port(frame, "eth1") == encapsulated("keyed", expected, inner)

    def test_every_carry_of_the_checksum(self, bench: Bench) -> None:
        """Duty 8: the updated header checksum is right whatever its value was (RFC 1624)."""
        header = bytearray(bytes(p.on_lan(p.to_site("plain", 4, 0))))
        wrong = []
        for identification in range(0, 0x10000, 37):
            header[18:20] = identification.to_bytes(2, "big")
            header[24:26] = b"\0\0"
            header[24:26] = ones_complement(header[14:34]).to_bytes(2, "big")
            inner = bench.port(bytes(header), "eth1").frame[p.INNER_AT :][:20]
            if ones_complement(inner) != 0 or inner[8] != 63:
                wrong.append(identification)
        assert not wrong

    @pytest.mark.parametrize(
        ("tunnel", "mtu"),
        [("plain", 1476), ("keyed", 1472), ("zero", 1472), ("split", 1472), ("narrow", 1300)],
    )
    @VERSIONS
    def test_largest(self, bench: Bench, tunnel: str, mtu: int, version: int) -> None:
        """Duty 17: a packet of exactly the tunnel's MTU fits."""
        inner = p.of_bytes(mtu, p.to_site, tunnel, version)
        expected = p.sent(gre_of(tunnel, p.spent(inner)), tunnel)
        assert bench.port(p.on_lan(inner), "eth1") == encapsulated(tunnel, expected, inner)
        assert len(expected) <= 1514

    @pytest.mark.parametrize(
        ("tunnel", "mtu"),
        [("plain", 1476), ("keyed", 1472), ("zero", 1472), ("split", 1472), ("narrow", 1300)],
    )
    @pytest.mark.parametrize("excess", [1, 24, 1000])
    @VERSIONS
    def test_too_big(self, bench: Bench, tunnel: str, mtu: int, excess: int, version: int) -> None:
        """Duty 18: a longer packet goes to the kernel as it came, which answers or fragments it."""
        frame = p.on_lan(p.of_bytes(mtu + excess, p.to_site, tunnel, version))
        assert bench.port(frame, "eth1") == passed(frame, "too_big")

    @VERSIONS
    @pytest.mark.parametrize("ttl", [0, 1])
    def test_ttl_expired(self, bench: Bench, version: int, ttl: int) -> None:
        """Duties 8, 12: the last hop is never spent here; the kernel answers Time Exceeded."""
        frame = p.on_lan(p.to_site("plain", version, ttl=ttl))
        assert bench.port(frame, "eth1") == passed(frame, "ttl_expired")

    @pytest.mark.parametrize(
        "inner",
        [
            pytest.param(
                p.to_site("plain", 4, options=[IPOption_NOP()] * 4), id="one-word-of-nops"
            ),
            pytest.param(p.to_site("plain", 4, options=[IPOption_NOP()] * 40), id="ten-words"),
            pytest.param(
                p.to_site("plain", 4, options=[IPOption_Router_Alert()]), id="router-alert"
            ),
            pytest.param(
                IPv6(src=p.HOST6, dst=p.SITE6)
                / IPv6ExtHdrHopByHop(options=[RouterAlert()])
                / p.payload(8),
                id="ipv6-hop-by-hop",
            ),
        ],
    )
    def test_ip_options(self, bench: Bench, inner: Packet) -> None:
        """What routers must read is left to the kernel."""
        frame = p.on_lan(inner)
        assert bench.port(frame, "eth1") == passed(frame, "ip_options")

    @pytest.mark.parametrize("tunnel", ["plain", "keyed"])
    @VERSIONS
    def test_no_headroom(self, bench: Bench, tunnel: str, version: int) -> None:
        """A driver that leaves no room in front of the frame costs the packet, and it counts."""
        frame = p.on_lan(p.to_site(tunnel, version))
        assert bench.port_without_headroom(frame, "eth1") == dropped("no_headroom")

    @pytest.mark.parametrize(
        ("tunnel", "reason"),
        [
            pytest.param("lost", "no_neighbour", id="remote-does-not-answer"),
            pytest.param("nowhere", "no_route", id="no-route-to-remote"),
            pytest.param("astray", "egress_unattached", id="remote-behind-another-interface"),
            pytest.param("nested", "nested_tunnel", id="remote-behind-a-tunnel"),
        ],
    )
    @VERSIONS
    def test_unreachable_remote(self, bench: Bench, tunnel: str, reason: str, version: int) -> None:
        """Duty 15: what cannot leave is dropped with the reason why, and not counted as sent."""
        assert bench.port(p.on_lan(p.to_site(tunnel, version)), "eth1") == dropped(reason)


class TestFromThisHost:
    """What the kernel sends into a tunnel's device comes out at its inner end."""

    @VERSIONS
    @pytest.mark.parametrize(("tunnel", "outer"), TUNNELS)
    @pytest.mark.parametrize("ttl", [1, 64, 255])
    def test_encapsulated(
        self, bench: Bench, tunnel: str, outer: dict[str, int], version: int, ttl: int
    ) -> None:
        """The kernel has spent the hop already: the inner packet is untouched."""
        inner = p.to_site(tunnel, version, ttl=ttl)
        if "ttl" in outer:
            outer = {"ttl": ttl}
        expected = p.sent(gre_of(tunnel, inner), tunnel, **outer)
        outcome = bench.inner(p.onto_device(inner, bench.mac(tunnel)), f"gx-{tunnel}")
        assert outcome == encapsulated(tunnel, expected, inner)

    @pytest.mark.parametrize(
        "inner",
        [
            pytest.param(p.to_site("plain", 4, options=[IPOption_NOP()] * 4), id="ip-options"),
            pytest.param(
                p.to_site("plain", 4, options=[IPOption_NOP()] * 40), id="longest-ip-options"
            ),
            pytest.param(
                IPv6(src="fe80::2", dst="ff02::16", hlim=1)
                / IPv6ExtHdrHopByHop(options=[RouterAlert()])
                / ICMPv6MLReport2(),
                id="multicast-listener-report",
            ),
            pytest.param(
                IP(src="169.254.20.1", dst="224.0.0.5", proto=89, ttl=1) / p.payload(44),
                id="ospf-hello",
            ),
            pytest.param(
                IPv6(src="fe80::2", dst="ff02::5", nh=89, hlim=1) / p.payload(36), id="ospfv3-hello"
            ),
            pytest.param(p.udp("169.254.20.1", "255.255.255.255"), id="broadcast"),
            pytest.param(p.to_site("plain", 4, flags="MF"), id="fragment"),
        ],
    )
    def test_whatever_the_kernel_sends(self, bench: Bench, inner: Packet) -> None:
        """Options, multicast and last hops go through: the kernel wants them to."""
        inner = type(inner)(bytes(inner))
        expected = p.sent(p.gre(inner))
        outcome = bench.inner(p.onto_device(inner, p.STRANGER_MAC), "gx-plain")
        assert outcome == encapsulated("plain", expected, inner)

    @VERSIONS
    def test_padding_trimmed(self, bench: Bench, version: int) -> None:
        """Octets behind the IP packet stay outside the tunnel."""
        inner = p.to_site("plain", version, 1)
        frame = bytes(p.onto_device(inner, p.STRANGER_MAC)) + b"\xa5" * 17
        expected = p.sent(p.gre(inner))
        assert bench.inner(frame, "gx-plain") == encapsulated("plain", expected, inner)

    @pytest.mark.parametrize(
        ("tunnel", "mtu"), [("plain", 1476), ("keyed", 1472), ("narrow", 1300)]
    )
    @VERSIONS
    def test_largest(self, bench: Bench, tunnel: str, mtu: int, version: int) -> None:
        """Duty 17: a packet of exactly the tunnel's MTU fits, and one octet more does not."""
        inner = p.of_bytes(mtu, p.to_site, tunnel, version)
        expected = p.sent(gre_of(tunnel, inner), tunnel)
        outcome = bench.inner(p.onto_device(inner, p.STRANGER_MAC), f"gx-{tunnel}")
        assert outcome == encapsulated(tunnel, expected, inner)
        inner = p.of_bytes(mtu + 1, p.to_site, tunnel, version)
        outcome = bench.inner(p.onto_device(inner, p.STRANGER_MAC), f"gx-{tunnel}")
        assert outcome == dropped("too_big")

    @pytest.mark.parametrize(
        "frame",
        [
            pytest.param(Ether(src=p.HOST_MAC) / ARP(pdst=p.SITE4), id="arp"),
            pytest.param(Ether(src=p.HOST_MAC, dst=p.LAN_MAC, type=0x88CC), id="lldp"),
            pytest.param(p.patched(p.on_lan(p.to_site("plain", 4)), 24, b"\0\0"), id="checksum"),
            pytest.param(p.patched(p.on_lan(p.to_site("plain", 4)), 14, b"\x65"), id="version"),
            pytest.param(bytes(p.on_lan(p.to_site("plain", 4)))[:-1], id="shorter-than-it-says"),
            pytest.param(bytes(p.on_lan(p.to_site("plain", 6)))[:53], id="half-a-header"),
            pytest.param(b"\0" * 14, id="nothing"),
        ],
    )
    def test_what_is_no_ip_packet(self, bench: Bench, frame: Packet | bytes) -> None:
        """Only whole IP packets enter a tunnel of ``payload = "ip"``."""
        assert bench.inner(frame, "gx-plain") == dropped("inner_malformed")

    @pytest.mark.parametrize(
        ("tunnel", "reason"),
        [
            pytest.param("lost", "no_neighbour", id="remote-does-not-answer"),
            pytest.param("nowhere", "no_route", id="no-route-to-remote"),
            pytest.param("astray", "egress_unattached", id="remote-behind-another-interface"),
            pytest.param("nested", "nested_tunnel", id="remote-behind-a-tunnel"),
        ],
    )
    @VERSIONS
    def test_unreachable_remote(self, bench: Bench, tunnel: str, reason: str, version: int) -> None:
        """Duty 15: what cannot leave is dropped with the reason why, and not counted as sent."""
        frame = p.onto_device(p.to_site(tunnel, version), p.STRANGER_MAC)
        assert bench.inner(frame, f"gx-{tunnel}") == dropped(reason)

    @pytest.mark.parametrize("interface", ["eth0", "eth2", "plain", "lo"])
    def test_of_no_tunnel(self, bench: Bench, interface: str) -> None:
        """A device that is no tunnel's inner end sends nothing."""
        frame = p.onto_device(p.to_site("plain", 4), p.STRANGER_MAC)
        assert bench.inner(frame, interface) == dropped("no_tunnel")


def ones_complement(octets: bytes) -> int:
    """The Internet checksum of an even number of octets (RFC 1071)."""
    total = sum(int.from_bytes(octets[i : i + 2], "big") for i in range(0, len(octets), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF


class TestNarrowPath:
    """A path that has become narrower than what the tunnel's device takes."""

    MTU, DEVICE_MTU = 1200, 1476

    @pytest.fixture(autouse=True)
    def _narrow(self, bench: Bench) -> Iterator[None]:
        number = bench.tunnel_id("plain")
        before = bench.data_path.tunnel(number)
        narrow = bench.data_path.tunnel(number)
        narrow.mtu = self.MTU
        assert narrow.device_mtu == self.DEVICE_MTU
        bench.data_path.put_tunnel(number, narrow)
        yield
        bench.data_path.put_tunnel(number, before)

    @pytest.mark.parametrize("flags", ["DF", 0])
    @pytest.mark.parametrize("size", [1200, 1201, 1476])
    def test_ipv4_from_the_lan(self, bench: Bench, size: int, flags: str | int) -> None:
        """Duty 18: what does not fit the path is the kernel's to answer or to fragment."""
        inner = p.of_bytes(size, p.to_site, "plain", 4, flags=flags)
        frame = p.on_lan(inner)
        fits = encapsulated("plain", p.sent(p.gre(p.spent(inner))), inner)
        expected = fits if size <= self.MTU else passed(frame, "too_big")
        assert bench.port(frame, "eth1") == expected

    @pytest.mark.parametrize("size", [1200, 1201, 1280, 1281])
    def test_ipv6_from_the_lan(self, bench: Bench, size: int) -> None:
        """Duty 18: IPv6 may always send 1,280 bytes, in outer fragments if the path is narrower."""
        inner = p.of_bytes(size, p.to_site, "plain", 6)
        frame = p.on_lan(inner)
        outcome = bench.port(frame, "eth1")
        if size > 1280:
            assert outcome == passed(frame, "too_big")
            return
        outer = {} if size <= self.MTU else {"flags": 0, "id": outer_id(outcome)}
        expected = p.sent(p.gre(p.spent(inner)), **outer)
        assert outcome == encapsulated("plain", expected, inner)

    @pytest.mark.parametrize(("flags", "has_df"), [("DF", True), (0, False)], ids=["df", "no-df"])
    def test_by_routes_of_others(self, bench: Bench, flags: str | int, has_df: bool) -> None:
        """What the host sends all the same goes on, in outer fragments where inner DF lets it."""
        inner = p.of_bytes(1400, p.to_site, "plain", 4, flags=flags)
        outcome = bench.inner(p.onto_device(inner, bench.mac("plain")), "gx-plain")
        outer = {} if has_df else {"flags": 0, "id": outer_id(outcome)}
        assert outcome == encapsulated("plain", p.sent(p.gre(inner), **outer), inner)
