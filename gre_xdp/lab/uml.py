"""A second Linux kernel, with the drivers of a distribution, as a process: User-Mode Linux.

Commands reach it through a pair of FIFOs which it holds open itself. So it outlives the process
that started it, and any process that knows its directory can run commands in it.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import os
import secrets
import select
import shlex
import shutil
import signal
import subprocess
import termios
import time
import tty
from collections.abc import Iterator, Sequence
from pathlib import Path

from gre_xdp.errors import LabError

EXECUTABLE = "linux.uml"
BOOT_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 5.0
MEMORY_MB = 256
# UML's console never wakes up again (seen in 6.1) once its tty is throttled, at 4096 - 128 bytes.
MAX_REQUEST_BYTES = 3960
READY = b"ready"
# Register state that UML has no room for, by its flag in /proc/cpuinfo; what helps is built here.
LARGE_STATE_FLAG = "amx_tile"
XSTATE_SOURCE = Path(__file__).with_name("uml_xstate.c")
SHELL = "/mnt/shell"

# Answers every request line "ID SECONDS COMMAND" on the second console by one line "ID STATUS
# BASE64(OUTPUT)", with builtins where it can, as an exec costs 30 ms here. The braces make bash
# read all of it before a mount can hide the file; /tmp stays the host's: a checkout may be there.
INIT = r"""#!/bin/bash
{
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/mnt TMPDIR=/mnt
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
mount -t tmpfs tmpfs /mnt

# The kernel looks for its modules through this, in a directory tree that we can write.
mkdir -p /mnt/lib/modules
ln -s "/usr/lib/uml/modules/$(uname -r)" /mnt/lib/modules/
printf '#!/bin/sh\nexec /sbin/modprobe -d /mnt "$@"\n' >/mnt/modprobe
chmod +x /mnt/modprobe
echo /mnt/modprobe >/proc/sys/kernel/modprobe
/mnt/modprobe -a ipv6 ip_gre ip6_gre

# ROWS COLUMNS TERM: a fresh shell on the first console; its exit status is told on the third.
# Not by "&", for what a script starts so ignores Ctrl-C for ever.
cat >/mnt/shell <<'END'
#!/bin/sh
# The end of a session hangs up its terminal, also for who opens it too early.
if read -r old </mnt/shell.pid; then
    while kill -HUP "$old"; do sleep 0.1; done
fi 2>/dev/null
exec </dev/tty1 >/dev/tty1 2>&1
stty sane rows "$1" columns "$2"
TERM=$3 exec setsid -f -c sh -c '
echo $$ >/mnt/shell.pid
bash -i
status=$?
rm /mnt/shell.pid
echo $status >/dev/tty3'
END
chmod +x /mnt/shell

for setting in /proc/sys/net/ipv6/conf/*/accept_dad; do echo 0 >"$setting"; done
ip link set lo up
for device in $(ls /sys/class/net | grep '^vec'); do
    ip link set "$device" name "eth${device#vec}" up
done

stty raw -echo </dev/tty2
exec 3</dev/tty2 4>/dev/tty2
echo ready >&4
while read -r id seconds command <&3; do
    printf -v command %b "$command"
    : >/mnt/output
    timeout -k 1 "$seconds" sh -c "$command" </dev/null >>/mnt/output 2>&1 3<&- 4>&-
    printf '%s %s ' "$id" $? >&4
    base64 -w0 /mnt/output >&4
    echo >&4
done
}
"""


class UmlKernel:
    """A User-Mode Linux that has booted from the host's root, read-only; eth0, eth1… are its taps.

    One command runs at a time; callers, of any process, take turns. A tap stays in the namespace
    where it was made, whatever namespace UML is in. Setting eth0 down inside UML closes its
    tap for good.
    """

    def __init__(self, directory: Path) -> None:
        """The kernel that some process has started with this directory."""
        self.directory = directory

    @property
    def pid(self) -> int:
        """The process of the kernel; each process inside it has another one beside it."""
        return int((self.directory / "pid").read_text())

    @classmethod
    def start(cls, directory: Path, tap_fds: Sequence[int] = ()) -> UmlKernel:
        """Boots a kernel whose interfaces end in these file descriptors; returns when it answers.

        ``directory`` exists, is empty and the kernel's alone. Raises LabError.
        """
        executable = shutil.which(EXECUTABLE)
        if executable is None:
            raise LabError(
                f"{EXECUTABLE} is not installed", remedy="apt-get install user-mode-linux kmod"
            )
        init = directory / "init.sh"
        init.write_text(INIT)
        init.chmod(0o700)
        fifos = {
            name: _make_fifo(directory / name)
            for name in ("shell.in", "shell.out", "command.in", "command.out", "shell.end")
        }
        arguments = [
            f"mem={MEMORY_MB}M",
            *("root=/dev/root", "rootfstype=hostfs", "rootflags=/", "ro", "quiet"),
            f"init={init}",
            _identity(directory),
            "umid=kernel",
            *("con=null", "con0=null,fd:1"),
            f"con1=fd:{fifos['shell.in']},fd:{fifos['shell.out']}",
            f"con2=fd:{fifos['command.in']},fd:{fifos['command.out']}",
            f"con3=null,fd:{fifos['shell.end']}",
            # The fd transport has no vnet headers; vec=0 since a tap is no socket for recvmmsg.
            *(f"vec{i}:transport=fd,fd={fd},vec=0,gro=0" for i, fd in enumerate(tap_fds)),
        ]
        try:
            environment = dict(os.environ) | _preload(directory)
            with (directory / "console.log").open("wb") as console:
                process = subprocess.Popen(
                    [executable, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    pass_fds=[*fifos.values(), *tap_fds],
                    cwd="/",
                    env=environment,
                    start_new_session=True,
                )
        finally:
            for fd in fifos.values():
                os.close(fd)
        (directory / "pid").write_text(f"{process.pid}\n")
        kernel = cls(directory)
        try:
            kernel._wait_for_boot()
        except BaseException:
            # By Popen, as UML begins by executing itself anew and has no arguments for a moment.
            process.kill()
            kernel.stop()
            raise
        finally:
            # It is followed by its pid from here on, as from another process.
            process.returncode = 0
        return kernel

    def is_running(self) -> bool:
        """Whether the kernel's process lives."""
        try:
            return _belongs_to(self.directory, self.pid)
        except FileNotFoundError:
            return False

    def run(self, command: str, *, timeout: float = 10.0) -> tuple[int, str]:
        """Runs a shell command; returns its exit status, and stdout and stderr in one.

        ``timeout`` in seconds starts when it is this caller's turn; then the command is killed
        and TimeoutExpired raised. What it starts in the background goes on, and should have its
        output redirected. Raises LabError when the kernel does not answer, and ValueError for a
        command of more than about 3,900 bytes.
        """
        request_id = secrets.token_hex(4)
        escaped = command.replace("\\", r"\\").replace("\n", r"\n")
        line = f"{request_id} {timeout} {escaped}\n".encode()
        if len(line) > MAX_REQUEST_BYTES:
            raise ValueError(f"a command of {len(line)} bytes is too long for the console")
        self._require_running()
        with self._open("command.in", os.O_WRONLY) as request:
            fcntl.flock(request, fcntl.LOCK_EX)
            started = time.monotonic()
            with self._open("command.out", os.O_RDONLY) as reply:
                os.write(request, line)
                # An answer to somebody who has not waited for it may come first.
                for line in self._lines(reply, timeout + STOP_TIMEOUT_S):
                    if line.startswith(f"{request_id} ".encode()):
                        break
        _, status, *output = line.split()
        text = base64.b64decode(b"".join(output)).decode(errors="replace")
        if int(status) in (124, 137) and time.monotonic() - started >= timeout:
            raise subprocess.TimeoutExpired(command, timeout, text)
        return int(status), text

    def shell(self, stdin: int = 0, stdout: int = 1) -> int:
        """Connects two file descriptors to a bash on a terminal of its own, until it ends.

        Returns its exit status. There is one shell at a time: raises LabError if it is taken.
        """
        self._require_running()
        with (
            self._open("shell.in", os.O_WRONLY) as keys,
            self._open("shell.out", os.O_RDONLY) as screen,
            self._open("shell.end", os.O_RDONLY) as end,
        ):
            try:
                fcntl.flock(keys, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise LabError(
                    "the shell is in use by another process", remedy="end that one first"
                ) from error
            for left_over in (screen, end):
                _read_pending(left_over)
            size = os.get_terminal_size(stdin) if os.isatty(stdin) else os.terminal_size((80, 24))
            terminal = shlex.quote(os.environ.get("TERM", "dumb"))
            self.run(f"{SHELL} {size.lines} {size.columns} {terminal}")
            with _raw_terminal(stdin):
                return _relay(stdin, stdout, keys, screen, end)

    def stop(self) -> None:
        """Ends the kernel and everything in it; nothing to do when it is gone already.

        Nothing is lost by killing it: its root is read-only, the rest is memory.
        """
        deadline = time.monotonic() + STOP_TIMEOUT_S
        while processes := [pid for pid in _all_pids() if _belongs_to(self.directory, pid)]:
            if time.monotonic() > deadline:
                raise LabError(f"processes {processes} do not end", remedy="see what they wait for")
            for pid in processes:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        with contextlib.suppress(FileNotFoundError, ChildProcessError):
            os.waitpid(self.pid, 0)

    def console(self) -> str:
        """What the kernel and init have said."""
        return (self.directory / "console.log").read_text(errors="replace")

    def _wait_for_boot(self) -> None:
        with self._open("command.out", os.O_RDONLY) as reply:
            for line in self._lines(reply, BOOT_TIMEOUT_S):
                if line == READY:
                    return

    def _require_running(self) -> None:
        # Children that outlive a kernel hold its FIFOs open, and would have us wait for nobody.
        if not self.is_running():
            raise self._silent("is not running")

    @contextlib.contextmanager
    def _open(self, name: str, mode: int) -> Iterator[int]:
        try:
            # Non-blocking, or it waits for the other end of a kernel that is not there.
            fd = os.open(self.directory / name, mode | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise self._silent("is not running") from error
        try:
            yield fd
        finally:
            os.close(fd)

    def _lines(self, fd: int, timeout_s: float) -> Iterator[bytes]:
        """Lines from a FIFO, without their end; raises LabError after the time or at its end."""
        deadline = time.monotonic() + timeout_s
        pending = b""
        while select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            chunk = os.read(fd, 65536)
            if not chunk:
                raise self._silent("has ended")
            *lines, pending = (pending + chunk).split(b"\n")
            yield from lines
        raise self._silent(f"does not answer for {timeout_s:.0f} s")

    def _silent(self, what: str) -> LabError:
        with contextlib.suppress(OSError):
            what += "; its console says:\n" + self.console()[-4000:]
        return LabError(
            f"User-Mode Linux {what}",
            remedy="take the lab down and up again",
            where=str(self.directory / "console.log"),
        )


def _preload(directory: Path) -> dict[str, str]:
    """What the environment of UML needs on this processor; raises LabError without a compiler."""
    if LARGE_STATE_FLAG not in Path("/proc/cpuinfo").read_text().split():
        return {}
    library = directory / "xstate.so"
    try:
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(XSTATE_SOURCE)],
            check=True,
            capture_output=True,
            text=True,
        )
    except (OSError, subprocess.CalledProcessError) as error:
        raise LabError(
            f"User-Mode Linux needs {XSTATE_SOURCE.name} compiled on a processor with AMX: {error}",
            remedy="apt-get install gcc libc6-dev",
        ) from error
    return {"LD_PRELOAD": str(library)}


def _identity(directory: Path) -> str:
    """The argument by which a kernel's processes are known, and where it keeps its own files."""
    return f"uml_dir={directory}/"


def _belongs_to(directory: Path, pid: int) -> bool:
    """Whether this is a living process of the kernel, not a later one with the same number."""
    try:
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return _identity(directory).encode() in arguments


def _all_pids() -> Iterator[int]:
    return (int(name) for name in os.listdir("/proc") if name.isdigit())


def _make_fifo(path: Path) -> int:
    """Makes a FIFO, open at both ends: with UML holding it so, no visitor's leaving closes it."""
    os.mkfifo(path, 0o600)
    return os.open(path, os.O_RDWR | os.O_CLOEXEC)


def _write_all(fd: int, data: bytes) -> None:
    while data:
        select.select([], [fd], [])
        data = data[os.write(fd, data) :]


def _read_pending(fd: int) -> bytes:
    """Everything that can be read now; empty also at the end of file."""
    data = b""
    with contextlib.suppress(BlockingIOError):
        while chunk := os.read(fd, 65536):
            data += chunk
    return data


@contextlib.contextmanager
def _raw_terminal(fd: int) -> Iterator[None]:
    """Passes every key through, Ctrl-C too, if this is a terminal."""
    if not os.isatty(fd):
        yield
        return
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _relay(stdin: int, stdout: int, keys: int, screen: int, end: int) -> int:
    """Copies both ways until the shell tells its exit status."""
    sources = [stdin, screen, end]
    told = b""
    while not told.endswith(b"\n"):
        ready, _, _ = select.select(sources, [], [])
        if stdin in ready:
            typed = os.read(stdin, 4096)
            if not typed:
                sources.remove(stdin)
            _write_all(keys, typed or b"exit\n")
        if end in ready:
            # At its end of file the kernel has gone, and the shell with it.
            told += os.read(end, 64) or b"1\n"
        _write_all(stdout, _read_pending(screen))
    return int(told)
