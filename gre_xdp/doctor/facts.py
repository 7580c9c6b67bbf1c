"""What ``doctor`` looks at: the machine, the host, and the devices and remotes of a configuration.

Reads, changes nothing, and needs no privilege for what anybody may see: what could not be looked at
is absent, and says so.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypeVar

from gre_xdp import abi, bpf, compiler, errors, path_mtu, pins, sysctl
from gre_xdp.datapath import DataPath
from gre_xdp.errors import GreXdpError
from gre_xdp.host import Host, read_host
from gre_xdp.memory import Memory
from gre_xdp.model import Config
from gre_xdp.netlink import Netlink, NetlinkError, bypassed, drivers, namespaces, offloads, veths
from gre_xdp.netlink.bypassed import Chain, Traffic
from gre_xdp.netlink.links import Link
from gre_xdp.netlink.routes import Address
from gre_xdp.netlink.veths import Peer

LRO = "rx-lro"
GRO_HW = "rx-gro-hw"

_CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_BPF": 39}
_CAP_SYS_ADMIN = 21  # before Linux 5.8 it meant CAP_BPF, and still does
_BTF = Path("/sys/kernel/btf/vmlinux")
_PROBES_AT_ONCE = 16
# Compiles in a moment, and needs all that the data plane's compile needs.
_EMPTY_SOURCE = "int gre_xdp_nothing(void *ctx) { return 0; }"

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Machine:
    """The kernel, the packages and this process's rights; a problem is None where there is none."""

    release: str
    options: Mapping[str, str] | None  # CONFIG_… → value; None: the kernel does not publish them
    has_btf: bool
    jit: str | None
    cpus: int
    is_root: bool
    missing_capabilities: tuple[str, ...]
    has_bpffs: bool
    pins_problem: GreXdpError | None
    libbpf_problem: GreXdpError | None
    bcc: str | None
    build_problem: GreXdpError | None
    built: str  # how far it was tried: "", "compile", "load"


@dataclass(frozen=True, slots=True)
class Device:
    """What ``Host`` does not say about a device where XDP is or will be attached."""

    driver: str | None = None
    xdp_features: int | None = None
    features: Mapping[str, bool] = field(default_factory=dict)
    fixed: frozenset[str] = frozenset()  # features that are on for good
    receive_queues: tuple[int, int] | None = None  # now, and at most
    traffic: Traffic = field(default_factory=Traffic)
    peer: Peer | None = None
    is_forwarding: bool = True


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything that ``doctor`` judges."""

    machine: Machine
    netns: str | None  # the namespace's name, if it was asked for by one
    host: Host | None
    host_problem: GreXdpError | None
    devices: Mapping[str, Device] = field(default_factory=dict)
    chains: tuple[Chain, ...] = ()
    neighbour_limits: Mapping[int, int] = field(default_factory=dict)  # by IP version
    rp_filter: Mapping[str, int] = field(default_factory=dict)  # in force, by device
    learned: Mapping[tuple[str, str], int] = field(default_factory=dict)  # path MTUs, by addresses
    measured: Mapping[Address, int | GreXdpError] = field(default_factory=dict)


def read(
    config: Config | None, *, netns: str | None = None, build: bool = True, probe: bool = False
) -> Facts:
    """Read everything about the current network namespace.

    ``build``: compile and (as root) load the programs; ``probe``: measure the paths to remotes.
    """
    machine = _machine(build=build)
    is_privileged = machine.is_root and not machine.missing_capabilities
    has_pins = is_privileged and machine.pins_problem is None and machine.libbpf_problem is None
    try:
        host = _host(config, is_privileged=is_privileged, has_pins=has_pins)
    except (GreXdpError, NetlinkError, OSError) as error:
        return Facts(machine, netns, None, _as_error(error))
    names = [interface.name for interface in config.interfaces] if config else []
    trunks = {host.trunk_of(name)[0].name for name in names if name in host.links}
    looked_at = sorted(trunks.union(name for name in names if name in host.links))
    with Netlink() as netlink:
        devices = {
            name: _device(netlink, host.links[name], is_privileged=is_privileged)
            for name in looked_at
        }
    return Facts(
        machine=machine,
        netns=netns,
        host=host,
        host_problem=None,
        devices=devices,
        chains=tuple(_or(list, bypassed.chains)) if is_privileged else (),
        neighbour_limits=_neighbour_limits(),
        rp_filter=_rp_filter([*host.links, "default"]),
        learned=_or(dict, _learned) if is_privileged else {},
        measured=_measure(config) if probe and config else {},
    )


def _or(nothing: Callable[[], _T], read_it: Callable[[], _T]) -> _T:
    """What can be read, or nothing where the kernel has no such thing."""
    try:
        return read_it()
    except (NetlinkError, OSError):
        return nothing()


def _as_error(error: Exception) -> GreXdpError:
    if isinstance(error, GreXdpError):
        return error
    return errors.KernelError(
        f"reading the network failed: {error}",
        remedy="try again; if it stays, report it with your kernel version (uname -r)",
    )


# --- the machine ----------------------------------------------------------------------------------


def _machine(*, build: bool) -> Machine:
    missing = tuple(_missing_capabilities())
    is_root = os.geteuid() == 0
    can_load = is_root and not missing
    libbpf_problem = _problem_of(bpf.possible_cpus)
    return Machine(
        release=platform.release(),
        options=_kernel_options(),
        has_btf=_BTF.exists(),
        jit=sysctl.read("core/bpf_jit_enable"),
        cpus=os.cpu_count() or 1,
        is_root=is_root,
        missing_capabilities=missing,
        has_bpffs=pins.is_bpffs_mounted(),
        pins_problem=_problem_of(_check_pins) if can_load and not libbpf_problem else None,
        libbpf_problem=libbpf_problem,
        bcc=compiler.bcc_version(),
        build_problem=_problem_of(
            lambda: _build(is_whole=build, can_load=can_load and libbpf_problem is None)
        ),
        built="" if not build else "load" if can_load else "compile",
    )


def _problem_of(action: Callable[[], object]) -> GreXdpError | None:
    try:
        action()
    except GreXdpError as error:
        return error
    except OSError as error:
        return errors.KernelError(
            f"the kernel refuses: {error}", remedy="see dmesg for the kernel's own words"
        )
    return None


def _check_pins() -> None:
    pins.require_shared_mounts()
    _attached()


def _build(*, is_whole: bool, can_load: bool) -> None:
    """Compile, and load without attaching; if not the whole, what shows that BCC works."""
    if not is_whole:
        compiler.compile_programs(source=_EMPTY_SOURCE)
        return
    bytecode = compiler.compile_programs()
    if not can_load:
        return
    with contextlib.ExitStack() as stack:
        maps = [
            stack.enter_context(bpf.owned(bpf.map_create(abi.MAPS[index])))
            for index in abi.MapIndex
        ]
        for name, instructions in bytecode.programs.items():
            stack.enter_context(bpf.owned(bpf.prog_load(name, instructions, maps)))


def _missing_capabilities() -> Iterator[str]:
    """Those that this process lacks for ``apply``."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            for name, number in _CAPABILITIES.items():
                enough = (number, _CAP_SYS_ADMIN) if name == "CAP_BPF" else (number,)
                if not any(effective >> bit & 1 for bit in enough):
                    yield name


def _kernel_options() -> dict[str, str] | None:
    for path in (Path("/proc/config.gz"), Path(f"/boot/config-{platform.release()}")):
        try:
            content = path.read_bytes()
        except OSError:
            continue
        return parse_options(
            (gzip.decompress(content) if path.suffix == ".gz" else content).decode()
        )
    return None


def parse_options(text: str) -> dict[str, str]:
    """``CONFIG_VETH=m`` and so on; an option that is off is absent."""
    lines = (line.partition("=") for line in text.splitlines() if line.startswith("CONFIG_"))
    return {name: value.strip('"') for name, _, value in lines}


# --- the host -------------------------------------------------------------------------------------


def _host(config: Config | None, *, is_privileged: bool, has_pins: bool) -> Host:
    tunnels = config.tunnels if config else ()
    ends = [(tunnel.local, tunnel.remote) for tunnel in tunnels]
    attached = _attached() if has_pins else frozenset()
    with Netlink() as netlink:
        host = read_host(
            netlink,
            ends,
            attached,
            destinations=[route for tunnel in tunnels for route in tunnel.routes],
            with_firewall=is_privileged,
        )
    # Without the pins it cannot be told whose the programs are.
    return host if has_pins else replace(host, xdp_owners={})


def _attached() -> frozenset[int]:
    """The indices of devices where our programs run."""
    data_path = DataPath.open_existing(pins.Pins.of_namespace(namespaces.cookie()))
    if data_path is None:
        return frozenset()
    with contextlib.closing(data_path):
        return frozenset(link.ifindex for link in data_path.links())


def _device(netlink: Netlink, link: Link, *, is_privileged: bool) -> Device:
    names = (LRO, GRO_HW, offloads.GRO, offloads.TX_CHECKSUM)
    peer = None
    if link.kind == "veth" and is_privileged:
        peer = veths.find_peer(netlink, link)
    return Device(
        driver=drivers.driver(link.name),
        xdp_features=drivers.xdp_features(link.index),
        features=drivers.features(link.name, names),
        fixed=drivers.fixed_features(link.name, names),
        receive_queues=drivers.receive_queues(link.name),
        traffic=_or(Traffic, lambda: bypassed.traffic(netlink, link.index)),
        peer=peer,
        is_forwarding=sysctl.read(f"ipv4/conf/{link.name}/forwarding") != "0",
    )


def _neighbour_limits() -> dict[int, int]:
    """At how many entries the neighbour tables are full; only the initial namespace tells."""
    read_them = {v: sysctl.read(f"ipv{v}/neigh/default/gc_thresh3") for v in (4, 6)}
    return {version: int(value) for version, value in read_them.items() if value}


def _rp_filter(devices: list[str]) -> dict[str, int]:
    """The reverse-path check in force on each device: the stricter of its own and that of all."""
    everywhere = int(sysctl.read("ipv4/conf/all/rp_filter") or 0)
    return {
        name: max(everywhere, int(sysctl.read(f"ipv4/conf/{name}/rp_filter") or 0))
        for name in devices
    }


def _learned() -> dict[tuple[str, str], int]:
    memory = Memory.of_namespace(namespaces.cookie())
    return {ends: mtu for ends, (mtu, _) in memory.path_mtus.items()}


def _measure(config: Config) -> dict[Address, int | GreXdpError]:
    remotes = list({tunnel.remote: None for tunnel in config.tunnels})

    def measure(remote: Address) -> int | GreXdpError:
        try:
            return path_mtu.measure(remote)
        except GreXdpError as error:
            return error

    with ThreadPoolExecutor(max_workers=_PROBES_AT_ONCE) as threads:
        return dict(zip(remotes, threads.map(measure, remotes), strict=True))
