"""What is none of our business goes to the kernel octet by octet as it came, and counts as that."""

from __future__ import annotations

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPOption_NOP
from scapy.layers.inet6 import ICMPv6ND_NS, IPv6
from scapy.layers.l2 import ARP, LLC, STP, Dot1Q, Ether
from scapy.packet import Packet, Raw

import packets as p
from program.bench import Bench, unrelated

BROADCAST = "ff:ff:ff:ff:ff:ff"
GRE_FRAME = p.received(p.gre(p.to_lan("plain", 4)))
LAN_FRAME, LAN_FRAME6 = p.on_lan(p.to_site("plain", 4)), p.on_lan(p.to_site("plain", 6))


def gre_to(dst: str, header: dict[str, object] | None = None, **outer: object) -> Packet:
    return p.received(p.gre(p.to_lan("plain", 4), **(header or {})), dst=dst, **outer)


class TestUnderlay:
    """Frames that come in by the underlay and are not GRE for a tunnel of ours."""

    @pytest.mark.parametrize(
        "frame",
        [
            pytest.param(Ether(src=p.REMOTE_MAC, dst=BROADCAST) / ARP(pdst=p.LOCAL), id="arp"),
            pytest.param(p.received(p.payload(40), proto=17), id="udp-of-garbage"),
            pytest.param(
                p.received(UDP(sport=9, dport=9) / p.payload(9), proto=17), id="udp-to-host"
            ),
            pytest.param(p.received(TCP(dport=22, flags="S"), proto=6), id="ssh"),
            pytest.param(p.received(ICMP(), proto=1), id="ping"),
            pytest.param(
                p.received(
                    ICMP(type=3, code=4, nexthopmtu=1400)
                    / IP(bytes(p.sent(p.gre(p.to_site("plain", 4))))[14:62]),
                    proto=1,
                ),
                id="frag-needed-about-us",
            ),
            pytest.param(p.received(p.to_lan("plain", 4), proto=4), id="ipip"),
            pytest.param(gre_to("192.0.2.99"), id="gre-to-another-host"),
            pytest.param(gre_to(p.NO_LOCAL), id="gre-to-our-other-address"),
            pytest.param(gre_to("192.0.2.255"), id="gre-to-broadcast"),
            pytest.param(gre_to("192.0.2.99", {"version": 1}), id="pptp-to-another-host"),
            pytest.param(gre_to("192.0.2.99", {"version": 5}), id="version-5-to-another-host"),
            pytest.param(gre_to("192.0.2.99", flags="MF"), id="fragment-to-another-host"),
            pytest.param(
                p.received(Raw(b"\x20\0\x08"), dst="192.0.2.99"), id="truncated-to-another-host"
            ),
            *(
                pytest.param(p.received(p.gre(p.to_lan("plain", 4)), mac=mac), id=f"gre-{who}")
                for who, mac in {
                    "for-another-mac": p.STRANGER_MAC,
                    "in-a-broadcast": BROADCAST,
                    "for-the-lan's-mac": p.LAN_MAC,
                    "for-almost-our-mac": "02:00:00:00:00:03",
                }.items()
            ),
            pytest.param(
                Ether(src=p.REMOTE_MAC, dst=p.UNDERLAY_MAC)
                / IPv6(src="2001:db8::2", dst="2001:db8::1", nh=47)
                / p.gre(p.to_lan("plain", 4)),
                id="gre-over-ipv6",
            ),
            pytest.param(p.patched(GRE_FRAME, 14, b"\x55"), id="outer-version-5"),
            pytest.param(p.patched(GRE_FRAME, 14, b"\x44"), id="outer-ihl-4"),
            pytest.param(p.patched(GRE_FRAME, 14, b"\x4f"), id="outer-ihl-15"),
            pytest.param(p.patched(GRE_FRAME, 24, b"\0\0"), id="outer-checksum"),
            pytest.param(p.patched(GRE_FRAME, 16, b"\0\x13"), id="outer-length-19"),
            pytest.param(p.patched(GRE_FRAME, 12, b"\x86\xdd"), id="ipv4-said-to-be-ipv6"),
            pytest.param(p.patched(GRE_FRAME, 12, b"\x08\x01"), id="ethertype-of-nobody"),
        ],
    )
    @pytest.mark.parametrize("policy", ["drop", "pass"])
    def test_passed(self, bench: Bench, policy: str, frame: Packet | bytes) -> None:
        """While we are not sure that it is ours, it is not."""
        with bench.unknown_gre(policy):
            assert bench.port(frame, "eth0") == unrelated(frame)

    def test_on_an_interface_that_is_not_configured(self, bench: Bench) -> None:
        """The frame's interface must be known, whatever its addresses are."""
        frame = p.received(p.gre(p.to_lan("plain", 4)), mac=p.UNATTACHED_MAC)
        assert bench.port(frame, "eth2") == unrelated(frame)


class TestLan:
    """Frames that come in by the LAN and are not for a tunnel."""

    @pytest.mark.parametrize(
        "frame",
        [
            pytest.param(Ether(src=p.HOST_MAC, dst=BROADCAST) / ARP(pdst="10.1.0.1"), id="arp"),
            pytest.param(
                Ether(src=p.HOST_MAC, dst="33:33:ff:00:00:01")
                / IPv6(src=p.HOST6, dst="ff02::1:ff00:1")
                / ICMPv6ND_NS(tgt="2001:db8:a::1"),
                id="neighbour-solicitation",
            ),
            pytest.param(
                Ether(src=p.HOST_MAC, dst="01:80:c2:00:00:00") / LLC() / STP(), id="spanning-tree"
            ),
            pytest.param(Ether(src=p.HOST_MAC, dst=p.LAN_MAC, type=0x88CC) / b"lldp", id="lldp"),
            pytest.param(Ether(src=p.HOST_MAC, dst=p.LAN_MAC, type=0x0800), id="no-ip-header"),
            pytest.param(p.on_lan(p.udp(p.HOST4, "10.1.0.1")), id="to-the-gateway"),
            pytest.param(p.on_lan(p.udp(p.HOST6, "2001:db8:a::1")), id="ipv6-to-the-gateway"),
            pytest.param(p.on_lan(p.udp(p.HOST4, "169.254.20.1")), id="to-an-inner-address"),
            pytest.param(p.on_lan(p.udp(p.HOST4, p.LOCAL)), id="to-the-local"),
            pytest.param(p.on_lan(p.udp(p.HOST4, p.REMOTE)), id="to-the-remote"),
            pytest.param(p.on_lan(p.udp(p.HOST4, "10.9.0.2")), id="to-another-lan"),
            pytest.param(p.on_lan(p.udp(p.HOST6, "2001:db8:9::2")), id="ipv6-to-another-lan"),
            pytest.param(p.on_lan(p.udp(p.HOST4, p.HOST4)), id="back-to-the-lan"),
            pytest.param(p.on_lan(p.udp(p.HOST4, "10.98.0.1")), id="no-route"),
            pytest.param(p.on_lan(p.udp(p.HOST6, "2001:db8:98::1")), id="ipv6-no-route"),
            pytest.param(p.on_lan(p.udp(p.HOST4, "10.99.0.1")), id="unreachable"),
            pytest.param(p.on_lan(p.udp(p.HOST4, "224.0.0.5")), id="multicast"),
            pytest.param(p.on_lan(p.udp(p.HOST4, "255.255.255.255")), id="broadcast"),
            pytest.param(p.on_lan(p.udp(p.HOST6, "ff0e::1")), id="ipv6-multicast"),
            pytest.param(p.on_lan(p.udp(p.HOST6, "fe80::1")), id="ipv6-link-local"),
            pytest.param(p.on_lan(p.udp("fe80::2", p.SITE6)), id="ipv6-link-local-source"),
            pytest.param(
                p.on_lan(IP(src=p.HOST4, dst=p.SITE4) / p.gre(p.to_site("plain", 4))),
                id="gre-of-a-host",
            ),
            pytest.param(
                p.on_lan(IPv6(src=p.HOST6, dst=p.SITE6, nh=47) / p.gre(Raw(b"x"), proto=0x800)),
                id="gre-over-ipv6-of-a-host",
            ),
            pytest.param(
                p.on_lan(p.udp(p.HOST4, "10.98.0.1", ttl=1)), id="last-hop-to-nowhere-of-ours"
            ),
            pytest.param(
                p.on_lan(p.udp(p.HOST4, "10.9.0.2", options=[IPOption_NOP()] * 4)),
                id="options-to-nowhere-of-ours",
            ),
            *(
                pytest.param(p.on_lan(p.udp(source, p.SITE4)), id=f"martian-{source}")
                for source in ("0.0.0.0", "127.0.0.1", "224.0.0.1", "255.255.255.255")
            ),
            *(
                pytest.param(p.on_lan(p.udp(source, p.SITE6)), id=f"martian-{source}")
                for source in ("::", "::1", "ff02::1", "::ffff:10.1.0.2")
            ),
            *(
                pytest.param(p.on_lan(p.to_site("plain", version), mac), id=f"ipv{version}-{who}")
                for version in (4, 6)
                for who, mac in {
                    "for-another-mac": p.STRANGER_MAC,
                    "in-a-broadcast": BROADCAST,
                    "for-the-underlay's-mac": p.UNDERLAY_MAC,
                }.items()
            ),
            pytest.param(
                Ether(src=p.HOST_MAC, dst=p.LAN_MAC) / Dot1Q(vlan=7) / p.to_site("plain", 4),
                id="vlan",
            ),
            pytest.param(
                Ether(src=p.HOST_MAC, dst=p.LAN_MAC, type=0x88A8)
                / Dot1Q(vlan=7)
                / Dot1Q(vlan=8)
                / p.to_site("plain", 4),
                id="two-vlans",
            ),
            pytest.param(p.patched(LAN_FRAME, 24, b"\0\0"), id="bad-checksum"),
            pytest.param(p.patched(LAN_FRAME, 14, b"\x44"), id="ihl-4"),
            pytest.param(p.patched(LAN_FRAME, 14, b"\x4f"), id="ihl-15"),
            pytest.param(p.patched(LAN_FRAME, 16, b"\xff\xff"), id="length-65535"),
            pytest.param(p.patched(LAN_FRAME6, 14, b"\x40"), id="ipv6-version-4"),
            pytest.param(p.patched(LAN_FRAME6, 18, b"\xff\xff"), id="ipv6-length-65535"),
        ],
    )
    def test_passed(self, bench: Bench, frame: Packet | bytes) -> None:
        """What the kernel would not route into a tunnel, or not so, is the kernel's."""
        assert bench.port(frame, "eth1") == unrelated(frame)

    @pytest.mark.parametrize("frame", [LAN_FRAME, LAN_FRAME6], ids=["ipv4", "ipv6"])
    def test_shorter_than_it_says(self, bench: Bench, frame: Packet) -> None:
        """A frame that ends before its packet is not one of ours, wherever it ends."""
        whole = bytes(frame)
        for length in range(14, len(whole)):
            assert bench.port(whole[:length], "eth1") == unrelated(whole[:length]), length

    @pytest.mark.parametrize("octet", [0x00, 0x45, 0x60, 0xFF], ids="{:#04x}".format)
    @pytest.mark.parametrize("length", [14, 15, 33, 34, 60, 1514, 3500])
    def test_garbage(self, bench: Bench, length: int, octet: int) -> None:
        """Frames of one octet over and over are nobody's, behind any Ethernet header."""
        for head in (b"", bytes(LAN_FRAME)[:14], bytes(LAN_FRAME6)[:14]):
            frame = (head + bytes([octet]) * length)[:length]
            assert bench.port(frame, "eth1") == unrelated(frame)

    def test_on_an_interface_that_is_not_configured(self, bench: Bench) -> None:
        """The frame's interface must be known, even if it forwards and the route is a tunnel's."""
        frame = p.on_lan(p.udp("10.9.0.2", p.SITE4), dst=p.UNATTACHED_MAC)
        assert bench.port(frame, "eth2") == unrelated(frame)
