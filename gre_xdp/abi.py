"""The Python side of ``bpf/gre_abi.h``: layouts, numbers and byte order, and nowhere else.

``tests/contract`` compiles assertions that every size, offset and number here equals the C one.
Addresses and keys cross in network byte order, everything else in the host's.
"""

from __future__ import annotations

import ctypes as ct
import enum
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

from gre_xdp import bpf

# Names the directory of pins: programs and maps of another layout never meet.
PIN_VERSION = 3

TUNNELS_MAX = 32768
# More than tunnels: a changed tunnel gets a new slot before it gives up the old one.
SLOTS_MAX = 65536
# Neighbours that frames are sent to; the least recently used give way.
NEIGHBOURS_MAX = 16384
NOTE_BUCKETS = 1024
# Prefixes of allowed sources, of all tunnels together.
SOURCES_MAX = 1 << 18
# VLANs that are interfaces of the configuration.
VLANS_MAX = 4096
# Senders share these, by a hash of their addresses.
ANSWER_BUCKETS = 128
DEVICE_NAME_BYTES = 16
MAC_BYTES = 6
VLAN_TAGS_MAX = 2

_U32Be = ct.c_uint8 * 4
_IpAddress = ct.c_uint8 * 16
_Mac = ct.c_uint8 * MAC_BYTES
_MAPPED_PREFIX = bytes(10) + b"\xff\xff"

IpAddress = IPv4Address | IPv6Address


class MapIndex(enum.IntEnum):
    """Maps by their place in the loader's descriptor array (``enum map_index``)."""

    SETTINGS = 0
    ENDPOINTS = 1
    TUNNELS = 2
    DEVICES = 3
    PORTS = 4
    TUNNEL_COUNTERS = 5
    REASON_COUNTERS = 6
    SCRATCH = 7
    SEQUENCES = 8
    SOURCES = 9
    VLANS = 10
    ANSWERS = 11
    NEXT_HOPS = 12
    NEIGHBOURS = 13
    NOTES = 14


class EndpointKind(enum.IntEnum):
    """``enum endpoint_kind``."""

    KEYLESS = 0
    KEYED = 1
    PAIR = 2
    LOCAL = 3


class TunnelFlag(enum.IntFlag):
    """``enum tunnel_flags``."""

    OKEY = 1 << 0
    PMTUDISC = 1 << 1
    TTL_INHERIT = 1 << 2
    TOS_INHERIT = 1 << 3
    IKEY = 1 << 4
    ICSUM = 1 << 5
    OCSUM = 1 << 6
    ISEQ = 1 << 7
    OSEQ = 1 << 8
    SOURCES = 1 << 9
    IPV6 = 1 << 10
    ETHERNET = 1 << 11


class DeviceRole(enum.IntEnum):
    """``enum device_role``."""

    PORT = 1
    TUNNEL = 2
    INNER = 3


class Settings(ct.Structure):
    """``struct settings``."""

    _fields_ = [("unknown_gre_pass", ct.c_uint32)]


class Endpoint(ct.Structure):
    """``struct endpoint``, a key: no holes."""

    _fields_ = [
        ("local", _IpAddress),
        ("remote", _IpAddress),
        ("key", _U32Be),
        ("kind", ct.c_uint32),
    ]


class Tunnel(ct.Structure):
    """``struct tunnel``."""

    _fields_ = [
        ("name", ct.c_char * DEVICE_NAME_BYTES),
        ("id", ct.c_uint32),
        ("local", _IpAddress),
        ("remote", _IpAddress),
        ("ikey", _U32Be),
        ("okey", _U32Be),
        ("flags", ct.c_uint32),
        ("device_ifindex", ct.c_uint32),
        ("inner_ifindex", ct.c_uint32),
        ("mtu", ct.c_uint32),
        ("device_mtu", ct.c_uint32),
        ("device_mac", _Mac),
        ("ttl", ct.c_uint8),
        ("tos", ct.c_uint8),
        ("mss_ipv4", ct.c_uint16),
        ("mss_ipv6", ct.c_uint16),
    ]


class VlanTag(ct.Structure):
    """``struct vlan_tag``."""

    _fields_ = [("protocol", ct.c_uint8 * 2), ("id", ct.c_uint8 * 2)]


class Device(ct.Structure):
    """``struct device``."""

    _fields_ = [
        ("role", ct.c_uint32),
        ("slot", ct.c_uint32),
        ("trunk", ct.c_uint32),
        ("mac", _Mac),
        ("has_vlans", ct.c_uint8),
        ("is_shared", ct.c_uint8),
        ("tags", VlanTag * VLAN_TAGS_MAX),
    ]


class Vlan(ct.Structure):
    """``struct vlan``, a key: no holes."""

    _fields_ = [("trunk", ct.c_uint32), ("tags", VlanTag * VLAN_TAGS_MAX)]


class NextHop(ct.Structure):
    """``struct next_hop``, a key: no holes."""

    _fields_ = [("ifindex", ct.c_uint32), ("address", _IpAddress)]


class TunnelCounters(ct.Structure):
    """``struct tunnel_counters``."""

    _fields_ = [
        ("rx_packets", ct.c_uint64),
        ("rx_bytes", ct.c_uint64),
        ("tx_packets", ct.c_uint64),
        ("tx_bytes", ct.c_uint64),
    ]


class Scratch(ct.Structure):
    """``struct scratch``."""

    _fields_ = [("offset", ct.c_uint32), ("bytes", ct.c_uint32), ("block", ct.c_uint8 * 516)]


class Sequences(ct.Structure):
    """``struct sequences``."""

    _fields_ = [("sent", ct.c_uint64), ("received", ct.c_uint64)]


class SourcePrefix(ct.Structure):
    """``struct source_prefix``, a key: no holes."""

    _fields_ = [
        ("prefix_bits", ct.c_uint32),
        ("tunnel", _U32Be),
        ("family", _U32Be),
        ("address", ct.c_uint8 * 16),
    ]


SOURCE_SCOPE_BITS = 64
SEQUENCE_SEEN = 1 << 32
REASON_COUNT = 192

# The maps themselves, by index. Hashes are not preallocated: they cost what they hold.
MAPS: dict[MapIndex, bpf.MapSpec] = {
    MapIndex.SETTINGS: bpf.MapSpec("settings", bpf.MAP_TYPE_ARRAY, 4, ct.sizeof(Settings), 1),
    MapIndex.ENDPOINTS: bpf.MapSpec(
        "endpoints",
        bpf.MAP_TYPE_HASH,
        ct.sizeof(Endpoint),
        4,
        # A tunnel has its own entry, its pair's and its local's.
        3 * TUNNELS_MAX,
        bpf.MAP_FLAG_NO_PREALLOC,
    ),
    MapIndex.TUNNELS: bpf.MapSpec("tunnels", bpf.MAP_TYPE_ARRAY, 4, ct.sizeof(Tunnel), SLOTS_MAX),
    MapIndex.DEVICES: bpf.MapSpec(
        "devices",
        bpf.MAP_TYPE_HASH,
        4,
        ct.sizeof(Device),
        3 * TUNNELS_MAX,
        bpf.MAP_FLAG_NO_PREALLOC,
    ),
    MapIndex.PORTS: bpf.MapSpec("ports", bpf.MAP_TYPE_DEVMAP_HASH, 4, 4, 2 * TUNNELS_MAX),
    MapIndex.TUNNEL_COUNTERS: bpf.MapSpec(
        "tunnel_counters",
        bpf.MAP_TYPE_PERCPU_ARRAY,
        4,
        ct.sizeof(TunnelCounters),
        TUNNELS_MAX,
    ),
    MapIndex.REASON_COUNTERS: bpf.MapSpec(
        "reason_counters", bpf.MAP_TYPE_PERCPU_ARRAY, 4, 8, REASON_COUNT
    ),
    MapIndex.SEQUENCES: bpf.MapSpec(
        "sequences", bpf.MAP_TYPE_ARRAY, 4, ct.sizeof(Sequences), TUNNELS_MAX
    ),
    MapIndex.SOURCES: bpf.MapSpec(
        "sources",
        bpf.MAP_TYPE_LPM_TRIE,
        ct.sizeof(SourcePrefix),
        1,
        SOURCES_MAX,
        bpf.MAP_FLAG_NO_PREALLOC,
    ),
    MapIndex.VLANS: bpf.MapSpec(
        "vlans", bpf.MAP_TYPE_HASH, ct.sizeof(Vlan), 4, VLANS_MAX, bpf.MAP_FLAG_NO_PREALLOC
    ),
    MapIndex.ANSWERS: bpf.MapSpec("answers", bpf.MAP_TYPE_PERCPU_ARRAY, 4, 8, ANSWER_BUCKETS),
    MapIndex.NEXT_HOPS: bpf.MapSpec(
        "next_hops",
        bpf.MAP_TYPE_HASH,
        ct.sizeof(NextHop),
        4,
        # One of each family.
        2 * TUNNELS_MAX,
        bpf.MAP_FLAG_NO_PREALLOC,
    ),
    MapIndex.NEIGHBOURS: bpf.MapSpec(
        "neighbours", bpf.MAP_TYPE_LRU_HASH, ct.sizeof(NextHop), 8, NEIGHBOURS_MAX
    ),
    MapIndex.NOTES: bpf.MapSpec("notes", bpf.MAP_TYPE_PERCPU_ARRAY, 4, 8, NOTE_BUCKETS),
    MapIndex.SCRATCH: bpf.MapSpec("scratch", bpf.MAP_TYPE_PERCPU_ARRAY, 4, ct.sizeof(Scratch), 1),
}


def u32(number: int) -> bytes:
    """A map key or value that is one number in host byte order."""
    return bytes(ct.c_uint32(number))


def read_u32(data: bytes) -> int:
    """The inverse of ``u32``."""
    return ct.c_uint32.from_buffer_copy(data).value


def ip(address: IpAddress) -> ct.Array[ct.c_uint8]:
    """An address as ``struct ip_address``: IPv4 as ::ffff:a.b.c.d."""
    if isinstance(address, IPv4Address):
        return _IpAddress(*_MAPPED_PREFIX, *address.packed)
    return _IpAddress(*address.packed)


def u32_be(number: int) -> ct.Array[ct.c_uint8]:
    """A number in network byte order."""
    return _U32Be(*number.to_bytes(4, "big"))


def gre_key(key: int | None) -> ct.Array[ct.c_uint8]:
    """A GRE key in network byte order; 0 where there is none (flags tell them apart)."""
    return u32_be(key or 0)


def read_ip(data: ct.Array[ct.c_uint8]) -> IpAddress:
    """The inverse of ``ip``."""
    address = IPv6Address(bytes(data))
    return address.ipv4_mapped or address


def read_u32_be(data: ct.Array[ct.c_uint8]) -> int:
    """The inverse of ``u32_be``."""
    return int.from_bytes(bytes(data), "big")


def tag(protocol: int, vlan_id: int) -> VlanTag:
    """A VLAN tag as it stands on the wire; twice 0 for none."""
    return VlanTag(
        protocol=(ct.c_uint8 * 2)(*protocol.to_bytes(2, "big")),
        id=(ct.c_uint8 * 2)(*vlan_id.to_bytes(2, "big")),
    )


def read_tag(data: VlanTag) -> tuple[int, int]:
    """The inverse of ``tag``."""
    return int.from_bytes(bytes(data.protocol), "big"), int.from_bytes(bytes(data.id), "big")


def mac(text: str) -> ct.Array[ct.c_uint8]:
    """A link address written ``aa:bb:cc:dd:ee:ff``; zeros for devices that have another kind."""
    octets = bytes.fromhex(text.replace(":", ""))
    return _Mac(*(octets if len(octets) == MAC_BYTES else bytes(MAC_BYTES)))


def read_mac(data: ct.Array[ct.c_uint8]) -> str:
    """The inverse of ``mac``."""
    return bytes(data).hex(":")


@dataclass(frozen=True, slots=True)
class Counters:
    """Packets and bytes of one tunnel, summed over CPUs; bytes count from the inner IP header."""

    rx_packets: int
    rx_bytes: int
    tx_packets: int
    tx_bytes: int


def percpu_size(value_size: int) -> int:
    """Bytes that a look-up in a per-CPU map returns: every CPU's value, rounded up to 8."""
    return (value_size + 7) // 8 * 8 * bpf.possible_cpus()


def sum_counters(data: bytes) -> Counters:
    """Sum a per-CPU ``struct tunnel_counters``."""
    rows = (TunnelCounters * bpf.possible_cpus()).from_buffer_copy(data)
    return Counters(
        rx_packets=sum(row.rx_packets for row in rows),
        rx_bytes=sum(row.rx_bytes for row in rows),
        tx_packets=sum(row.tx_packets for row in rows),
        tx_bytes=sum(row.tx_bytes for row in rows),
    )


def sum_u64(data: bytes) -> int:
    """Sum a per-CPU ``__u64``."""
    return sum((ct.c_uint64 * bpf.possible_cpus()).from_buffer_copy(data))
