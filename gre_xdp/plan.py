"""The difference between what is and what should be, as ordered steps. Pure: nothing is touched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from gre_xdp.resources import CREATION_ORDER, Key, Resource, Sysctl

Action = Literal["create", "update", "delete"]


@dataclass(frozen=True, slots=True)
class Step:
    """One change of one resource: ``old`` is what is, ``new`` what should be."""

    old: Resource | None
    new: Resource | None

    @property
    def action(self) -> Action:
        """What the step does."""
        if self.old is None:
            return "create"
        return "delete" if self.new is None else "update"

    @property
    def subject(self) -> Resource:
        """The resource it is about."""
        resource = self.new if self.new is not None else self.old
        assert resource is not None
        return resource

    @property
    def inverse(self) -> Step:
        """The step that undoes this one."""
        return Step(old=self.new, new=self.old)

    @property
    def object(self) -> str:
        """What is changed, in two or three words."""
        return " ".join(self.subject.key)

    @property
    def detail(self) -> str:
        """The change itself."""
        if isinstance(self.old, Sysctl) and isinstance(self.new, Sysctl):
            return f"{self.old.value} -> {self.new.value}"
        if isinstance(self.old, Sysctl) and self.new is None:
            return f"{self.old.value} -> what it was before"
        if self.action == "update":
            return f"{self.old} -> {self.new}"
        return str(self.subject)

    def as_dict(self) -> dict[str, str]:
        """The shape that ``diff --json`` prints."""
        return {"action": self.action, "object": self.object, "detail": self.detail}


def plan(desired: Mapping[Key, Resource], observed: Mapping[Key, Resource]) -> list[Step]:
    """Steps from ``observed`` to ``desired``; empty when there is nothing to do.

    First what is new or different, in creation order, then what is no longer wanted, in reverse:
    a tunnel that takes another's place is there before the other goes.
    """
    wanted = [
        Step(observed.get(key), resource)
        for key, resource in desired.items()
        if observed.get(key) != resource
    ]
    unwanted = [Step(resource, None) for key, resource in observed.items() if key not in desired]
    unwanted.reverse()
    return sorted(wanted, key=_rank) + sorted(unwanted, key=lambda step: -_rank(step))


def _rank(step: Step) -> int:
    return CREATION_ORDER.index(type(step.subject))
