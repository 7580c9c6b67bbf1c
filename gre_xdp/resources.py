"""What exists in the kernel because of us: values that can be compared, planned and undone.

A state is a mapping from keys to resources. Desired and observed states hold the same classes, so
that a plan is nothing but their difference. Classes are listed in the order of creation.
"""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from typing import ClassVar, Literal

from gre_xdp.netlink.addresses import Interface as InterfaceAddress
from gre_xdp.netlink.routes import GATEWAY, Network
from gre_xdp.netlink.routes import Address as IpAddress
from gre_xdp.values import RESERVED_PREFIX

Key = tuple[str, ...]
Program = Literal["port", "inner"]
Payload = Literal["ip", "ethernet"]


_DEVICE_NAME_CHARACTERS = 15


def inner_name(tunnel: str) -> str:
    """The name of a tunnel device's inner end: readable where it fits, unique always."""
    name = RESERVED_PREFIX + tunnel
    # Only digests have the full length, so that no name is another one's digest.
    if len(name) < _DEVICE_NAME_CHARACTERS:
        return name
    digest = base64.b32encode(hashlib.blake2s(tunnel.encode()).digest()).decode().lower()
    return (RESERVED_PREFIX + digest)[:_DEVICE_NAME_CHARACTERS]


@dataclass(frozen=True, slots=True)
class Sysctl:
    """A network setting below /proc/sys/net."""

    kind: ClassVar[str] = "sysctl"
    path: str
    value: str

    @property
    def key(self) -> Key:  # noqa: D102 - the same in every class: what identifies the resource
        return (self.kind, self.path)

    def __str__(self) -> str:
        return f"net/{self.path} = {self.value}"


@dataclass(frozen=True, slots=True)
class DataPlane:
    """The maps, and the programs compiled from sources with this digest."""

    kind: ClassVar[str] = "programs"
    digest: str

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind,)

    def __str__(self) -> str:
        return f"programs {self.digest}"


@dataclass(frozen=True, slots=True)
class Policy:
    """What becomes of GRE to a local of ours that no tunnel takes."""

    kind: ClassVar[str] = "policy"
    unknown_gre: str

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind,)

    def __str__(self) -> str:
        return f"unknown_gre = {self.unknown_gre}"


@dataclass(frozen=True, slots=True)
class TunnelDevice:
    """A tunnel's veth pair; ``is_ready`` when everything else about it is as it must be."""

    kind: ClassVar[str] = "device"
    name: str
    mtu: int
    payload: Payload = "ip"
    ipv6_mtu: int | None = None  # in bytes, where IPv6 must send less than the device takes
    is_ready: bool = True

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind, self.name)

    def __str__(self) -> str:
        kind = " ethernet" if self.payload == "ethernet" else ""
        ipv6 = f" ipv6 mtu {self.ipv6_mtu}" if self.ipv6_mtu else ""
        return f"{self.name}{kind} mtu {self.mtu}{ipv6}" + ("" if self.is_ready else " (not ready)")


@dataclass(frozen=True, slots=True)
class Attachment:
    """An XDP program on a device."""

    kind: ClassVar[str] = "attachment"
    device: str
    program: Program
    mode: str
    digest: str

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind, self.device)

    def __str__(self) -> str:
        return f"{self.device} program {self.program} {self.digest} mode {self.mode}"


@dataclass(frozen=True, slots=True)
class Target:
    """A device that the programs may send out of."""

    kind: ClassVar[str] = "target"
    device: str

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind, self.device)

    def __str__(self) -> str:
        return self.device


@dataclass(frozen=True, slots=True)
class Port:
    """An interface of the configuration as the data path knows it.

    A VLAN's frames come and go by its ``trunk``, with its tags (protocol and ID, the outer first).
    """

    kind: ClassVar[str] = "port"
    name: str
    mac: str
    trunk: str = ""
    tags: tuple[tuple[int, int], ...] = ()
    has_vlans: bool = False  # are VLANs on it ports, too?
    is_bound: bool = True  # do all its map entries agree?

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind, self.name)

    def __str__(self) -> str:
        vlan = ".".join(str(vlan_id) for _, vlan_id in self.tags)
        tagged = f" vlan {vlan} on {self.trunk}" if self.trunk else ""
        tagged += " with vlans" if self.has_vlans else ""
        return f"{self.name} {self.mac}{tagged}" + ("" if self.is_bound else " (incomplete)")


@dataclass(frozen=True, slots=True)
class TunnelEntry:
    """A tunnel as the data path knows it; ``is_bound`` when all its map entries agree.

    ``next_hops`` select it where its device is shared; empty: it has the device for itself.
    """

    kind: ClassVar[str] = "tunnel"
    name: str
    device: str
    local: IpAddress
    remote: IpAddress
    ikey: int | None
    okey: int | None
    ttl: int | Literal["inherit"]
    tos: int | Literal["inherit"]
    pmtudisc: bool
    mtu: int
    device_mtu: int | None = None  # in bytes, while the path is narrower than the device; else mtu
    mss_ipv4: int | None = None  # largest TCP MSS let through, in bytes; None: never touched
    mss_ipv6: int | None = None
    icsum: bool = False
    ocsum: bool = False
    iseq: bool = False
    oseq: bool = False
    payload: Payload = "ip"
    allowed_sources: frozenset[Network] = frozenset()  # empty: any
    next_hops: tuple[IpAddress, ...] = ()
    is_bound: bool = True

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind, self.name)

    def __str__(self) -> str:
        words = [self.name, f"local {self.local} remote {self.remote}"]
        if self.next_hops:
            words.append(f"device {self.device} nexthop {','.join(map(str, self.next_hops))}")
        words += ["ethernet"] if self.payload == "ethernet" else []
        if self.ikey is not None and self.ikey == self.okey:
            words.append(f"key {self.ikey}")
        else:
            words += [
                f"{word} {key}"
                for word, key in (("ikey", self.ikey), ("okey", self.okey))
                if key is not None
            ]
        words.append(f"ttl {self.ttl} tos {self.tos} mtu {self.mtu}")
        if self.device_mtu is not None:
            words.append(f"(path; device {self.device_mtu})")
        words.append("pmtudisc" if self.pmtudisc else "nopmtudisc")
        words += [word for word in ("icsum", "ocsum", "iseq", "oseq") if getattr(self, word)]
        if self.allowed_sources:
            words.append("sources " + ",".join(sorted(map(str, self.allowed_sources))))
        if self.mss_ipv4 is not None:
            words.append(f"mss {self.mss_ipv4}/{self.mss_ipv6}")
        return " ".join(words) + ("" if self.is_bound else " (incomplete)")


@dataclass(frozen=True, slots=True)
class TunnelAddress:
    """An address on a tunnel's device."""

    kind: ClassVar[str] = "address"
    device: str
    address: InterfaceAddress

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind, self.device, str(self.address))

    def __str__(self) -> str:
        return f"{self.address} dev {self.device}"


@dataclass(frozen=True, slots=True)
class NextHop:
    """A neighbour towards a remote that the kernel keeps resolved."""

    kind: ClassVar[str] = "neighbour"
    interface: str
    address: IpAddress

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind, self.interface, str(self.address))

    def __str__(self) -> str:
        return f"{self.address} dev {self.interface} managed"


@dataclass(frozen=True, slots=True)
class TunnelRoute:
    """A route into a tunnel."""

    kind: ClassVar[str] = "route"
    destination: Network
    device: str
    gateway: IpAddress | None  # None behind an Ethernet tunnel: neighbours there are asked
    mtu: int | None = None  # in bytes, while the path is narrower than the device

    @property
    def key(self) -> Key:  # noqa: D102
        return (self.kind, str(self.destination))

    def __str__(self) -> str:
        mtu = f" mtu {self.mtu}" if self.mtu else ""
        is_named = self.gateway not in (None, *GATEWAY.values())
        via = f" via {self.gateway}" if is_named else ""
        on_link = "" if self.gateway else " on link"
        return f"{self.destination}{via} dev {self.device}{on_link}{mtu}"


Resource = (
    Sysctl
    | DataPlane
    | Policy
    | TunnelDevice
    | Target
    | Attachment
    | Port
    | TunnelEntry
    | TunnelAddress
    | NextHop
    | TunnelRoute
)

# Creation order. What may fail or take long comes before the host changes its behaviour; a next hop
# takes a moment to answer, so it is asked early; what a program may send to is there before the
# program; a route attracts traffic, so it comes last.
CREATION_ORDER: tuple[type[Resource], ...] = (
    DataPlane,
    Policy,
    Sysctl,
    NextHop,
    TunnelDevice,
    Target,
    TunnelEntry,
    Port,
    Attachment,
    TunnelAddress,
    TunnelRoute,
)

State = dict[Key, Resource]


def state(resources: list[Resource]) -> State:
    """Index resources by key; the order of the list is the order among equals."""
    return {resource.key: resource for resource in resources}
