"""Single values of the configuration: what each kind of value may be, and how it is written.

A mistake is a pydantic error of type ``MISTAKE`` whose context holds ``problem`` and ``remedy``
(plain sentences) and, for a collision, ``other`` (the ``loc`` of what it collides with).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Interface,
    IPv4Network,
    IPv6Address,
    IPv6Interface,
    IPv6Network,
    ip_address,
    ip_interface,
    ip_network,
)
from typing import Annotated, Any, Final, Literal, TypeAlias, TypeVar

from pydantic import (
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    PlainSerializer,
    PlainValidator,
    WithJsonSchema,
)
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

Loc: TypeAlias = tuple[int | str, ...]
IPAddress: TypeAlias = IPv4Address | IPv6Address
IPInterface: TypeAlias = IPv4Interface | IPv6Interface
IPNetwork: TypeAlias = IPv4Network | IPv6Network
_T = TypeVar("_T")

MISTAKE: Final = "gre_xdp"
RESERVED_PREFIX: Final = "gx-"  # names of the devices that gre-xdp makes beside the tunnel's own
_NAME_MAX: Final = 15  # IFNAMSIZ less the terminating NUL
_KEY_MAX: Final = 2**32 - 1
_IP_EXAMPLE, _ON_LINK_EXAMPLE, _PREFIX_EXAMPLE = "192.0.2.1", "169.254.10.1/30", "10.20.0.0/16"


def mistake(problem: str, remedy: str, other: Loc | None = None) -> PydanticCustomError:
    """Make the error for a wrong value."""
    context = {"problem": problem, "remedy": remedy, "other": other}
    return PydanticCustomError(MISTAKE, "{problem}", context)


@dataclass(frozen=True, slots=True)
class _Number:
    """A whole number from ``low`` to ``high``, or one of ``words``.

    Never a float, never digits in quotes, and a boolean only where it is one of the words.
    """

    low: int
    high: int
    words: tuple[str | bool, ...]

    def check(self, value: object) -> int | str:
        if isinstance(value, str | bool):
            if value in self.words:
                return value
        elif isinstance(value, int) and self.low <= value <= self.high:
            return value
        words = " or ".join(f'"{w}"' if isinstance(w, str) else str(w).lower() for w in self.words)
        raise mistake(
            f"this is neither a whole number from {self.low} to {self.high} nor {words}",
            f"write a number from {self.low} to {self.high} without quotes, or {words}",
        )

    def __get_pydantic_core_schema__(
        self, source: type[Any], handler: GetCoreSchemaHandler
    ) -> CoreSchema:
        return core_schema.no_info_plain_validator_function(self.check)

    def __get_pydantic_json_schema__(
        self, schema: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchemaValue:
        number = {"type": "integer", "minimum": self.low, "maximum": self.high}
        return {"anyOf": [number, {"enum": list(self.words)}]}


def _device_name(value: object) -> str:
    """A name that the kernel's ``dev_valid_name`` takes and /proc/sys/net gives no other meaning.

    Stricter in two points: ASCII only, and no '%', which the kernel expands to a number.
    """
    if not isinstance(value, str) or not 1 <= len(value) <= _NAME_MAX:
        raise mistake(
            f"a device name is a string of 1 to {_NAME_MAX} characters", "choose such a name"
        )
    if value in (".", "..") or not re.fullmatch("[!-~]+", value) or re.search("[/:%]", value):
        raise mistake(
            "Linux takes no such device name",
            "use ASCII letters, digits and signs, without spaces, '/', ':' or '%'",
        )
    if value in ("all", "default", "lo"):
        raise mistake("this name has another meaning to Linux", "choose another name")
    if value.startswith(RESERVED_PREFIX):
        raise mistake(
            f'names that begin with "{RESERVED_PREFIX}" are for devices that gre-xdp makes itself',
            "choose another name",
        )
    return value


def _key(value: object) -> int | None:
    """A key in host byte order; a dotted quad is read as its 32-bit number, as by `ip tunnel`."""
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _KEY_MAX:
        return value
    remedy = 'write for instance 77 or "0.0.0.77", or nothing for no key'
    problem = f"a key is a whole number from 0 to {_KEY_MAX} or a dotted quad"
    if not isinstance(value, str):
        raise mistake(problem, remedy)
    return int(_parsed(value, IPv4Address, problem, remedy))


def _parsed(value: object, parse: Callable[[str], _T], problem: str, remedy: str) -> _T:
    """What ``parse`` of ipaddress makes of a text, which may also come as one of its objects."""
    if not isinstance(value, str | IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        raise mistake(problem, remedy)
    text = str(value)
    # ipaddress would take a zone, netmasks, and silently host masks: /0.0.0.255 would be /24.
    _, slash, length = text.partition("/")
    if "%" in text or (slash and not length.isdecimal()):
        raise mistake(problem, remedy)
    try:
        return parse(text)
    except ValueError:
        raise mistake(problem, remedy) from None


def _endpoint(value: object) -> IPAddress:
    """An address that an outer header may carry: unicast, and not of a host's loopback."""
    address = _parsed(
        value, ip_address, "this is not an IP address", f'write it like "{_IP_EXAMPLE}"'
    )
    for is_so, kind in (
        (address.is_unspecified, "the unspecified address"),
        (address.is_loopback, "a loopback address"),
        (address.is_multicast, "a multicast address"),
        (address == IPv4Address("255.255.255.255"), "the broadcast address"),
        # Which link it is of, nothing here says.
        (address.version == 6 and address.is_link_local, "a link-local address"),
        (isinstance(address, IPv6Address) and address.ipv4_mapped, "an IPv4-mapped address"),
    ):
        if is_so:
            raise mistake(
                f"{kind} cannot be an end of a tunnel", "write a unicast address of the underlay"
            )
    return address


def _on_link(value: object) -> IPInterface:
    problem = "this is not an IP address with a prefix length"
    address = _parsed(value, ip_interface, problem, f'write it like "{_ON_LINK_EXAMPLE}"')
    # The kernel takes ::1 on lo alone, and takes 127.0.0.1 without ever sending from it.
    if address.ip.is_unspecified or address.ip.is_multicast or address.ip.is_loopback:
        raise mistake("a device cannot have this address", "write a unicast address")
    return address


def _next_hops(value: object) -> tuple[IPAddress, ...]:
    """One address, or a list of at most one of each family; IPv4 comes first."""
    texts = value if isinstance(value, list | tuple) else [value]
    remedy = 'write it like "10.255.0.7", or ["10.255.0.7", "fd00:255::7"] for both families'
    found = [_parsed(text, ip_address, "this is not an IP address", remedy) for text in texts]
    if len({address.version for address in found}) < len(found):
        raise mistake("a tunnel has one next hop, or one of each family", remedy)
    for address in found:
        if address.is_unspecified or address.is_loopback or address.is_multicast:
            raise mistake(f"{address} cannot be a next hop", remedy)
        if isinstance(address, IPv6Address) and address.ipv4_mapped:
            raise mistake("an IPv4-mapped address cannot be a next hop", remedy)
    return tuple(sorted(found, key=lambda address: address.version))


def _prefix(value: object) -> IPNetwork:
    problem = "this is not an IP prefix"
    address = _parsed(value, ip_interface, problem, f'write it like "{_PREFIX_EXAMPLE}"')
    if address.ip != address.network.network_address:
        raise mistake("bits are set beyond the prefix length", f'write "{address.network}"')
    return ip_network(address.network)


def _listener(value: object) -> str:
    """HOST:PORT with an IPv6 host in brackets (RFC 3986 section 3.2.2), or nothing."""
    remedy = 'write it like "127.0.0.1:9747" or "[::1]:9747", or "" for no exporter'
    if not isinstance(value, str):
        raise mistake("this is not a string HOST:PORT", remedy)
    if value == "":
        return value
    host, _, port = value.rpartition(":")
    if not re.fullmatch("[0-9]{1,5}", port) or not 1 <= int(port) <= 65535:
        raise mistake("this does not end in a colon and a port from 1 to 65535", remedy)
    problem = "the host is neither an IP address nor a host name"
    if host.startswith("[") and host.endswith("]"):
        _parsed(host[1:-1], IPv6Address, problem, remedy)
    elif re.fullmatch("[0-9.]+", host):
        _parsed(host, IPv4Address, problem, remedy)
    elif not re.fullmatch("[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,251}[A-Za-z0-9_])?", host):
        raise mistake(problem, remedy)
    return value


_IPV4_JSON, _IPV6_JSON = {"type": "string", "format": "ipv4"}, {"type": "string", "format": "ipv6"}
_KEY_JSON = {"anyOf": [{"type": "integer", "minimum": 0, "maximum": _KEY_MAX}, _IPV4_JSON]}
_NAME_JSON = {"type": "string", "minLength": 1, "maxLength": _NAME_MAX}
_PREFIX_JSON = {"type": "string", "pattern": "^[0-9A-Fa-f:.]+(/[0-9]+)?$"}

DeviceName = Annotated[str, PlainValidator(_device_name), WithJsonSchema(_NAME_JSON)]
Key = Annotated[int | None, PlainValidator(_key), WithJsonSchema(_KEY_JSON)]
Endpoint = Annotated[
    IPAddress, PlainValidator(_endpoint), WithJsonSchema({"anyOf": [_IPV4_JSON, _IPV6_JSON]})
]
NextHops = Annotated[
    tuple[IPAddress, ...],
    PlainValidator(_next_hops),
    # Left to itself pydantic serializes what its serializer has made of a tuple once more.
    PlainSerializer(lambda found: [str(address) for address in found], when_used="json"),
    WithJsonSchema(
        {
            "anyOf": [
                _IPV4_JSON,
                _IPV6_JSON,
                {
                    "type": "array",
                    "items": {"anyOf": [_IPV4_JSON, _IPV6_JSON]},
                    "maxItems": 2,
                },
            ]
        }
    ),
]
OnLink = Annotated[IPInterface, PlainValidator(_on_link), WithJsonSchema(_PREFIX_JSON)]
Prefix = Annotated[IPNetwork, PlainValidator(_prefix), WithJsonSchema(_PREFIX_JSON)]
Listener = Annotated[str, PlainValidator(_listener), WithJsonSchema({"type": "string"})]
Ttl = Annotated[int | Literal["inherit"], _Number(1, 255, ("inherit",))]
Tos = Annotated[int | Literal["inherit"], _Number(0, 255, ("inherit",))]
# RFC 791: every module forwards 68 bytes without fragmenting them further.
Mtu = Annotated[int | Literal["auto"], _Number(68, 65535, ("auto",))]
# From Linux's TCP_MIN_MSS to the longest IPv4 packet less 40 bytes of headers.
MssClamp = Annotated[bool | int, _Number(88, 65495, (True, False))]
