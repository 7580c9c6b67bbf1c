"""From whatever went wrong to one error for the user and an exit code: never a traceback."""

from __future__ import annotations

import errno
import os
import sys

import click

from gre_xdp.errors import GreXdpError, HostError, PackageError, PrivilegeError

USAGE_EXIT = 2
INTERRUPTED_EXIT = 130  # 128 + SIGINT, as shells have it
BROKEN_PIPE_EXIT = 1  # as click has it for the pipes that it sees break


class UsageError(GreXdpError):
    """The command line is wrong."""

    code = "usage"


class InternalError(GreXdpError):
    """A mistake in gre-xdp itself."""

    code = "internal"


def explain(problem: BaseException) -> GreXdpError:
    """The error that the user reads, whatever the problem is."""
    match problem:
        case GreXdpError():
            return problem
        case click.UsageError():
            command = problem.ctx.command_path if problem.ctx else "gre-xdp"
            return UsageError(problem.format_message(), remedy=f"{command} --help", where=command)
        case click.ClickException():
            return UsageError(problem.format_message(), remedy="gre-xdp --help")
        case ModuleNotFoundError() if not str(problem.name).startswith("gre_xdp"):
            return PackageError(
                f"the Python package {problem.name} is missing for {sys.executable}",
                remedy="install gre-xdp again, with its dependencies, for this interpreter",
            )
        case OSError():
            return _explain_os_error(problem) or _internal(problem)
    return _internal(problem)


def _explain_os_error(problem: OSError) -> GreXdpError | None:
    """Those that are no mistake of ours, wherever they come up."""
    place = f": {problem.filename}" if problem.filename else ""
    if problem.errno in (errno.ENOSPC, errno.EDQUOT):
        return HostError(
            f"writing failed, {str(problem.strerror).lower()}{place}",
            remedy="make room and run it again",
        )
    if problem.errno == errno.EIO and problem.filename:
        return HostError(
            f"{str(problem.strerror).lower()}{place}",
            remedy="dmesg may say what is wrong with the disk; run it again then",
        )
    if isinstance(problem, PermissionError) and os.geteuid() != 0:
        return PrivilegeError(f"permission denied{place}", remedy="run it with sudo")
    return None


def _internal(problem: BaseException) -> InternalError:
    words = " ".join(str(problem).split()) or "no message"
    return InternalError(
        f"internal error: {type(problem).__name__}: {words}; run with --debug for the traceback",
        remedy="report it with the output of the same command with --debug",
    )


def exit_code(problem: BaseException, trouble_code: int) -> int:
    """The exit code that goes with a problem; ``trouble_code`` is the command's own for errors."""
    return USAGE_EXIT if isinstance(problem, click.UsageError) else trouble_code
