"""What can go wrong, said once: every error names what is wrong, where, and what to do."""

from __future__ import annotations

from collections.abc import Iterable


class GreXdpError(Exception):
    """An error meant for the user: one message, where it was found, and the remedy.

    ``code`` is the machine-readable name that ``--json`` prints; it never changes once released.
    """

    code = "error"

    def __init__(self, message: str, *, remedy: str, where: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy
        self.where = where

    def as_dict(self) -> dict[str, str | None]:
        """The shape that ``--json`` prints under ``error``."""
        return {
            "code": self.code,
            "message": self.message,
            "remedy": self.remedy,
            "where": self.where,
        }


class ConfigError(GreXdpError):
    """The configuration file is wrong; nothing was touched."""

    code = "config"


class ConfigErrors(GreXdpError):  # noqa: N818 - it is several
    """Several mistakes in one configuration file, reported together."""

    code = "config"

    def __init__(self, errors: Iterable[ConfigError]) -> None:
        self.errors = tuple(errors)
        first = self.errors[0]
        super().__init__(
            "; ".join(error.message for error in self.errors),
            remedy=first.remedy,
            where=first.where,
        )


class PrivilegeError(GreXdpError):
    """The caller may not do this (root, CAP_BPF, CAP_NET_ADMIN)."""

    code = "privilege"


class PackageError(GreXdpError):
    """A package of the distribution is missing."""

    code = "package"


class KernelError(GreXdpError):
    """The running kernel refuses or lacks something that the data plane needs."""

    code = "kernel"


class HostError(GreXdpError):
    """The host is not as the configuration expects (no such interface, no route to a remote)."""

    code = "host"


class ForeignError(GreXdpError):
    """Something of somebody else's is in the way; it is never touched."""

    code = "foreign"


class FirewallError(GreXdpError):
    """XDP would forward around the host's firewall, and nobody has allowed it."""

    code = "firewall"


class NotAppliedError(GreXdpError):
    """There is no gre-xdp data plane in this network namespace."""

    code = "not_applied"


class ApplyError(GreXdpError):
    """A step of the plan failed; the steps before it were undone."""

    code = "apply"


class DriftError(GreXdpError):
    """After a complete apply the kernel still differs from what was asked."""

    code = "drift"


class LabError(GreXdpError):
    """The lab could not be built."""

    code = "lab"
