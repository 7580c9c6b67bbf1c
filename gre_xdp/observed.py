"""From the kernel back to the state that is there: what we made, as resources."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gre_xdp import abi, sysctl
from gre_xdp.datapath import DataPath, PinnedLink, program_ids
from gre_xdp.device_settings import is_ready, read_ipv6_mtu
from gre_xdp.encoding import decode_tags, encode_vlan
from gre_xdp.host import Host
from gre_xdp.memory import Memory
from gre_xdp.netlink import Netlink
from gre_xdp.netlink.addresses import list_addresses
from gre_xdp.pins import Pins
from gre_xdp.resources import (
    Attachment,
    DataPlane,
    NextHop,
    Payload,
    Policy,
    Port,
    Program,
    Resource,
    State,
    Sysctl,
    Target,
    TunnelAddress,
    TunnelDevice,
    TunnelRoute,
    state,
)
from gre_xdp.tunnel_maps import Placement

GONE = "gone:"  # prefix of the device name of an attachment or port whose device has vanished


def observe(
    netlink: Netlink,
    data_path: DataPath | None,
    host: Host,
    memory: Memory,
    *,
    tunnels: Placement,
    attached: Sequence[PinnedLink],
    places: Sequence[Pins],
    digest: str,
) -> State:
    """Read back what we made. ``digest`` is preferred where several programs are pinned.

    ``attached`` are the attachments; their programs are pinned in ``places``, by this version and
    by those of other layouts.
    """
    resources: list[Resource] = []
    for path in memory.sysctls:
        value = sysctl.read(path)
        # A setting of a device that is gone has nothing to be restored: desired never has it.
        resources.append(Sysctl(path, value if value is not None else ""))
    if data_path is not None and data_path.is_complete:
        resources += _data_plane(data_path, digest)
        resources += _targets(data_path, host)
        resources += _ports(data_path, host)
        resources += [placed.entry for placed in tunnels.by_name.values()]
    resources += _attachments(attached, program_ids(places), host)
    pairs = host.tunnel_pairs
    ours = {pair.device.index: tunnel for tunnel, pair in pairs.items()}
    for tunnel, pair in pairs.items():
        payload: Payload = "ip" if pair.device.is_noarp else "ethernet"
        ready = pair.device.name == tunnel and is_ready(pair.device, pair.inner, payload)
        ipv6_mtu = read_ipv6_mtu(pair.device)
        resources.append(TunnelDevice(tunnel, pair.device.mtu, payload, ipv6_mtu, ready))
    for found in list_addresses(netlink):
        if found.is_ours and found.ifindex in ours:
            resources.append(TunnelAddress(ours[found.ifindex], found.address))
    for neighbour in host.neighbours:
        link_of = host.link_of(neighbour.ifindex)
        if neighbour.is_kept and link_of is not None:
            resources.append(NextHop(link_of.name, neighbour.address))
    for route in host.routes:
        if route.is_ours and route.ifindex in ours:
            device_name = ours[route.ifindex]
            resources.append(TunnelRoute(route.destination, device_name, route.gateway, route.mtu))
    return state(resources)


def add_current_sysctls(observed: State, desired: State) -> None:
    """Settings that are already as desired are observed too, without having been changed by us."""
    for resource in desired.values():
        if isinstance(resource, Sysctl) and resource.key not in observed:
            value = sysctl.read(resource.path)
            if value is not None:
                observed[resource.key] = Sysctl(resource.path, value)


def _data_plane(data_path: DataPath, digest: str) -> list[Resource]:
    found: list[Resource] = []
    digests = data_path.pinned_digests()
    # Maps without programs are a data plane, too: there is something to complete, or to remove.
    found.append(DataPlane(digest if digest in digests else next(iter(digests), "missing")))
    found.append(Policy(data_path.unknown_gre()))
    return found


def _targets(data_path: DataPath, host: Host) -> list[Resource]:
    links = (host.link_of(ifindex) for ifindex in data_path.targets())
    return [Target(link.name) for link in links if link is not None]


def _attachments(
    attached: Sequence[PinnedLink], programs: Mapping[int, tuple[Program, str]], host: Host
) -> list[Resource]:
    found: list[Resource] = []
    for link in attached:
        device = host.link_of(link.ifindex) if link.ifindex else None
        program, digest = programs.get(link.program_id, ("port", "unknown"))
        if device is None:
            found.append(Attachment(GONE + link.path.name, program, "", digest))
            continue
        found.append(Attachment(device.name, program, device.xdp_mode or "", digest))
    return found


def _ports(data_path: DataPath, host: Host) -> list[Resource]:
    found: list[Resource] = []
    for ifindex, device in data_path.devices().items():
        if device.role != abi.DeviceRole.PORT:
            continue
        link = host.link_of(ifindex)
        trunk = host.link_of(device.trunk) if device.trunk else None
        tags = decode_tags(device.tags)
        is_known = not device.trunk or (data_path.vlan(encode_vlan(device.trunk, tags)) == ifindex)
        found.append(
            Port(
                name=link.name if link else f"{GONE}{ifindex}",
                mac=abi.read_mac(device.mac),
                trunk=trunk.name if trunk else "",
                tags=tags,
                has_vlans=bool(device.has_vlans),
                is_bound=is_known and (trunk is not None) == bool(device.trunk),
            )
        )
    return found
