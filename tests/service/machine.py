"""A machine that systemd has booted: namespaces of their own on this kernel, systemd as process 1.

It sees this host's files, and what it changes is in memory. So a unit is tested as it is installed,
with everything that systemd and the kernel really do to confine it.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from netns_helpers import wait_until

ROOT = Path(__file__).resolve().parents[2]
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin"
SYSTEMD = Path("/usr/lib/systemd/systemd")

# $1: an empty directory; $2: the checkout; $3: its venv. Nothing of the host's own services is
# started, and no setting of the kernel is changed: its targets come without content.
BOOT = r"""
set -e
root=$1/root
mount --make-rprivate /
mount -t tmpfs tmpfs "$1"
mkdir "$1/upper" "$1/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" overlay "$root"
mount -t proc proc "$root/proc"
mount -t sysfs sysfs "$root/sys"
mount -t bpf bpf "$root/sys/fs/bpf"
mount -t cgroup2 cgroup2 "$root/sys/fs/cgroup"
for directory in run tmp dev var/lib/gre-xdp etc/gre-xdp; do
    mkdir -p "$root/$directory"
    mount -t tmpfs tmpfs "$root/$directory"
done
cp -a /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty "$root/dev/"
mkdir "$root/dev/pts" "$root/dev/shm"
mount -t devpts -o newinstance,ptmxmode=666 devpts "$root/dev/pts"
ln -s pts/ptmx "$root/dev/ptmx"
mkdir -p "$root/opt/gre-xdp" "$root/opt/venv" "$root/old"
mount --bind "$2" "$root/opt/gre-xdp"
mount --bind "$3" "$root/opt/venv"
# A link there would lead to the host's own.
rm -f "$root/usr/local/bin/gre-xdp"
cat >"$root/usr/local/bin/gre-xdp" <<'END'
#!/bin/sh
export PYTHONPATH=/opt/gre-xdp:/opt/gre-xdp/cli
exec /opt/venv/bin/python -P -m gre_xdp_cli.main "$@"
END
chmod 755 "$root/usr/local/bin/gre-xdp"
units=$root/usr/lib/systemd/system
rm -rf "$root"/etc/systemd/system/* "$units"/*.wants "$root"/usr/lib/systemd/system-generators
mkdir "$units/sysinit.target.wants"
ln -s ../systemd-journald.service "$units/sysinit.target.wants/"
cd "$root"
pivot_root . old
umount -l /old
exec env -i container=test PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin \
    /usr/lib/systemd/systemd --system --unit=multi-user.target --show-status=no
"""


class Machine:
    """A machine that runs."""

    def __init__(self, init: int) -> None:
        self._init = init  # systemd's process, as this host numbers it

    def call(self, command: list[str], text: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command in it."""
        return subprocess.run(
            [
                *(
                    "nsenter",
                    f"--target={self._init}",
                    "--mount",
                    "--net",
                    "--pid",
                    "--ipc",
                    "--uts",
                ),
                *("--cgroup", "--root", "--wd", "env", "-i", PATH, *command),
            ],
            input=text,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def run(self, command: str) -> str:
        """What a command says; it must succeed."""
        done = self.call(shlex.split(command))
        assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
        return done.stdout

    def script(self, text: str) -> None:
        """Run a shell script; each of its commands must succeed."""
        done = self.call(["sh", "-ex"], text)
        assert done.returncode == 0, done.stderr

    def write(self, path: str, text: str) -> None:
        done = self.call(["sh", "-c", f"mkdir -p {Path(path).parent}; cat >{path}"], text)
        assert done.returncode == 0, done.stderr

    def property(self, name: str, unit: str = "gre-xdp") -> str:
        """What systemd says of the unit."""
        return self.run(f"systemctl show --value --property={name} {unit}").strip()

    def journal(self, unit: str = "gre-xdp") -> str:
        return self.run(f"journalctl --no-pager --output=cat --unit={unit}")


@contextlib.contextmanager
def booted(directory: Path) -> Iterator[Machine]:
    """A machine; ``directory`` is empty, and will be again."""
    with _control_group() as group, (directory.parent / "console.log").open("w+") as console:
        process = subprocess.Popen(
            [
                *("sh", "-c", f'echo $$ >{group}/cgroup.procs; exec unshare "$@"', "sh"),
                *("--mount", "--net", "--ipc", "--uts", "--pid", "--cgroup", "--fork"),
                *("--kill-child", "bash", "-c", BOOT, "boot", directory, ROOT, sys.prefix),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
        try:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            assert wait_until(lambda: children.read_text() != ""), "unshare has no child"
            machine = Machine(int(children.read_text()))
            asked = ["systemctl", "is-system-running"]
            up = wait_until(lambda: machine.call(asked).stdout.strip() == "running", 20)
            console.seek(0)
            assert up, console.read() + machine.call(["systemctl", "--failed"]).stdout
            yield machine
        finally:
            process.kill()
            process.wait()


@contextlib.contextmanager
def _control_group() -> Iterator[Path]:
    """A control group of its own, the only thing of a machine that others see."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    hierarchy = next(fields[1] for fields in mounts if fields[2] == "cgroup2")
    group = Path(tempfile.mkdtemp(dir=hierarchy, prefix="gre-xdp-test-"))
    try:
        yield group
    finally:
        assert wait_until(lambda: _remove(group)), f"{group} is still in use"


def _remove(group: Path) -> bool:
    try:
        for name, _, _ in os.walk(group, topdown=False):
            Path(name).rmdir()
    except OSError:
        return False
    return True
