"""A finding of the doctor, and the words and commands that findings are made of."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from gre_xdp.doctor.facts import Facts
from gre_xdp.errors import GreXdpError

WHY_REFUSED = "apply refuses to touch anything as long as this is so"


Severity = Literal["ok", "note", "warning", "error"]
Command = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Finding:
    """What was found, why it matters, and the command that mends it.

    ``fixes``: commands that are safe to run as they are; only such that set a device's offload
    features or a sysctl.
    """

    subject: str
    severity: Severity
    finding: str
    why: str = ""
    remedy: str | None = None
    fixes: tuple[Command, ...] = ()

    def as_dict(self) -> dict[str, str | None]:
        """The shape that ``--json`` prints."""
        return {
            "subject": self.subject,
            "severity": self.severity,
            "finding": self.finding,
            "why": self.why,
            "remedy": self.remedy,
        }


def refusal(
    subject: str, error: GreXdpError, why: str = WHY_REFUSED, fixes: tuple[Command, ...] = ()
) -> Finding:
    """What apply refuses, as a finding."""
    return Finding(subject, "error", error.message, why, error.remedy, fixes)


def refused(check: Callable[[], object]) -> GreXdpError | None:
    """What a preflight check raises."""
    try:
        check()
    except GreXdpError as error:
        return error
    return None


def mend(subject: str, severity: Severity, finding: str, why: str, *fixes: Command) -> Finding:
    """A finding whose remedy is to run these commands."""
    return Finding(
        subject, severity, finding, why, " && ".join(shlex.join(fix) for fix in fixes), fixes
    )


def here(facts: Facts, *command: str) -> Command:
    """A command as it has to be written outside of the network namespace that is looked at."""
    return ("ip", "netns", "exec", facts.netns, *command) if facts.netns else command


def setting(facts: Facts, path: str, value: int) -> Command:
    """The command that sets a sysctl."""
    # A dot is a separator for sysctl(8), unless the first separator is a slash.
    name = f"net/{path}" if "." in path else f"net/{path}".replace("/", ".")
    return here(facts, "sysctl", "-w", f"{name}={value}")


def gre_xdp_command(facts: Facts, command: str) -> str:
    """A command of our own, in the network namespace that is looked at."""
    return f"gre-xdp --netns {facts.netns} {command}" if facts.netns else f"gre-xdp {command}"


def list_chain(facts: Facts, name: str) -> str:
    """The command that shows a chain of the firewall."""
    first, *rest = name.split()
    if first.endswith("-legacy"):
        return shlex.join(here(facts, first, "-t", *rest, "-S"))
    return shlex.join(here(facts, "nft", "list", "chain", first, *rest))
