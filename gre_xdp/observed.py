"""From the kernel back to the state that is there: what we made, as resources."""

from __future__ import annotations

from gre_xdp import abi, sysctl
from gre_xdp.datapath import DataPath
from gre_xdp.device_settings import is_ready, read_ipv6_mtu
from gre_xdp.encoding import (
    decode_source,
    decode_tags,
    decode_tunnel,
    encode_vlan,
    local_endpoint,
    pair_endpoint,
    receiving_endpoint,
)
from gre_xdp.host import Host
from gre_xdp.memory import Memory
from gre_xdp.netlink import Netlink
from gre_xdp.netlink.addresses import list_addresses
from gre_xdp.netlink.links import Link
from gre_xdp.netlink.routes import Network
from gre_xdp.resources import (
    Attachment,
    DataPlane,
    NextHop,
    Payload,
    Policy,
    Port,
    Resource,
    State,
    Sysctl,
    TunnelAddress,
    TunnelDevice,
    TunnelEntry,
    TunnelRoute,
    inner_name,
    state,
)

GONE = "gone:"  # prefix of the device name of an attachment or port whose device has vanished


def observe(
    netlink: Netlink, data_path: DataPath | None, host: Host, memory: Memory, *, digest: str
) -> State:
    """Read back what we made. ``digest`` is preferred where several programs are pinned."""
    resources: list[Resource] = []
    for path in memory.sysctls:
        value = sysctl.read(path)
        # A setting of a device that is gone has nothing to be restored: desired never has it.
        resources.append(Sysctl(path, value if value is not None else ""))
    if data_path is not None and data_path.is_complete:
        resources += _data_plane(data_path, digest)
        resources += _attachments(data_path, host)
        resources += _ports(data_path, host)
        resources += tunnel_entries(data_path, host.links).values()
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
            resources.append(
                TunnelRoute(route.destination, device_name, route.is_on_link, route.mtu)
            )
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
    if digests:
        found.append(DataPlane(digest if digest in digests else digests[0]))
    found.append(Policy(data_path.unknown_gre()))
    return found


def _attachments(data_path: DataPath, host: Host) -> list[Resource]:
    programs = data_path.program_ids()
    found: list[Resource] = []
    for link in data_path.links():
        device = host.link_of(link.ifindex) if link.ifindex else None
        program, digest = programs.get(link.program_id, ("port", "unknown"))
        if device is None:
            found.append(Attachment(GONE + link.path.name, program, "", digest))
            continue
        is_target = data_path.is_target(device.index)
        mode = device.xdp_mode or ""
        found.append(Attachment(device.name, program, mode, digest, is_target))
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


def _tunnels_of_devices(data_path: DataPath) -> dict[int, tuple[int | None, int | None]]:
    """Tunnels in use: index → interface indices of (device, inner end) that point to it."""
    found: dict[int, tuple[int | None, int | None]] = {}
    for ifindex, device in data_path.devices().items():
        outer, inner = found.get(device.tunnel, (None, None))
        if device.role == abi.DeviceRole.TUNNEL:
            found[device.tunnel] = (ifindex, inner)
        elif device.role == abi.DeviceRole.INNER:
            found[device.tunnel] = (outer, ifindex)
    return found


def _sources(data_path: DataPath) -> dict[int, frozenset[Network]]:
    """The allowed inner sources of tunnels, by their index."""
    found: dict[int, set[Network]] = {}
    for key in data_path.sources():
        tunnel_id, network = decode_source(key)
        found.setdefault(tunnel_id, set()).add(network)
    return {tunnel_id: frozenset(networks) for tunnel_id, networks in found.items()}


def tunnel_entries(data_path: DataPath, links: dict[str, Link]) -> dict[int, TunnelEntry]:
    """The tunnels that the data path knows, by their index there."""
    found = {}
    sources = _sources(data_path)
    for tunnel_id, ifindexes in _tunnels_of_devices(data_path).items():
        tunnel = data_path.tunnel(tunnel_id)
        if not tunnel.name:
            continue
        allowed = sources.get(tunnel_id, frozenset())
        entry = decode_tunnel(tunnel, allowed, is_bound=True)
        device, inner = links.get(entry.name), links.get(inner_name(entry.name))
        is_bound = (
            device is not None
            and inner is not None
            and ifindexes == (device.index, inner.index)
            and (tunnel.device_ifindex, tunnel.inner_ifindex) == (device.index, inner.index)
            and abi.read_mac(tunnel.device_mac) == device.mac
            and data_path.endpoint(receiving_endpoint(entry)) == tunnel_id
            and data_path.endpoint(pair_endpoint(entry)) is not None
            and data_path.endpoint(local_endpoint(entry)) is not None
        )
        found[tunnel_id] = entry if is_bound else decode_tunnel(tunnel, allowed, is_bound=False)
    return found
