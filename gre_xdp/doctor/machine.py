"""What the kernel, the packages and our rights allow."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from gre_xdp import errors
from gre_xdp.doctor.facts import Facts
from gre_xdp.doctor.finding import (
    Finding,
    gre_xdp_command,
    mend,
    refusal,
)

_OLDEST_KERNEL = (6, 1)
_OLDEST_BCC = (0, 26)
_NEEDED_OPTIONS = ("CONFIG_BPF", "CONFIG_BPF_SYSCALL", "CONFIG_INET", "CONFIG_VETH")


def kernel(facts: Facts) -> Iterator[Finding]:
    """The kernel: its version, options and JIT."""
    machine = facts.machine
    numbers = re.match(r"(\d+)\.(\d+)", machine.release)
    if numbers and tuple(map(int, numbers.groups())) < _OLDEST_KERNEL:
        yield Finding(
            "kernel",
            "error",
            f"Linux {machine.release} is older than 6.1",
            "what the programs and links ask of the kernel came with 5.14 to 6.1",
            "install Linux 6.1 or newer and boot it",
        )
    else:
        yield Finding("kernel", "ok", f"Linux {machine.release}")
    options = machine.options
    if options is None:
        yield Finding("kernel", "ok", "its build options are not published, so not looked at")
    else:
        yield from _options(options.get)
    if machine.jit == "0":
        yield mend(
            "kernel",
            "warning",
            "the BPF JIT is switched off",
            "programs are interpreted, which takes several times as long for each packet",
            # Of the initial namespace, and for the whole machine.
            ("sysctl", "-w", "net.core.bpf_jit_enable=1"),
        )
    elif machine.jit is not None:
        yield Finding("kernel", "ok", "the BPF JIT is on")
    if machine.has_btf:
        yield Finding("kernel", "ok", "it describes its types (BTF)")
    else:
        yield Finding("kernel", "ok", "it has no BTF; gre-xdp needs none")


def _options(value: Callable[[str], str | None]) -> Iterator[Finding]:
    missing = [name for name in _NEEDED_OPTIONS if value(name) not in ("y", "m")]
    for name in missing:
        yield Finding(
            "kernel",
            "error",
            f"it was built without {name}",
            "the data plane needs it",
            f"install a kernel that has {name}, as those of the distributions do",
        )
    if not missing:
        yield Finding("kernel", "ok", "it was built with all that is needed")
    if value("CONFIG_BPF_JIT") != "y":
        yield Finding(
            "kernel",
            "warning",
            "it was built without CONFIG_BPF_JIT",
            "programs are interpreted, which takes several times as long for each packet",
            "install a kernel that has CONFIG_BPF_JIT",
        )
    if value("CONFIG_IPV6") not in ("y", "m"):
        yield Finding(
            "kernel",
            "note",
            "it was built without IPv6",
            "tunnels carry IPv4 only, over IPv4 only",
            "install a kernel that has CONFIG_IPV6, if you need it",
        )


def rights(facts: Facts) -> Iterator[Finding]:
    """What this user may do."""
    machine = facts.machine
    if not machine.is_root:
        yield Finding(
            "privileges",
            "note",
            "an ordinary user is looking",
            "not looked at: the firewall, pins, whose XDP programs run, other ends of veths, and"
            " whether the kernel takes the programs",
            f"sudo {gre_xdp_command(facts, 'doctor')}",
        )
    elif machine.missing_capabilities:
        names = ", ".join(machine.missing_capabilities)
        yield Finding(
            "privileges",
            "error",
            f"root lacks {names} here, as in a container",
            "apply needs them to load programs and to change the network",
            f"run the container with {names}, or run gre-xdp on the host",
        )
    else:
        yield Finding("privileges", "ok", "root, with all capabilities that are needed")


def packages(facts: Facts) -> Iterator[Finding]:
    """Libraries, BCC, headers, and whether the programs load."""
    machine = facts.machine
    why = "apply compiles the programs here, and needs it"
    if machine.libbpf_problem is not None:
        yield refusal("packages", machine.libbpf_problem, why)
    if machine.bcc is not None and _version(machine.bcc) < _OLDEST_BCC:
        yield Finding(
            "packages",
            "error",
            f"BCC {machine.bcc} is older than 0.26",
            "it does not compile the programs",
            "install BCC 0.26 or newer (Debian 12, Ubuntu 24.04: python3-bpfcc)",
        )
    if isinstance(machine.build_problem, errors.PackageError):
        yield refusal("packages", machine.build_problem, why)
        return
    if machine.build_problem is not None:
        yield refusal("programs", machine.build_problem, "apply does the same, and fails")
        return
    yield Finding("packages", "ok", f"BCC {machine.bcc or '(of unknown version)'} compiles")
    words = {"compile": "they compile", "load": "they compile, and this kernel takes them"}
    if machine.built:
        yield Finding("programs", "ok", words[machine.built])


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:2])


def pins(facts: Facts) -> Iterator[Finding]:
    """Whether programs and maps can be pinned."""
    if facts.machine.pins_problem is not None:
        yield refusal("pins", facts.machine.pins_problem)
    elif facts.machine.has_bpffs:
        yield Finding("pins", "ok", "bpffs is mounted")
    else:
        # Nothing to do, so nothing to see.
        yield Finding("pins", "ok", "bpffs is not mounted; apply mounts it")
