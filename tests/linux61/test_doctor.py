"""The doctor on Linux 6.1, which tells less of its devices, and has VLANs and tc filters.

lan l1 ──── l0 gw g0 ════ p0 peer
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from linux61.conftest import CLI, Machine

NETWORK = """
modprobe -d /mnt -a 8021q
modprobe -d /mnt -a sch_ingress cls_matchall act_gact || true
for name in dlan dgw dpeer; do
    ip netns add $name
    ip -n $name link set lo up
done
ip link add l1 netns dlan type veth peer name l0 netns dgw
ip link add g0 netns dgw type veth peer name p0 netns dpeer
for end in dlan/l1 dgw/l0 dgw/g0 dpeer/p0; do
    nsenter --net=/run/netns/${end%/*} ethtool -K ${end#*/} tx off gro on >/dev/null
    ip -n ${end%/*} link set ${end#*/} up
done
ip -n dgw address add 192.0.2.1/24 dev g0
ip -n dpeer address add 192.0.2.2/24 dev p0
"""
CONFIG = """
exporter = ""
[[interface]]
name = "g0"
[[interface]]
name = "l0"
[[tunnel]]
name = "fra1"
local = "192.0.2.1"
remote = "192.0.2.2"
"""


@pytest.fixture(scope="module")
def gateway(machine: Machine) -> Iterator[Machine]:
    machine.script(NETWORK)
    (machine.directory / "doctor.toml").write_text(CONFIG)
    try:
        yield machine
    finally:
        for name in ("dlan", "dgw", "dpeer"):
            machine.run(f"ip netns del {name}")


def look(machine: Machine, *options: str) -> list[dict[str, Any]]:
    """What the doctor finds beside what is ok."""
    words = " ".join(["doctor", f"{machine.directory}/doctor.toml", "-j", *options])
    status, output = machine.kernel.run(f"{CLI} --netns dgw {words}", timeout=120.0)
    found = [each for each in json.loads(output)["findings"] if each["severity"] != "ok"]
    assert status == int(any(each["severity"] == "error" for each in found))
    return found


def test_linux_6_1_will_do(gateway: Machine) -> None:
    """The programs compile and load; what is said is that IPv6 forwarding is all or nothing.

    User-Mode Linux has no JIT.
    """
    found = look(gateway)
    assert {each["severity"] for each in found} <= {"note", "warning"}
    assert {each["subject"] for each in found} <= {"kernel", "forwarding"}
    assert "IPv6 forwarding on for the whole host" in found[-1]["finding"]


def test_a_peer_without_napi_is_found_by_its_features(gateway: Machine) -> None:
    """Before Linux 6.3 the device itself does not tell, and so its other end is asked."""
    gateway.run("nsenter --net=/run/netns/dlan ethtool -K l1 gro off")
    (found,) = [each for each in look(gateway, "--no-load") if each["severity"] == "error"]
    assert found["subject"] == "interface l0"
    assert found["remedy"] == "nsenter --net=/run/netns/dlan ethtool -K l1 gro on"
    look(gateway, "--no-load", "--fix", "--yes", "2>/dev/null")
    assert [each for each in look(gateway, "--no-load") if each["severity"] == "error"] == []


@pytest.mark.parametrize("qdisc", ["ingress", "clsact"])
def test_tc_filters_that_xdp_bypasses_are_counted(gateway: Machine, qdisc: str) -> None:
    """A queueing discipline for them alone is nothing; a filter in it is a warning."""
    tc = "tc -n dgw"
    gateway.run(f"{tc} qdisc add dev l0 {qdisc}")
    try:
        assert not any(each["subject"] == "interface l0" for each in look(gateway, "--no-load"))
        place = "ingress" if qdisc == "clsact" else "parent ffff:"
        gateway.run(f"{tc} filter add dev l0 {place} matchall action drop")
        (found,) = [
            each for each in look(gateway, "--no-load") if each["subject"] == "interface l0"
        ]
        assert (found["severity"], found["finding"]) == ("warning", "tc has filters on l0")
    finally:
        gateway.run(f"{tc} qdisc del dev l0 {qdisc}")
