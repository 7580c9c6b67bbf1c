"""A machine on which gre-xdp was made a service, by the lines of the README.

gre-xdp  eth0 ═══ p0  peer (a namespace that answers ARP)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from service.machine import ROOT, SYSTEMD, Machine, booted

NETWORK = """
ip link set lo up
ip netns add peer
ip link add eth0 type veth peer name p0 netns peer
ip address add 192.0.2.1/24 dev eth0
ip -n peer address add 192.0.2.2/24 dev p0
ip link set eth0 up
ip -n peer link set p0 up
nsenter --net=/run/netns/peer ethtool -K p0 gro on
"""
CONFIG = """\
[[interface]]
name = "eth0"

[[tunnel]]
name = "fra1"
local = "192.0.2.1"
remote = "192.0.2.2"
routes = ["10.9.0.0/16"]
"""
# Looks around where the agent will, before it starts.
PROBE = """\
[Service]
ExecStartPre=/opt/venv/bin/python /opt/gre-xdp/tests/service/probe.py /var/lib/gre-xdp/probe.json
"""


README = (ROOT / "README.md").read_text()


def commands(before: str) -> str:
    """The README's commands behind these words, for one who is root."""
    (found,) = re.findall(re.escape(before) + r".*?```sh\n(.*?)```", README, re.S)
    return str(found).replace("sudo ", "")


@pytest.fixture(scope="package")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    assert SYSTEMD.exists(), "make setup installs systemd"
    directory = tmp_path_factory.mktemp("machine") / "memory"
    directory.mkdir()
    with booted(directory) as machine:
        machine.script(NETWORK)
        machine.write("/etc/gre-xdp/config.toml", CONFIG)
        machine.write("/run/systemd/system/gre-xdp.service.d/probe.conf", PROBE)
        done = machine.call(["sh", "-ex"], "cd /opt/gre-xdp\n" + commands("## Run it as a service"))
        assert done.returncode == 0, done.stderr + machine.journal()
        yield machine


@pytest.fixture
def service(machine: Machine) -> Iterator[Machine]:
    """The machine with its service just started; what it said is shown with a failure."""
    machine.write("/etc/gre-xdp/config.toml", CONFIG)
    machine.run("systemctl restart gre-xdp")
    yield machine
    print(machine.journal())  # noqa: T201 - pytest shows it with a failure


def tunnel(machine: Machine) -> dict[str, object]:
    (found,) = json.loads(machine.run("gre-xdp show tunnels -s -j"))
    assert isinstance(found, dict)
    return found
