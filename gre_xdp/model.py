"""The configuration's tables: what may be asked for, and what contradicts what.

Single values are ``values.py``'s; text, line numbers and the wording around a mistake are
``config.py``'s.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import InitErrorDetails

from gre_xdp.values import (
    DeviceName,
    Endpoint,
    IPAddress,
    IPInterface,
    IPNetwork,
    Key,
    Listener,
    Loc,
    MssClamp,
    Mtu,
    NextHops,
    OnLink,
    Prefix,
    Tos,
    Ttl,
    mistake,
)

# A shorthand sets both directions: key stands for ikey and okey.
_SHORTHANDS: Final = ("key", "csum", "seq")
_DIRECTIONS: Final = tuple(way + word for word in _SHORTHANDS for way in "io")


def _shorthand(word: str, description: str) -> Any:
    return Field(default=None, alias=word, exclude=True, repr=False, description=description)


def _direction(description: str) -> Any:
    # None is "not written"; Tunnel._resolve_direction decides what that means.
    return Field(default=None, validate_default=True, description=description)


def _exclude_pairs(schema: dict[str, Any]) -> None:
    schema["allOf"] = [{"not": {"required": [word[1:], word]}} for word in _DIRECTIONS]


class Interface(BaseModel):
    """A device where XDP is attached; both directions of all tunnels are handled on each."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: DeviceName = Field(description="Name of the network device, as `ip link` shows it.")
    mode: Literal["native", "skb"] = Field(
        default="native",
        description="Where XDP runs: native (in the driver) or skb (the kernel's generic hook);"
        " one never falls back to the other.",
    )


class Tunnel(BaseModel):
    """A GRE tunnel (RFC 2784, RFC 2890) and the network device that is named after it."""

    # After validation ask for a direction (ikey or okey, icsum or ocsum, iseq or oseq). The
    # shorthands are input only; their attributes are None on every Tunnel.
    model_config = ConfigDict(frozen=True, extra="forbid", json_schema_extra=_exclude_pairs)

    name: DeviceName = Field(description="Name of the tunnel and of its network device.")
    local: Endpoint = Field(description="Outer source of sent packets, an address of this host.")
    remote: Endpoint = Field(
        description="Outer destination of sent packets, the peer's address; of local's family."
    )
    backing: Literal["veth", "kernel"] = Field(
        default="veth",
        description="What the tunnel's device is: veth (a pair made by gre-xdp) or kernel (an"
        " existing GRE device of the kernel, to be offloaded).",
    )
    payload: Literal["ip", "ethernet"] = Field(
        default="ip",
        description="What is carried: ip (IPv4, IPv6, MPLS) or ethernet (protocol 0x6558).",
    )
    device: DeviceName | None = Field(
        default=None,
        description="Name of a device that several tunnels share, each with a nexthop of its own;"
        " absent: the tunnel has a device for itself, named like it.",
    )
    nexthop: NextHops = Field(
        default=(),
        validate_default=False,
        description="With device: the next hop of routes that selects this tunnel, an address or a"
        " list of one of each family; routes of others select it by `ip route … via` as well.",
    )
    both_key: Key = _shorthand(
        "key",
        "Key of both directions, a number from 0 to 4294967295 or a dotted quad; excludes ikey and"
        " okey; absent is no key, which is not key 0.",
    )
    ikey: Key = _direction("Key that received packets must carry; absent: they must carry none.")
    okey: Key = _direction("Key that sent packets carry; absent: they carry none.")
    both_csum: StrictBool | None = _shorthand(
        "csum", "GRE checksum in both directions, false if absent; excludes icsum and ocsum."
    )
    icsum: StrictBool = _direction("Whether received packets must carry a GRE checksum.")
    ocsum: StrictBool = _direction("Whether sent packets carry a GRE checksum.")
    both_seq: StrictBool | None = _shorthand(
        "seq", "Sequence numbers in both directions, false if absent; excludes iseq and oseq."
    )
    iseq: StrictBool = _direction("Whether received packets must carry rising sequence numbers.")
    oseq: StrictBool = _direction("Whether sent packets carry sequence numbers.")
    ttl: Ttl = Field(
        default=64, description="Outer TTL, 1 to 255 hops, or inherit for that of the inner packet."
    )
    tos: Tos = Field(
        default="inherit",
        description="Outer TOS byte, 0 to 255, or inherit for that of the inner packet; its two ECN"
        " bits always follow RFC 6040.",
    )
    pmtudisc: StrictBool = Field(
        default=True, description="Whether outer DF is always set; false copies inner DF."
    )
    mtu: Mtu = Field(
        default="auto",
        description="MTU of the tunnel's device in bytes, 68 to 65535, or auto for the underlay's"
        " MTU less the headers of the tunnel.",
    )
    mss_clamp: MssClamp = Field(
        default=True,
        description="To how many bytes the TCP maximum segment size in SYN packets is lowered:"
        " true derives it from the MTU, false never lowers it.",
    )
    addresses: tuple[OnLink, ...] = Field(
        default=(), description="Addresses of the tunnel's device, each with its prefix length."
    )
    routes: tuple[Prefix, ...] = Field(
        default=(), description="Prefixes that the kernel routes to the tunnel's device."
    )
    mtu_probe: StrictBool = Field(
        default=False,
        description="Whether the agent checks, before the tunnel is called up and every 30 seconds,"
        " that IPv6 packets of 1,280 bytes come back through it (RFC 7676 section 3.2).",
    )
    allowed_sources: tuple[Prefix, ...] = Field(
        default=(),
        description="Prefixes to which inner sources of received packets must belong; empty: any.",
    )

    @field_validator("remote")
    @classmethod
    def _fit_local(cls, remote: IPAddress, info: ValidationInfo) -> IPAddress:
        local: IPAddress = info.data.get("local", remote)
        if local.version != remote.version:
            raise mistake(
                f"this is IPv{remote.version}, but local = {local} is IPv{local.version}",
                "write local and remote of one family",
            )
        if info.data.get("local") == remote:
            raise mistake("this is also local", "write the address of the peer")
        return remote

    @field_validator(*_DIRECTIONS, mode="before")
    @classmethod
    def _resolve_direction(cls, value: object, info: ValidationInfo) -> object:
        word = str(info.field_name)[1:]
        common = info.data.get(f"both_{word}")
        if value is None:
            return common if word == "key" else bool(common)
        if common is not None:
            raise mistake(
                f"{word} has set both directions already", f"keep {word}, or i{word} and o{word}"
            )
        return value

    @field_validator("*")
    @classmethod
    def _refuse_not_yet(cls, value: object, info: ValidationInfo) -> object:
        row = _NOT_YET.get(str(info.field_name).removeprefix("both_"))
        if row and row.is_asked(value):
            raise mistake(f"{row.what} not supported yet by this version", row.remedy)
        return value

    @field_validator("mtu_probe")
    @classmethod
    def _fit_addresses(cls, is_asked: bool, info: ValidationInfo) -> bool:
        addresses: tuple[IPInterface, ...] = info.data.get("addresses", ())
        if is_asked and info.data.get("device") is not None:
            raise mistake(
                "what the tunnel sends to itself would not find it on a shared device", "remove it"
            )
        if is_asked and info.data.get("payload") == "ethernet":
            raise mistake(
                "this asks whether IPv6 packets pass, and an Ethernet tunnel carries frames",
                "remove it",
            )
        if is_asked and not any(a.version == 6 and not a.is_link_local for a in addresses):
            raise mistake(
                "this sends IPv6 packets to the tunnel itself, which has no IPv6 address that the"
                " remote could route",
                'add one to addresses, like "fd00:10::1/64"',
            )
        return is_asked

    @field_validator("nexthop", mode="after")
    @classmethod
    def _need_device(
        cls, next_hops: tuple[IPAddress, ...], info: ValidationInfo
    ) -> tuple[IPAddress, ...]:
        if next_hops and info.data.get("device") is None:
            raise mistake(
                "a next hop selects a tunnel on a shared device, and this tunnel has its own",
                "add device = NAME, the same in all tunnels that share it, or remove this",
            )
        return next_hops

    @field_validator("device", mode="after")
    @classmethod
    def _carry_packets(cls, device: str | None, info: ValidationInfo) -> str | None:
        if device is not None and info.data.get("payload") == "ethernet":
            raise mistake(
                "tunnels that share a device carry packets, and this one carries frames",
                'remove this, or set payload = "ip"',
            )
        return device

    @field_validator("allowed_sources")
    @classmethod
    def _fit_payload(
        cls, sources: tuple[IPNetwork, ...], info: ValidationInfo
    ) -> tuple[IPNetwork, ...]:
        if sources and info.data.get("payload") == "ethernet":
            raise mistake(
                "an Ethernet tunnel carries frames, whose IP sources are not looked at",
                'remove this and filter at the bridge, or set payload = "ip"',
            )
        return sources

    @property
    def device_name(self) -> str:
        """The network device that packets for the tunnel are routed to."""
        return self.device or self.name

    def next_hop_of(self, destination: IPNetwork) -> IPAddress | None:
        """On a shared device, what a route to a destination goes via; IPv4 may go via IPv6."""
        versions = (6,) if destination.version == 6 else (4, 6)
        found = {address.version: address for address in self.nexthop}
        return next((found[version] for version in versions if version in found), None)

    @model_validator(mode="after")
    def _forget_shorthands(self) -> Self:
        # Around the frozen __setattr__: key = 7 and ikey = okey = 7 must make equal tunnels.
        vars(self).update({f"both_{word}": None for word in _SHORTHANDS})
        return self


class Config(BaseModel):
    """The configuration of gre-xdp."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True)

    unknown_gre: Literal["drop", "pass"] | None = Field(
        default=None,
        description="What is done with GRE to the local of a tunnel that matches no tunnel;"
        " absent: drop on a host without kernel GRE devices, else pass.",
    )
    bypass_firewall: StrictBool = Field(
        default=False,
        description="Whether to forward although the host's forward hook has rules or a drop"
        " policy, which forwarding by XDP bypasses.",
    )
    drift: Literal["repair", "report"] = Field(
        default="repair",
        description="What the agent does when the kernel has come to differ from this file.",
    )
    exporter: Listener = Field(
        default="127.0.0.1:9747",
        description="HOST:PORT where metrics are served, an IPv6 host in brackets; empty: none.",
    )
    interfaces: tuple[Interface, ...] = Field(
        default=(),
        validation_alias="interface",
        serialization_alias="interface",
        description="The devices where XDP is attached.",
    )
    tunnels: tuple[Tunnel, ...] = Field(
        default=(),
        validation_alias="tunnel",
        serialization_alias="tunnel",
        description="The tunnels.",
    )

    @model_validator(mode="after")
    def _refuse_conflicts(self) -> Self:
        if found := conflicts(self.interfaces, self.tunnels):
            raise ValidationError.from_exception_data("Config", found)
        return self


# --- between tables -------------------------------------------------------------------------------


def conflicts(
    interfaces: Sequence[Interface | None], tunnels: Sequence[Tunnel | None]
) -> list[InitErrorDetails]:
    """Everything that is wrong between tables which are right by themselves.

    None stands for a table that is wrong by itself: it keeps its place and takes part in nothing.
    """
    whole = [(n, tunnel) for n, tunnel in enumerate(tunnels) if tunnel]
    names: dict[Loc, str] = {
        ("interface", n): port.name for n, port in enumerate(interfaces) if port
    }
    names |= {("tunnel", n): tunnel.name for n, tunnel in whole}
    addresses = [
        (address, ("tunnel", n, "addresses", m), tunnel)
        for n, tunnel in whole
        for m, address in enumerate(tunnel.addresses)
    ]
    routes = [
        (route, ("tunnel", n, "routes", m))
        for n, tunnel in whole
        for m, route in enumerate(tunnel.routes)
    ]
    found: list[InitErrorDetails] = []

    def add(loc: Loc, problem: str, remedy: str, other: Loc | None = None) -> None:
        found.append(InitErrorDetails(type=mistake(problem, remedy, other), loc=loc, input=None))

    def name(loc: Loc) -> str:
        return f'{loc[0]} "{names[loc[:2]]}"'

    if tunnels and not interfaces:
        add(
            ("tunnel",),
            "there is no [[interface]] where XDP could meet the packets of tunnels",
            "add an [[interface]] with the name of the underlay's device",
        )
    for loc, other in _repeated((name_, (*table, "name")) for table, name_ in names.items()):
        add(loc, f"{name(other)} has this name already", "give each a name of its own", other)
    for wrong in _wrong_about_shared_devices(whole, names):
        add(*wrong)
    for loc, other in _repeated(
        ((tunnel.local, tunnel.remote, tunnel.ikey), ("tunnel", n, "remote")) for n, tunnel in whole
    ):
        add(
            loc,
            f"{name(other)} has the same local and remote, and the same ikey or also none, so only"
            " one of the two could receive",
            "give each a key of its own, here and at the peer, or remove one",
            other,
        )
    # A link-local IPv6 address may stand on many links: it means something on each alone.
    for loc, other in _repeated(
        (address.ip, loc)
        for address, loc, _ in addresses
        if not (address.version == 6 and address.is_link_local)
    ):
        add(loc, f"{name(other)} has this address already", "keep one of the two", other)
    for loc, other in _repeated(routes):
        add(loc, f"{name(other)} has this route already", "keep one of the two", other)
    for address, loc, tunnel in addresses:
        if tunnel.remote in address.network:
            add(
                loc,
                f"{address.network} holds the tunnel's own remote {tunnel.remote}, whose packets"
                " would be routed into the tunnel itself",
                "write an address of the overlay, or a longer prefix",
            )
    remotes = {tunnel.remote: ("tunnel", n, "remote") for n, tunnel in whole}
    for route, loc in routes:
        other = remotes.get(route.network_address, ())
        if other and route.prefixlen == route.max_prefixlen:
            add(
                loc,
                f"this is the remote of {name(other)}, whose packets would be routed into a tunnel",
                "remove this route: remotes are reached through the underlay",
                other,
            )
    return found


def _wrong_about_shared_devices(
    tunnels: Sequence[tuple[int, Tunnel]], names: Mapping[Loc, str]
) -> Iterator[tuple[Loc, str, str, Loc | None]]:
    """Of tunnels without a device of their own: where, the problem, the remedy, what else."""
    own_addresses: dict[tuple[str, IPAddress], Loc] = {}
    tables = {name: table for table, name in names.items()}
    selected: dict[tuple[str, IPAddress], Loc] = {}
    for n, tunnel in tunnels:
        for m, address in enumerate(tunnel.addresses if tunnel.device else ()):
            own_addresses[tunnel.device_name, address.ip] = ("tunnel", n, "addresses", m)
    for n, tunnel in tunnels:
        if tunnel.device is None:
            continue
        at, loc = ("tunnel", n, "device"), ("tunnel", n, "nexthop")
        if tunnel.device in tables:
            other = tables[tunnel.device]
            yield (
                at,
                f'{other[0]} "{tunnel.device}" has this name already',
                "give the shared device a name of its own",
                (*other, "name"),
            )
        if not tunnel.nexthop:
            yield (
                at,
                f"the tunnel shares {tunnel.device}, and nothing says which packets are for it",
                'add nexthop, like "10.255.0.7": routes via it select the tunnel',
                None,
            )
        for address_ in tunnel.nexthop:
            first = selected.setdefault((tunnel.device, address_), loc)
            if first is not loc:
                problem = f'tunnel "{names[first[:2]]}" has this next hop already'
                yield loc, problem, "give each a next hop of its own", first
            if (tunnel.device, address_) in own_addresses:
                yield (
                    loc,
                    f"{address_} is an address of the device itself, which no route can go via",
                    "choose another next hop",
                    own_addresses[tunnel.device, address_],
                )
        for m, route in enumerate(tunnel.routes if tunnel.nexthop else ()):
            if tunnel.next_hop_of(route) is None:
                yield (
                    ("tunnel", n, "routes", m),
                    f"{route} is IPv6, and nexthop is IPv4",
                    f'give it both, like nexthop = ["{tunnel.nexthop[0]}", "fd00:255::7"]',
                    None,
                )


def _repeated(entries: Iterable[tuple[Hashable, Loc]]) -> Iterator[tuple[Loc, Loc]]:
    """Where a value stands that stood somewhere before, and where it stood first."""
    first: dict[Hashable, Loc] = {}
    for value, loc in entries:
        other = first.setdefault(value, loc)
        if other is not loc:
            yield loc, other


# --- not yet --------------------------------------------------------------------------------------


class _NotYet(NamedTuple):
    """A value that the configuration knows and the data plane does not."""

    is_asked: Callable[[Any], bool]
    what: str
    remedy: str


# Support for a value is a deleted row.
_NOT_YET: Final = {
    "backing": _NotYet(lambda word: word == "kernel", "this backing is", 'write "veth"'),
}
