"""Compile the C in ``bpf/`` to BPF instructions with BCC, in a short-lived child process.

This is the only file that imports ``bcc``. It runs as ``python -m gre_xdp.compiler`` because BCC
prints diagnostics on stdout, keeps more than 100 MiB after a compile and may abort the process on
constructs its LLVM cannot translate: none of that may happen to the caller.

The instructions refer to maps by index (``BPF_PSEUDO_MAP_IDX``, Linux 5.14), so that BCC creates
no map, compiling needs no privilege, and the loader decides which maps an index stands for.
"""

from __future__ import annotations

import base64
import contextlib
import importlib.util
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from gre_xdp import errors

# Entry programs: C function names, which are the names the kernel shows for them.
PROGRAMS = ("gre_xdp_port", "gre_xdp_inner")
MAIN_SOURCE = "gre_xdp.c"
COMPILE_TIMEOUT_S = 120

_UAPI_ROOT = Path("/usr/include")
_ARCH = {"x86_64": "x86", "aarch64": "arm64"}

# What BCC wants from a kernel source tree beside UAPI headers. XDP programs need nothing of it.
_SHIM_FILES = {
    # BCC brings its own bpf.h; a second one clashes with it.
    "include/uapi/linux/bpf.h": "",
    "include/linux/kconfig.h": "#define CONFIG_BPF_SYSCALL 1\n",
    "include/linux/log2.h": "",
    "include/linux/version.h": (
        "#define KERNEL_VERSION(a, b, c) (((a) << 16) + ((b) << 8) + (c))\n"
        "#define LINUX_VERSION_CODE KERNEL_VERSION(6, 1, 0)\n"
    ),
    "include/linux/types.h": (
        "#pragma once\n"
        "#include <uapi/linux/types.h>\n"
        "typedef __u8 u8; typedef __u16 u16; typedef __u32 u32; typedef __u64 u64;\n"
        "typedef __s8 s8; typedef __s16 s16; typedef __s32 s32; typedef __s64 s64;\n"
        "typedef unsigned long size_t; typedef unsigned long uintptr_t; typedef _Bool bool;\n"
    ),
}


@dataclass(frozen=True, slots=True)
class Bytecode:
    """Instructions of the entry programs, by program name, and what compiled them."""

    programs: dict[str, bytes]
    bcc_version: str


def source_dir() -> Path:
    """The directory of the C files: beside the package in a checkout, inside it when installed."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "bpf", package.parent / "bpf"):
        if (candidate / MAIN_SOURCE).is_file():
            return candidate
    raise errors.PackageError(
        f"the C sources of the data plane ({MAIN_SOURCE}) are not installed with the package",
        remedy="reinstall gre-xdp",
        where=str(package),
    )


def compile_programs(extra_flags: Sequence[str] = (), source: str | None = None) -> Bytecode:
    """Compile the entry programs in a child process.

    ``source`` replaces the main C file (tests use this to assert facts about the headers).
    Raises ``PackageError`` when BCC or the UAPI headers are missing, ``KernelError`` with the
    compiler's own words when the C does not compile.
    """
    request = json.dumps({"flags": list(extra_flags), "source": source})
    try:
        child = subprocess.run(
            # -P: whatever lies in the current directory is not to be run by root.
            [sys.executable, "-P", "-m", "gre_xdp.compiler"],
            input=request,
            capture_output=True,
            text=True,
            timeout=COMPILE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise errors.KernelError(
            f"BCC did not compile the data plane within {COMPILE_TIMEOUT_S} s",
            remedy="try again when the machine is less busy",
        ) from error
    if child.returncode != 0:
        _raise_for(child)
    answer = json.loads(child.stdout)
    return Bytecode(
        programs={name: base64.b64decode(code) for name, code in answer["programs"].items()},
        bcc_version=answer["bcc_version"],
    )


@cache
def bcc_version() -> str | None:
    """The version of the BCC that would be used, without importing it (it is large)."""
    spec = importlib.util.find_spec("bcc")
    if spec is None or spec.origin is None:
        return None
    try:
        text = Path(spec.origin).with_name("version.py").read_text()
    except OSError:
        return None
    found = re.search(r"""__version__\s*=\s*['"]([^'"]+)""", text)
    return found[1] if found else None


_EXIT_NO_BCC = 3
_EXIT_NO_HEADERS = 4


def _raise_for(child: subprocess.CompletedProcess[str]) -> None:
    if child.returncode == _EXIT_NO_BCC:
        raise errors.PackageError(
            f"the Python package bcc cannot be imported by {sys.executable}"
            f" ({child.stderr.strip().splitlines()[-1]})",
            remedy="install python3-bpfcc (Debian, Ubuntu) or python3-bcc (Fedora) and run"
            " gre-xdp with the distribution's interpreter, for instance in a venv made by"
            " /usr/bin/python3 -m venv --system-site-packages; PyPI's bcc is another program",
        )
    if child.returncode == _EXIT_NO_HEADERS:
        raise errors.PackageError(
            "the kernel's user-space headers are not installed (linux/ip.h not found)",
            remedy="install linux-libc-dev (Debian, Ubuntu) or kernel-headers (Fedora)",
        )
    words = "\n".join((child.stderr or child.stdout).strip().splitlines()[-20:])
    raise errors.KernelError(
        f"BCC could not compile the data plane: {words}",
        remedy="gre-xdp needs BCC 0.26 or newer; report this output with your BCC version",
    )


@contextlib.contextmanager
def _kernel_source_shim() -> Iterator[Path]:
    """A directory that satisfies BCC's search for kernel sources from UAPI headers alone."""
    arch = _ARCH.get(platform.machine(), platform.machine())
    multiarch = _UAPI_ROOT / f"{platform.machine()}-linux-gnu" / "asm"
    asm = multiarch if multiarch.is_dir() else _UAPI_ROOT / "asm"
    with tempfile.TemporaryDirectory(prefix="gre-xdp-cc-") as name:
        root = Path(name)
        uapi = root / "include" / "uapi"
        (uapi / "linux").mkdir(parents=True)
        for header in (_UAPI_ROOT / "linux").iterdir():
            if header.name not in ("bpf.h", "version.h"):
                (uapi / "linux" / header.name).symlink_to(header)
        (uapi / "asm-generic").symlink_to(_UAPI_ROOT / "asm-generic")
        arch_uapi = root / "arch" / arch / "include" / "uapi"
        arch_uapi.mkdir(parents=True)
        (arch_uapi / "asm").symlink_to(asm)
        for path, text in _SHIM_FILES.items():
            file = root / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        page = root / "arch" / arch / "include" / "asm" / "page.h"
        page.parent.mkdir(parents=True)
        page.write_text("#define PAGE_SHIFT 12\n#define PAGE_SIZE (1UL << PAGE_SHIFT)\n")
        yield root


def _child_main() -> int:
    # BCC and LLVM write to descriptor 1; keep the real stdout for the answer alone.
    answer_fd = os.dup(1)
    os.dup2(2, 1)
    request = json.load(sys.stdin)
    try:
        import bcc  # noqa: PLC0415 - only here: the distribution's package, large, maybe missing
    except (ImportError, OSError) as error:
        sys.stderr.write(f"{error!r}\n")
        return _EXIT_NO_BCC
    if not hasattr(bcc, "BPF"):
        sys.stderr.write(f"{bcc.__file__} is not the BPF Compiler Collection\n")
        return _EXIT_NO_BCC
    if not (_UAPI_ROOT / "linux" / "ip.h").is_file():
        return _EXIT_NO_HEADERS
    sources = source_dir()
    text = request["source"] or (sources / MAIN_SOURCE).read_text()
    flags = [f"-I{sources}", "-Wall", "-Wno-unused-function", *request["flags"]]
    with _kernel_source_shim() as shim:
        os.environ["BCC_KERNEL_SOURCE"] = str(shim)
        try:
            module = bcc.BPF(text=text.encode(), cflags=flags)
        except Exception as error:  # noqa: BLE001 - BCC raises bare Exception for a failed compile
            sys.stderr.write(f"{error}\n")
            return 1
        names = [name for name in PROGRAMS if request["source"] is None]
        code = {name: module.dump_func(name.encode()) for name in names}
    answer = {
        "programs": {name: base64.b64encode(insns).decode() for name, insns in code.items()},
        "bcc_version": str(bcc.__version__),
    }
    os.write(answer_fd, json.dumps(answer).encode())
    return 0


if __name__ == "__main__":
    sys.exit(_child_main())
