"""What may be wrong with an interface: driver, features, queues, the other end."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from gre_xdp import preflight
from gre_xdp.doctor import facts as reading
from gre_xdp.doctor.facts import Device, Facts
from gre_xdp.doctor.finding import (
    WHY_REFUSED,
    Command,
    Finding,
    here,
    mend,
    refusal,
    refused,
    setting,
)
from gre_xdp.host import Host
from gre_xdp.model import Config, Interface
from gre_xdp.netlink import drivers
from gre_xdp.netlink.links import Link

# A frame with room for XDP around it fills one page up to about here, whatever the driver.
_ONE_PAGE_MTU = 3500
_WHY_MERGING = "many drivers refuse native XDP then"


def fine(subject: str, facts: Facts, interface: Interface) -> Finding:
    """What an interface without a fault is said to be."""
    device = facts.devices.get(interface.name, Device())
    words = [f"driver {device.driver}" if device.driver else "driver unknown"]
    words += [] if device.xdp_features is None else [f"{interface.mode} XDP"]
    if device.receive_queues is not None and device.receive_queues[0]:
        words.append(f"receive queues: {device.receive_queues[0]}")
    return Finding(subject, "ok", ", ".join(words))


def interface_findings(
    facts: Facts, host: Host, config: Config, interface: Interface
) -> Iterator[Finding]:
    """Everything about one interface."""
    subject = f"interface {interface.name}"
    error = refused(lambda: preflight.refuse_interface(config, interface, host))
    if interface.name not in host.links:
        assert error is not None
        yield refusal(subject, error)
        return
    trunk, _ = host.trunk_of(interface.name)
    if error is not None:
        fix = ("ethtool", "-K", trunk.name, "rxvlan", "off")
        if error.remedy == shlex.join(fix):
            yield mend(subject, "error", error.message, WHY_REFUSED, here(facts, *fix))
        else:
            yield refusal(subject, error)
    device = facts.devices.get(trunk.name, Device())
    for link in {
        host.links[interface.name].name: host.links[interface.name],
        trunk.name: trunk,
    }.values():
        if not link.is_up:
            yield Finding(
                subject,
                "warning",
                f"{link.name} is down",
                "nothing comes in or goes out by it",
                shlex.join(here(facts, "ip", "link", "set", "dev", link.name, "up")),
            )
    yield from _mode(subject, facts, interface, trunk, device)
    yield from _queues(subject, facts, trunk, device)
    yield from _veth(subject, facts, trunk, device)
    yield from _tc(subject, facts, trunk, device)
    yield from _settings(subject, facts, host, config, interface)


def _mode(
    subject: str, facts: Facts, interface: Interface, trunk: Link, device: Device
) -> Iterator[Finding]:
    """Can XDP be attached as the configuration asks? What is attached already, could be."""
    can = device.xdp_features
    needed = drivers.XDP_BASIC | drivers.XDP_REDIRECT
    has_native = can is not None and can & needed == needed
    if interface.mode == "skb":
        if has_native:
            yield Finding(
                subject,
                "note",
                f'mode = "skb", and the driver of {trunk.name} can do native XDP',
                "skb mode costs several times as much for each packet",
                f'set mode = "native" for interface "{interface.name}"',
            )
        return
    if trunk.xdp_mode == "native":
        # Some drivers can be sent to only while they have a program: asked of no others.
        if can is not None and trunk.kind != "veth" and not can & drivers.XDP_XMIT:
            yield Finding(
                subject,
                "error",
                f"the driver of {trunk.name} ({device.driver or trunk.kind or 'unknown'}) does not"
                " send what XDP redirects to it",
                "nothing that XDP forwards leaves by it",
                "update the driver, or use another NIC",
            )
        return
    if can is not None and not has_native:
        yield Finding(
            subject,
            "error",
            f"the driver of {trunk.name} ({device.driver or trunk.kind or 'unknown'}) has no native"
            " XDP",
            WHY_REFUSED,
            f'set mode = "skb" for interface "{interface.name}" (slower)',
        )
        return
    if trunk.mtu > _ONE_PAGE_MTU and can is not None and not can & drivers.XDP_FRAGS:
        yield Finding(
            subject,
            "error",
            f"the MTU of {trunk.name} is {trunk.mtu}, and its driver takes XDP frames of one page",
            WHY_REFUSED,
            shlex.join(here(facts, "ip", "link", "set", trunk.name, "mtu", str(_ONE_PAGE_MTU))),
        )
    for feature, word in ((reading.LRO, "lro"), (reading.GRO_HW, "rx-gro-hw")):
        if device.features.get(feature):
            yield from _merging(subject, facts, interface, device, trunk.name, feature, word)


def _merging(
    subject: str,
    facts: Facts,
    interface: Interface,
    device: Device,
    name: str,
    feature: str,
    word: str,
) -> Iterator[Finding]:
    """Packets that the NIC merges do not fit XDP; each driver deals with it in its own way."""
    is_virtio = device.driver == "virtio_net"
    if feature in device.fixed:
        yield Finding(
            subject,
            "error" if is_virtio else "warning",
            f"{name} merges packets in hardware for good ({word} on, fixed)",
            "virtio_net refuses native XDP then" if is_virtio else _WHY_MERGING,
            ("have the hypervisor offer ctrl_guest_offloads, or " if is_virtio else "")
            + f'set mode = "skb" for interface "{interface.name}" (slower)',
        )
    # virtio_net (virtnet_xdp_set) switches it off by itself for as long as XDP runs.
    elif not is_virtio:
        yield mend(
            subject,
            "warning",
            f"{name} merges packets in hardware ({word} on)",
            _WHY_MERGING,
            here(facts, "ethtool", "-K", name, word, "off"),
        )


def _queues(subject: str, facts: Facts, trunk: Link, device: Device) -> Iterator[Finding]:
    if device.receive_queues is None or trunk.kind == "veth" or facts.machine.cpus == 1:
        return
    now, most = device.receive_queues
    if now == 1 and most > 1:
        wanted = min(most, facts.machine.cpus)
        yield Finding(
            subject,
            "note",
            f"{trunk.name} receives by one queue of {most}",
            "one CPU does all the work for it",
            shlex.join(here(facts, "ethtool", "-L", trunk.name, "combined", str(wanted))),
        )


def _veth(subject: str, facts: Facts, trunk: Link, device: Device) -> Iterator[Finding]:
    if trunk.kind != "veth":
        return
    peer = device.peer
    if device.xdp_features is not None:
        takes = bool(device.xdp_features & drivers.XDP_XMIT)
    else:
        takes = peer is None or peer.has_napi
    name = f"its other end {peer.name}" if peer else "its other end"

    def at_peer(*settings: str) -> tuple[Command, ...]:
        if peer is None:
            return ()
        command = ("ethtool", "-K", peer.name, *settings)
        where = peer.namespace
        return (("nsenter", f"--net={where}", *command) if where else here(facts, *command),)

    if not takes:
        why = "what XDP redirects into this veth is lost"
        finding = f"{name} has no NAPI"
        if peer:
            yield mend(subject, "error", finding, why, *at_peer("gro", "on"))
        else:
            yield Finding(subject, "error", finding, why, "ethtool -K PEER gro on, at that end")
    if peer is not None and peer.has_tx_checksum:
        yield mend(
            subject,
            "warning",
            f"{name} leaves checksums to hardware that is not there",
            "TCP and UDP that is sent there goes through tunnels with wrong checksums",
            *at_peer("tx", "off"),
        )


def _tc(subject: str, facts: Facts, trunk: Link, device: Device) -> Iterator[Finding]:
    if device.traffic.filters:
        yield Finding(
            subject,
            "warning",
            f"tc has filters on {trunk.name}",
            "packets that XDP forwards do not meet them",
            shlex.join(here(facts, "tc", "filter", "show", "dev", trunk.name, "ingress")),
        )
    if device.traffic.shaper is not None:
        yield Finding(
            subject,
            "warning",
            f"{trunk.name} sends by the queueing discipline {device.traffic.shaper}",
            "packets that XDP forwards do not pass it, so it does not shape them",
            shlex.join(here(facts, "tc", "qdisc", "show", "dev", trunk.name)),
        )


def _settings(
    subject: str, facts: Facts, host: Host, config: Config, interface: Interface
) -> Iterator[Finding]:
    name = interface.name
    device = facts.devices.get(name, Device())
    is_running = host.trunk_of(name)[0].index in host.attached
    if is_running and not device.is_forwarding:
        yield mend(
            subject,
            "error",
            f"somebody has switched IPv4 forwarding off on {name}",
            "nothing that comes in by it is forwarded",
            setting(facts, f"ipv4/conf/{name}/forwarding", 1),
        )
    has_default = any(
        route.destination.version == 6 and not route.destination.prefixlen for route in host.routes
    )
    ignores = host.ipv6_forwarding.get(name) == "1" and host.accept_ra.get(name) == "1"
    if ignores and not has_default and any(each.local.version == 6 for each in config.tunnels):
        yield mend(
            subject,
            "warning",
            f"{name} forwards IPv6, so it ignores router advertisements, and there is no IPv6"
            " default route",
            "a tunnel over IPv6 may need the route that they give",
            setting(facts, f"ipv6/conf/{name}/accept_ra", 2),
        )
