"""contrib/systemd/gre-xdp.service under a real systemd: started, confined, reloaded, stopped, hung.

Only this host's kernel is needed: BCC compiles and XDP is attached under the unit's confinement.
"""

from __future__ import annotations

import json

import pytest

from netns_helpers import wait_until
from service.conftest import CONFIG, commands, tunnel
from service.machine import Machine

# What each is refused without.
REFUSALS = {
    "cap_bpf": "create map settings: Operation not permitted",
    "cap_perfmon": "the kernel refused program gre_xdp_port: Permission denied",
    "cap_net_admin": "reading the kernel's state failed: Operation not permitted",
    "cap_net_raw": "hearing what routers say of paths (a raw ICMP socket): Operation not permitted",
}
CAPABILITIES = {"cap_bpf": 39, "cap_perfmon": 38, "cap_net_admin": 12, "cap_net_raw": 13}


NAMESPACE = """
ip netns add blue
ip link add eth0 netns blue type veth peer name p1 netns peer
ip -n blue address add 192.0.2.1/24 dev eth0
ip -n peer link set p1 up
ip -n blue link set eth0 up
ip -n blue link set lo up
nsenter --net=/run/netns/peer ethtool -K p1 gro on
ip -n peer address add 192.0.2.2/24 dev p1
ip -n peer route del 192.0.2.0/24 dev p0
"""


def drop_in(name: str, lines: str, machine: Machine) -> None:
    """Change the unit, or with no lines change it back."""
    machine.write(f"/run/systemd/system/gre-xdp.service.d/{name}.conf", f"[Service]\n{lines}\n")
    machine.run("systemctl daemon-reload")


def status_of_process(machine: Machine, name: str) -> str:
    """A line of /proc/PID/status of the agent."""
    text = machine.run(f"cat /proc/{machine.property('MainPID')}/status")
    return next(line.split("\t")[1] for line in text.splitlines() if line.startswith(f"{name}:"))


def test_it_starts_by_the_lines_of_the_readme(service: Machine) -> None:
    """It is up once the tunnels are: compiled, attached, pinned; enabled for the next boot."""
    assert service.property("ActiveState") == "active"
    assert service.property("StatusText") == "tunnels: 1, interfaces: 1"
    assert service.run("systemctl is-enabled gre-xdp").strip() == "enabled"
    assert tunnel(service)["state"] == "up"
    (port,) = json.loads(service.run("gre-xdp show interfaces -j"))
    assert port["mode"] == "native"
    assert port["link_pinned"]


def test_the_journal_knows_priorities(service: Machine) -> None:
    """Its lines have the priority of their level, and no time of their own."""
    lines = service.run("journalctl --output=json --unit=gre-xdp").splitlines()
    found = [json.loads(line) for line in lines]
    applied = [each for each in found if "gre_xdp.agent: applied" in each["MESSAGE"]]
    assert {each["PRIORITY"] for each in applied} == {"6"}
    assert applied[0]["MESSAGE"].startswith("gre_xdp.agent: applied /etc/gre-xdp/config.toml")


def test_systemd_finds_no_fault_in_the_unit(machine: Machine) -> None:
    """It knows every word, and the program that is to be started."""
    done = machine.call(["systemd-analyze", "verify", "/etc/systemd/system/gre-xdp.service"])
    assert (done.returncode, done.stderr) == (0, "")


def test_the_agent_has_four_capabilities(service: Machine) -> None:
    """Loading programs, network devices, raw sockets, and pointers in programs: no more."""
    wanted = sum(1 << number for number in CAPABILITIES.values())
    for name in ("CapBnd", "CapPrm", "CapEff"):
        assert int(status_of_process(service, name), 16) == wanted, name
    assert status_of_process(service, "NoNewPrivs") == "1"
    assert status_of_process(service, "Seccomp") == "2"


def test_what_the_unit_forbids_is_forbidden(service: Machine) -> None:
    """Tried in the agent's place: what it needs can be done, and nothing else."""
    found = json.loads(service.run("cat /var/lib/gre-xdp/probe.json"))
    assert found == {
        "write /etc/gre-xdp": "ok",
        "write /run/gre-xdp": "ok",
        "write /var/lib/gre-xdp": "ok",
        "write /sys/fs/bpf": "ok",
        "write /proc/sys/net": "ok",
        "socket AF_PACKET": "ok",
        "socket AF_NETLINK": "ok",
        "socket ICMP": "ok",
        "write /usr": "EROFS",
        "write /etc": "EROFS",
        "write /root": "EROFS",
        "write /run": "EROFS",
        "write /sys/fs/cgroup": "EROFS",
        "write /sys/class/net": "EROFS",
        "write /proc/sys/kernel": "EROFS",
        "open /dev/kmsg": "ENOENT",
        "memory to write and execute": "EPERM",
        "socket AF_ALG": "EAFNOSUPPORT",
        "another namespace": "EPERM",
        "another personality": "EPERM",
        "mount": "EPERM",
        "a user": "EPERM",
        "a setuid file": "EPERM",
        "the clock": "EPERM",
        "another's file": "EPERM",
    }


def test_a_bad_file_is_said_in_the_status(service: Machine) -> None:
    """``systemctl reload``: the old configuration stays; with the file mended, all is well."""
    service.write("/etc/gre-xdp/config.toml", CONFIG.replace("192.0.2.2", "192.0.2.x"))
    service.run("systemctl reload gre-xdp")
    assert wait_until(lambda: "old configuration stays" in service.property("StatusText"))
    assert "/etc/gre-xdp/config.toml:7" in service.property("StatusText")
    assert service.property("ActiveState") == "active"
    assert tunnel(service)["remote"] == "192.0.2.2"
    service.write("/etc/gre-xdp/config.toml", CONFIG.replace("192.0.2.2", "192.0.2.3"))
    service.run("systemctl reload gre-xdp")
    assert wait_until(lambda: service.property("StatusText") == "tunnels: 1, interfaces: 1")
    assert tunnel(service)["remote"] == "192.0.2.3"


def test_a_change_that_is_not_confirmed_is_taken_back_by_the_agent(service: Machine) -> None:
    """When the process that watches it was killed; the agent may write the file's directory."""
    service.write("/etc/gre-xdp/config.toml", CONFIG.replace("10.9.0.0", "10.8.0.0"))
    service.run("gre-xdp apply --confirm-within 2")
    service.run("pkill -KILL -f gre_xdp.rollback")
    assert wait_until(lambda: service.run("cat /etc/gre-xdp/config.toml") == CONFIG, 20)
    assert wait_until(lambda: "10.9.0.0/16" in service.run("ip route show dev fra1"))


def test_stopped_it_leaves_the_data_plane(service: Machine) -> None:
    """What the host sends is encapsulated without it; started again it finds all in place."""
    service.run("systemctl stop gre-xdp")
    assert service.property("ActiveState") == "inactive"
    assert service.property("Result") == "success"
    before = tunnel(service)["tx_packets"]
    assert isinstance(before, int)
    service.call(["ping", "-n", "-c5", "-i0.02", "-W0.1", "-I", "192.0.2.1", "10.9.0.1"])
    assert tunnel(service)["tx_packets"] == before + 5
    # Sysctl values of before are in the second: `down` needs them.
    service.run("ls -d /var/lib/gre-xdp /run/gre-xdp")
    service.run("systemctl start gre-xdp")
    applied = [line for line in service.journal().splitlines() if " applied " in line]
    assert applied[-1].endswith(": 0 changes")


def test_the_watchdog_ends_an_agent_that_hangs(service: Machine) -> None:
    """One that stands still is killed, says where it stood, and is followed by another."""
    drop_in("fast", "WatchdogSec=3s\nRestartSec=100ms", service)
    service.run("systemctl restart gre-xdp")
    try:
        former = service.property("MainPID")
        service.run(f"kill -STOP {former}")
        assert wait_until(lambda: service.property("NRestarts") != "0", 20)
        assert wait_until(lambda: service.property("ActiveState") == "active", 20)
        assert service.property("MainPID") not in (former, "0")
        assert "Fatal Python error: Aborted" in service.journal()
        assert tunnel(service)["state"] == "up"
    finally:
        drop_in("fast", "", service)


@pytest.mark.parametrize("capability", CAPABILITIES)
def test_it_does_without_none_of_them(machine: Machine, capability: str) -> None:
    """Without any one of its capabilities it does not start, and says so."""
    drop_in("capability", f"CapabilityBoundingSet=~{capability.upper()}", machine)
    machine.run("gre-xdp down --yes")
    try:
        assert machine.call(["systemctl", "start", "gre-xdp"]).returncode == 1
        words = machine.journal().rpartition("Starting")[2]
        assert "Traceback" not in words
        assert REFUSALS[capability] in words
    finally:
        machine.run("systemctl stop gre-xdp")
        drop_in("capability", "", machine)


def test_an_instance_keeps_a_network_namespace(machine: Machine) -> None:
    """By the same unit with the drop-in, as the README says: tunnels and metrics are in there."""
    machine.script(NAMESPACE)
    machine.write("/etc/gre-xdp/blue.toml", CONFIG)
    machine.script("cd /opt/gre-xdp\n" + commands("One instance for each"))
    assert machine.property("StatusText", "gre-xdp@blue") == "tunnels: 1, interfaces: 1"
    (found,) = json.loads(machine.run("gre-xdp --netns blue show tunnels -j"))
    assert found["state"] == "up"
    assert "127.0.0.1:9747" in machine.run("nsenter --net=/run/netns/blue ss -Hlnt")
    machine.run("gre-xdp --netns blue down --yes")
    assert machine.property("ActiveState", "gre-xdp@blue") == "inactive"


def test_down_stops_the_service_and_removes_all(machine: Machine) -> None:
    """As without a service; it does not come back by itself."""
    machine.run("systemctl start gre-xdp")
    machine.run("gre-xdp down --yes")
    assert machine.property("ActiveState") == "inactive"
    assert machine.call(["ip", "link", "show", "fra1"]).returncode == 1
    assert "xdp" not in machine.run("ip link show eth0")
    assert machine.call(["test", "-e", "/sys/fs/bpf/gre-xdp"]).returncode == 1
