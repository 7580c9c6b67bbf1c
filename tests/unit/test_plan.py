"""The difference of two states: which steps, in which order, and that they lead there and back."""

from __future__ import annotations

from ipaddress import IPv4Address, ip_address, ip_interface, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gre_xdp.netlink.routes import GATEWAY
from gre_xdp.plan import Step, plan
from gre_xdp.resources import (
    CREATION_ORDER,
    Attachment,
    DataPlane,
    NextHop,
    Policy,
    Port,
    Resource,
    State,
    Sysctl,
    Target,
    TunnelAddress,
    TunnelDevice,
    TunnelEntry,
    TunnelRoute,
    state,
)


def entry(name: str = "fra1", **changes: object) -> TunnelEntry:
    values: dict[str, object] = {
        "local": IPv4Address("192.0.2.1"),
        "remote": IPv4Address("198.51.100.7"),
        "ikey": None,
        "okey": None,
        "ttl": 64,
        "tos": "inherit",
        "pmtudisc": True,
        "mtu": 1476,
    }
    return TunnelEntry(name, name, **(values | changes))  # type: ignore[arg-type]  # as the table says


# One of each kind, in creation order.
PROGRAMS = DataPlane("aaa")
POLICY = Policy("drop")
SYSCTL = Sysctl("ipv4/conf/eth0/forwarding", "1")
NEIGHBOUR = NextHop("eth0", ip_address("192.0.2.254"))
DEVICE = TunnelDevice("fra1", 1476)
TUNNEL = entry()
PORT = Port("eth0", "02:00:00:00:00:01")
TARGET = Target("eth0")
ATTACHMENT = Attachment("eth0", "port", "native", "aaa")
ADDRESS = TunnelAddress("fra1", ip_interface("169.254.10.1/30"))
ROUTE = TunnelRoute(ip_network("10.20.0.0/16"), "fra1", GATEWAY[4])
ALL: list[Resource] = [
    PROGRAMS,
    POLICY,
    SYSCTL,
    NEIGHBOUR,
    DEVICE,
    TARGET,
    TUNNEL,
    PORT,
    ATTACHMENT,
    ADDRESS,
    ROUTE,
]
# The second tunnel.
OTHER_DEVICE = TunnelDevice("fra2", 1476)
OTHER_TUNNEL = entry("fra2", remote=IPv4Address("198.51.100.8"))
OTHER_INNER = Attachment("gx-fra2", "inner", "native", "aaa")
OTHER_ROUTE = TunnelRoute(ip_network("10.21.0.0/16"), "fra2", GATEWAY[4])
OTHER: list[Resource] = [OTHER_DEVICE, OTHER_TUNNEL, OTHER_INNER, OTHER_ROUTE]

WIDE = TunnelDevice("fra1", 1500)
UNREADY = TunnelDevice("fra1", 1476, is_ready=False)
KEYED = entry(okey=77)
UNBOUND = entry(is_bound=False)
MOVED = TunnelRoute(ROUTE.destination, "fra2", GATEWAY[4])
RENEWED = Attachment("eth0", "port", "native", "bbb")

# initial->replacement: what is observed, what is desired, and the words for the steps.
PLANS: dict[str, tuple[list[Resource], list[Resource], list[str]]] = {
    "nothing->nothing": ([], [], []),
    "all->all": (ALL, ALL, []),
    "all->all in another order": (ALL, ALL[::-1], []),
    "nothing->all": (
        [],
        ALL,
        [
            "create programs",
            "create policy",
            "create sysctl ipv4/conf/eth0/forwarding",
            "create neighbour eth0 192.0.2.254",
            "create device fra1",
            "create target eth0",
            "create tunnel fra1",
            "create port eth0",
            "create attachment eth0",
            "create address fra1 169.254.10.1/30",
            "create route 10.20.0.0/16",
        ],
    ),
    "all->nothing": (
        ALL,
        [],
        [
            "delete route 10.20.0.0/16",
            "delete address fra1 169.254.10.1/30",
            "delete attachment eth0",
            "delete port eth0",
            "delete tunnel fra1",
            "delete target eth0",
            "delete device fra1",
            "delete neighbour eth0 192.0.2.254",
            "delete sysctl ipv4/conf/eth0/forwarding",
            "delete policy",
            "delete programs",
        ],
    ),
    "one tunnel->two": (
        ALL,
        ALL + OTHER,
        [
            "create device fra2",
            "create tunnel fra2",
            "create attachment gx-fra2",
            "create route 10.21.0.0/16",
        ],
    ),
    "two tunnels->one": (
        ALL + OTHER,
        ALL,
        [
            "delete route 10.21.0.0/16",
            "delete attachment gx-fra2",
            "delete tunnel fra2",
            "delete device fra2",
        ],
    ),
    "one device->another": (
        [DEVICE, TUNNEL],
        [OTHER_DEVICE, OTHER_TUNNEL],
        ["create device fra2", "create tunnel fra2", "delete tunnel fra1", "delete device fra1"],
    ),
    "mtu 1476->mtu 1500": ([DEVICE], [WIDE], ["update device fra1"]),
    "not ready->ready": ([UNREADY], [DEVICE], ["update device fra1"]),
    "incomplete->complete": ([UNBOUND], [TUNNEL], ["update tunnel fra1"]),
    "no key->key": ([DEVICE, TUNNEL], [DEVICE, KEYED], ["update tunnel fra1"]),
    "key 0->no key": ([entry(ikey=0, okey=0)], [TUNNEL], ["update tunnel fra1"]),
    "route fra1->route fra2": (
        [DEVICE, ROUTE],
        [OTHER_DEVICE, MOVED],
        ["create device fra2", "update route 10.20.0.0/16", "delete device fra1"],
    ),
    "programs aaa->programs bbb": (
        [PROGRAMS, ATTACHMENT],
        [RENEWED, DataPlane("bbb")],
        ["update programs", "update attachment eth0"],
    ),
    "drop->pass": ([POLICY], [Policy("pass")], ["update policy"]),
    "forwarding 0->forwarding 1": (
        [Sysctl(SYSCTL.path, "0")],
        [SYSCTL],
        ["update sysctl ipv4/conf/eth0/forwarding"],
    ),
    "address->longer prefix": (
        [ADDRESS],
        [TunnelAddress("fra1", ip_interface("169.254.10.1/31"))],
        ["create address fra1 169.254.10.1/31", "delete address fra1 169.254.10.1/30"],
    ),
    "next hop->another": (
        [NEIGHBOUR],
        [NextHop("eth0", ip_address("192.0.2.253"))],
        ["create neighbour eth0 192.0.2.253", "delete neighbour eth0 192.0.2.254"],
    ),
}


def words(steps: list[Step]) -> list[str]:
    return [f"{step.action} {step.object}" for step in steps]


@pytest.mark.parametrize(("initial", "replacement", "steps"), PLANS.values(), ids=PLANS)
def test_a_plan_is_the_steps_from_what_is_to_what_should_be(
    initial: list[Resource], replacement: list[Resource], steps: list[str]
) -> None:
    """What differs is updated or created in creation order, then the rest deleted in reverse."""
    assert words(plan(state(replacement), state(initial))) == steps


def test_the_table_above_holds_every_kind_in_creation_order() -> None:
    """A new kind of resource needs a place in the order, and here."""
    assert tuple(type(resource) for resource in ALL) == CREATION_ORDER


def test_equals_are_made_in_the_order_of_the_list_and_undone_in_reverse() -> None:
    """Sysctls depend on each other: all/forwarding comes last and goes first."""
    settings: list[Resource] = [Sysctl(f"ipv6/conf/{name}/forwarding", "1") for name in "zam"]
    made = plan(state(settings), {})
    assert [step.new for step in made] == settings
    assert [step.old for step in plan({}, state(settings))] == settings[::-1]


# --- steps ----------------------------------------------------------------------------------------

STEPS: dict[str, tuple[Step, dict[str, str]]] = {
    "nothing->device": (
        Step(None, DEVICE),
        {"action": "create", "object": "device fra1", "detail": "fra1 mtu 1476"},
    ),
    "device->nothing": (
        Step(DEVICE, None),
        {"action": "delete", "object": "device fra1", "detail": "fra1 mtu 1476"},
    ),
    "device->wide device": (
        Step(DEVICE, WIDE),
        {
            "action": "update",
            "object": "device fra1",
            "detail": "fra1 mtu 1476 -> fra1 mtu 1500",
        },
    ),
    "route fra1->route fra2": (
        Step(ROUTE, MOVED),
        {
            "action": "update",
            "object": "route 10.20.0.0/16",
            "detail": "10.20.0.0/16 dev fra1 -> 10.20.0.0/16 dev fra2",
        },
    ),
    "nothing->programs": (
        Step(None, PROGRAMS),
        {"action": "create", "object": "programs", "detail": "programs aaa"},
    ),
}
INVERSE = {"create": "delete", "delete": "create", "update": "update"}


@pytest.mark.parametrize(("step", "shape"), STEPS.values(), ids=STEPS)
def test_a_step_prints_as_action_object_and_detail(step: Step, shape: dict[str, str]) -> None:
    """``diff --json`` has these three keys and no other."""
    assert step.as_dict() == shape


@pytest.mark.parametrize("step", [step for step, _ in STEPS.values()], ids=STEPS)
def test_the_inverse_of_a_step_undoes_it(step: Step) -> None:
    """Undoing swaps what was and what is, and undoing that is the step again."""
    assert (step.inverse.old, step.inverse.new) == (step.new, step.old)
    assert step.inverse.action == INVERSE[step.action]
    assert step.inverse.object == step.object
    assert step.inverse.inverse == step


# --- any two states -------------------------------------------------------------------------------

_names = st.sampled_from(["fra1", "fra2", "eth0"])
_digests = st.sampled_from(["aaa", "bbb"])
_resources: st.SearchStrategy[Resource] = st.one_of(
    st.builds(Sysctl, st.sampled_from(["ipv4/a", "ipv4/b", "ipv6/c"]), st.sampled_from("012")),
    st.builds(DataPlane, _digests),
    st.builds(Policy, st.sampled_from(["drop", "pass"])),
    st.builds(TunnelDevice, _names, st.sampled_from([1400, 1476]), st.booleans()),
    st.builds(entry, _names, okey=st.sampled_from([None, 0, 77]), is_bound=st.booleans()),
    st.builds(
        Attachment,
        _names,
        st.sampled_from(["port", "inner"]),
        st.sampled_from(["native", "skb"]),
        _digests,
    ),
    st.builds(
        TunnelAddress, _names, st.sampled_from([ip_interface("10.0.0.1/8"), ADDRESS.address])
    ),
    st.builds(Target, _names),
    st.builds(NextHop, _names, st.sampled_from([NEIGHBOUR.address, ip_address("192.0.2.2")])),
    st.builds(
        TunnelRoute,
        st.sampled_from([ROUTE.destination, ip_network("::/0")]),
        _names,
        st.sampled_from([None, GATEWAY[6]]),
    ),
)
states = st.lists(_resources, max_size=25).map(state)


def carry_out(steps: list[Step], found: State) -> State:
    """What a kernel that does as it is told holds afterwards."""
    result = dict(found)
    for step in steps:
        assert result.get(step.subject.key) == step.old, "a step must start from what is there"
        if step.new is None:
            del result[step.subject.key]
        else:
            result[step.subject.key] = step.new
    return result


@given(desired=states, observed=states)
def test_a_plan_leads_to_what_is_desired_and_its_inverse_back(
    desired: State, observed: State
) -> None:
    """Carrying out all steps gives the desired state, undoing them in reverse the observed one."""
    steps = plan(desired, observed)
    reached = carry_out(steps, observed)
    assert reached == desired
    assert plan(desired, reached) == []
    assert carry_out([step.inverse for step in reversed(steps)], reached) == observed


@given(desired=states, observed=states)
def test_a_plan_never_does_more_than_is_needed(desired: State, observed: State) -> None:
    """A resource is touched once at most, and only if it differs."""
    keys = [step.subject.key for step in plan(desired, observed)]
    assert len(keys) == len(set(keys))
    assert all(desired.get(key) != observed.get(key) for key in keys)


@given(desired=states, observed=states)
def test_deletes_come_last_and_in_reverse(desired: State, observed: State) -> None:
    """What attracts traffic is made last and removed first."""
    steps = plan(desired, observed)
    wanted = [step for step in steps if step.new is not None]
    unwanted = [step for step in steps if step.new is None]
    assert steps == wanted + unwanted
    for group, sign in ((wanted, 1), (unwanted, -1)):
        ranks = [sign * CREATION_ORDER.index(type(step.subject)) for step in group]
        assert ranks == sorted(ranks)


@given(found=states, other=states)
def test_planning_changes_neither_state_and_is_repeatable(found: State, other: State) -> None:
    """A plan is a pure function, and a state needs no steps to itself."""
    before = (dict(found), dict(other))
    assert plan(found, other) == plan(found, other)
    assert (found, other) == before
    assert plan(found, found) == []
