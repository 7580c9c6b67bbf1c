"""gre-xdp and an unmodified Linux kernel: User-Mode Linux with ip_gre is gateway B.

site-a ── gw-a (gre-xdp) ═══ underlay (IPv4 only) ═══ UML kernel (ip_gre) ── site-b
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from ipaddress import IPv6Address

import pytest

from gre_xdp import mtu_probe
from gre_xdp.lab import kernel_gre
from gre_xdp.lab.lab import SIDES, Lab
from netns_helpers import Gateway, ping, transfer

TRANSFER_BYTES = 50 << 20
ADDRESSES = {"ipv4": ("10.2.0.2", "10.1.0.2"), "ipv6": ("2001:db8:b::2", "2001:db8:a::2")}
TUNNEL_ADDRESSES = {"ipv4": "169.254.10.2", "ipv6": "fd00:10::2"}


class Interop:
    """The lab with a stock kernel, and its two tunnel ends as the test wants them."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.gateway = Gateway(lab.nodes["gw-a"])
        self.site_a = lab.nodes["site-a"]
        self.site_b = lab.nodes["site-b"]

    def here(self, key: int | None, options: str = "") -> None:
        """Apply our end anew, so that it counts anew, with a key or options of the tunnel."""
        self.lab.key = key
        self.gateway.down()
        toml = 'exporter = ""\n' + self.lab.config_toml("a")
        self.gateway.apply(toml.replace('name = "fra1"', f'name = "fra1"\n{options}'))

    def there(self, key: int | None, extra: Sequence[str] = ()) -> None:
        """Make the kernel's end anew, in the words of ``ip tunnel``."""
        assert self.lab.peer is not None
        self.lab.peer.run("ip link del gre1")
        kernel_gre.configure(
            self.lab.peer.run,
            name="gre1",
            local=SIDES["b"].underlay,
            remote=SIDES["a"].underlay,
            key=key,
            extra=extra,
            addresses=SIDES["b"].tunnel,
            routes=SIDES["a"].prefixes,
        )


@pytest.fixture(scope="module")
def interop() -> Iterator[Interop]:
    """One boot of the kernel for all tests."""
    with Lab.up(f"gxuml{os.getpid() % 10000}", peer="kernel", kernel="uml") as lab:
        found = Interop(lab)
        try:
            yield found
        finally:
            found.gateway.down()


@pytest.fixture(params=[None, 77, 0], ids=["keyless", "key-77", "key-0"], scope="module")
def joined(interop: Interop, request: pytest.FixtureRequest) -> Interop:
    """Both ends with the same key."""
    interop.here(request.param)
    interop.there(request.param)
    return interop


@pytest.mark.parametrize("family", ADDRESSES)
def test_ping_both_ways(joined: Interop, family: str) -> None:
    """Hosts of both sites reach each other, and every packet went through XDP."""
    there, back = ADDRESSES[family]
    ping(joined.site_a, there, count=1)
    before = joined.gateway.tunnel().counters
    assert ping(joined.site_a, there, count=10) == 10
    assert ping(joined.site_b, back, count=10) == 10
    after = joined.gateway.tunnel().counters
    assert after.tx_packets - before.tx_packets >= 20
    assert after.rx_packets - before.rx_packets >= 20


@pytest.mark.parametrize("family", ADDRESSES)
def test_ping_between_the_gateways(joined: Interop, family: str) -> None:
    """Our host's own traffic reaches the kernel's end of the tunnel, and back."""
    assert ping(joined.gateway.namespace, TUNNEL_ADDRESSES[family]) == 3
    peer = joined.lab.peer
    assert peer is not None
    mine = TUNNEL_ADDRESSES[family][:-1] + "1"
    assert peer.run(f"ping -c 3 -i 0.2 -W 2 {mine}")[0] == 0


@pytest.mark.parametrize("size", [64, 1400, 1476])
@pytest.mark.parametrize("family", ADDRESSES)
def test_ping_of_every_size(joined: Interop, family: str, size: int) -> None:
    """Packets of 64, 1,400 bytes and the tunnel's MTU pass unfragmented, both ways."""
    there, back = ADDRESSES[family]
    size = min(size, joined.gateway.tunnel().mtu)
    payload = str(size - (48 if family == "ipv6" else 28))
    assert ping(joined.site_a, there, "-M", "do", "-s", payload) == 3
    assert ping(joined.site_b, back, "-M", "do", "-s", payload) == 3


@pytest.mark.parametrize("key", [None, 77], ids=["keyless", "key-77"])
@pytest.mark.parametrize("family", ADDRESSES)
def test_fifty_megabytes_arrive_whole(interop: Interop, key: int | None, family: str) -> None:
    """50 MB over TCP have the same checksum at both ends, from either side."""
    interop.here(key)
    interop.there(key)
    there, back = ADDRESSES[family]
    assert transfer(interop.site_a, interop.site_b, there, TRANSFER_BYTES)
    assert transfer(interop.site_b, interop.site_a, back, TRANSFER_BYTES // 10)


OPTIONS = {
    "csum": ("csum = true", ["csum"]),
    "seq": ("seq = true", ["seq"]),
    "csum-seq": ("csum = true\nseq = true", ["csum", "seq"]),
    "key-csum-seq": ("key = 77\ncsum = true\nseq = true", ["key", "77", "csum", "seq"]),
    "ikey-okey": ("ikey = 5\nokey = 6", ["ikey", "6", "okey", "5"]),
}


@pytest.mark.parametrize(("ours", "theirs"), OPTIONS.values(), ids=OPTIONS)
def test_options_of_the_header(interop: Interop, ours: str, theirs: list[str]) -> None:
    """Checksums, sequence numbers and unequal keys work both ways, at every size, under load."""
    interop.here(None, ours)
    interop.there(None, extra=theirs)
    mtu = interop.gateway.tunnel().mtu
    drops = interop.gateway.drops()
    for family, (there, back) in ADDRESSES.items():
        for size in (64, 1400, mtu):
            payload = str(size - (48 if family == "ipv6" else 28))
            assert ping(interop.site_a, there, "-M", "do", "-s", payload) == 3
            assert ping(interop.site_b, back, "-M", "do", "-s", payload) == 3
        assert transfer(interop.site_a, interop.site_b, there, 4 << 20)
        assert transfer(interop.site_b, interop.site_a, back, 4 << 20)
    assert interop.gateway.drops() == drops


def test_a_sender_may_add_checksum_and_sequence(interop: Interop) -> None:
    """A remote may send both though our tunnel asks for neither."""
    interop.here(None)
    interop.there(None, extra=["ocsum", "oseq"])
    before = interop.gateway.drops()
    assert ping(interop.site_b, "10.1.0.2") == 3
    assert interop.gateway.drops() == before


def test_the_kernel_sends_our_probes_back(interop: Interop) -> None:
    """Duty 21: IPv6 packets to ourselves come back, up to the tunnel's MTU."""
    interop.here(None)
    interop.there(None)
    address = IPv6Address("fd00:10::1")
    result = interop.gateway.call(lambda: mtu_probe.probe("fra1", address))
    assert result.largest == interop.gateway.tunnel().mtu
