"""C and Python mean the same: sizes, offsets and numbers, asserted by the compiler itself."""

from __future__ import annotations

import ctypes as ct
import enum
import importlib.util

import pytest

from gre_xdp import abi, compiler, errors, reasons

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("bcc") is None, reason="python3-bpfcc is not installed"
)

_HEADER = '#include <uapi/linux/bpf.h>\n#include "gre_abi.h"\n#include "reasons.h"\n'

STRUCTURES: dict[str, type[ct.Structure]] = {
    "settings": abi.Settings,
    "endpoint": abi.Endpoint,
    "tunnel": abi.Tunnel,
    "device": abi.Device,
    "vlan": abi.Vlan,
    "vlan_tag": abi.VlanTag,
    "tunnel_counters": abi.TunnelCounters,
    "scratch": abi.Scratch,
    "sequences": abi.Sequences,
    "next_hop": abi.NextHop,
    "source_prefix": abi.SourcePrefix,
}
ENUMERATIONS: dict[str, type[enum.IntEnum] | type[enum.IntFlag]] = {
    "MAP": abi.MapIndex,
    "ENDPOINT": abi.EndpointKind,
    "TUNNEL": abi.TunnelFlag,
    "DEVICE": abi.DeviceRole,
}
CONSTANTS = {
    "TUNNELS_MAX": abi.TUNNELS_MAX,
    "SLOTS_MAX": abi.SLOTS_MAX,
    "NEIGHBOURS_MAX": abi.NEIGHBOURS_MAX,
    "NOTE_BUCKETS": abi.NOTE_BUCKETS,
    "DEVICE_NAME_BYTES": abi.DEVICE_NAME_BYTES,
    "MAC_BYTES": abi.MAC_BYTES,
    "ANSWER_BUCKETS": abi.ANSWER_BUCKETS,
    "VLAN_TAGS_MAX": abi.VLAN_TAGS_MAX,
    "REASON_COUNT": abi.REASON_COUNT,
    "REASON_FIRST_PASS": reasons.FIRST_PASS_CODE,
    "REASON_NONE": reasons.UNRELATED_CODE,
    "MAP_COUNT": len(abi.MapIndex),
}


def assertions() -> list[str]:
    """Every fact that both sides must agree on, as a C condition."""
    found = []
    for name, structure in STRUCTURES.items():
        found.append(f"sizeof(struct {name}) == {ct.sizeof(structure)}")
        for field in structure._fields_:
            descriptor = getattr(structure, field[0])
            found.append(f"__builtin_offsetof(struct {name}, {field[0]}) == {descriptor.offset}")
            found.append(f"sizeof(((struct {name} *)0)->{field[0]}) == {descriptor.size}")
    for prefix, enumeration in ENUMERATIONS.items():
        found += [f"{prefix}_{member.name} == {int(member)}" for member in enumeration]
    found += [f"{name} == {value}" for name, value in CONSTANTS.items()]
    found += [f"FORWARD_{name.upper()} == {code}" for code, name in reasons.FORWARDED.items()]
    found += [f"{r.verdict.name}_{r.name.upper()} == {r.code}" for r in reasons.REASONS]
    return found


def compile_facts(conditions: list[str]) -> None:
    source = _HEADER + "".join(f'_Static_assert({c}, "{c}");\n' for c in conditions)
    compiler.compile_programs(source=source)


def test_every_layout_and_number_is_equal_on_both_sides() -> None:
    """The compiler accepts every size, offset and number that Python believes in."""
    compile_facts(assertions())


@pytest.mark.parametrize(
    "wrong",
    [
        "sizeof(struct tunnel) == 1",
        "__builtin_offsetof(struct tunnel, mtu) == 0",
        "DROP_UNKNOWN_TUNNEL == 2",
        "MAP_COUNT == 0",
    ],
)
def test_a_wrong_fact_does_not_compile(wrong: str) -> None:
    """The assertions above can fail."""
    with pytest.raises(errors.KernelError, match=r"tatic_assert|static assertion"):
        compile_facts([wrong])


def test_no_field_of_a_structure_is_unknown_to_python() -> None:
    """Fields are adjacent: a field that only C has would leave a hole."""
    for structure in STRUCTURES.values():
        end = 0
        for field in structure._fields_:
            descriptor = getattr(structure, field[0])
            assert descriptor.offset == end, f"hole before {structure.__name__}.{field[0]}"
            end += descriptor.size
        assert end == ct.sizeof(structure)


def test_c_has_no_reason_that_python_lacks() -> None:
    """The C lists name exactly as many reasons as Python does."""
    text = (compiler.source_dir() / "reasons.h").read_text()
    assert text.count("\tX(") == len(reasons.REASONS) + len(reasons.FORWARDED)


def test_reason_numbers_are_unique_and_in_their_range() -> None:
    """1..63 are drops, 64..127 passes; no number is used twice."""
    codes = [reason.code for reason in reasons.REASONS]
    assert len(set(codes)) == len(codes)
    for reason in reasons.REASONS:
        is_drop = 0 < reason.code < reasons.FIRST_PASS_CODE
        assert is_drop == (reason.verdict is reasons.Verdict.DROP)
        assert reason.code < abi.REASON_COUNT


def test_keys_of_maps_are_as_large_as_their_structures() -> None:
    """A map holds what the structures say, and every map index has a map."""
    assert set(abi.MAPS) == set(abi.MapIndex)
    assert abi.MAPS[abi.MapIndex.ENDPOINTS].key_size == ct.sizeof(abi.Endpoint)
    assert abi.MAPS[abi.MapIndex.VLANS].key_size == ct.sizeof(abi.Vlan)
    for index in (abi.MapIndex.NEXT_HOPS, abi.MapIndex.NEIGHBOURS):
        assert abi.MAPS[index].key_size == ct.sizeof(abi.NextHop)
    assert abi.MAPS[abi.MapIndex.TUNNELS].value_size == ct.sizeof(abi.Tunnel)
    assert abi.MAPS[abi.MapIndex.DEVICES].value_size == ct.sizeof(abi.Device)


def test_the_data_plane_compiles_without_warnings() -> None:
    """-Wall -Werror on every file in bpf/."""
    bytecode = compiler.compile_programs(extra_flags=["-Werror"])
    assert set(bytecode.programs) == set(compiler.PROGRAMS)
    assert all(len(code) % 8 == 0 and code for code in bytecode.programs.values())
