"""The lab itself: its wires, its User-Mode Linux, and that it leaves nothing behind.

site-a ─── gw-a ═══ gw-b ─── site-b          gw-b: bare, or a stock kernel with ip_gre
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from gre_xdp.errors import LabError
from gre_xdp.lab import kernel_gre, uml
from gre_xdp.lab.kernel_gre import HostKernel
from gre_xdp.lab.lab import STATE_DIRECTORY, Lab
from gre_xdp.lab.topology import NETNS_DIRECTORY, Link, Namespace, Node, Topology
from gre_xdp.lab.uml import UmlKernel

needs_uml = pytest.mark.skipif(
    shutil.which(uml.EXECUTABLE) is None, reason="user-mode-linux is not installed"
)

PREFIX = f"gxt{os.getpid()}"
KEY = 77
XDP_FLAGS_DRV_MODE = 1 << 2


def ping(node: Namespace, address: str) -> None:
    node.run(["ping", "-n", "-c", "1", "-W", "5", address])


def processes(directory: str) -> list[str]:
    """The processes that have something in this directory among their arguments."""
    found = []
    for cmdline in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if f"{directory}/".encode() in cmdline.read_bytes():
                found.append(str(cmdline))
    return found


def traces(prefix: str) -> list[str]:
    """What there is of a lab: its namespaces, its directory and its processes."""
    found = [str(path) for path in NETNS_DIRECTORY.glob(f"{prefix}-*")]
    found += [str(path) for path in STATE_DIRECTORY.glob(prefix)]
    return found + processes(f"{STATE_DIRECTORY}/{prefix}")


def python(*lines_and_prefix: str) -> subprocess.Popen[str]:
    """Another process that knows of a lab only its prefix."""
    *lines, prefix = lines_and_prefix
    program = "\n".join(["import sys", "from gre_xdp.lab.lab import Lab", *lines])
    return subprocess.Popen(
        [sys.executable, "-c", program, prefix], stdout=subprocess.PIPE, text=True
    )


def interfaces(node: Namespace) -> dict[str, dict[str, object]]:
    links = json.loads(node.run(["ip", "-j", "-d", "link"]).stdout)
    return {link["ifname"]: link for link in links}


def load_xdp_pass() -> int:
    """A file descriptor of the smallest XDP program: ``return XDP_PASS``."""
    code = ctypes.create_string_buffer(struct.pack("<BBhiBBhi", 0xB7, 0, 0, 2, 0x95, 0, 0, 0))
    license_name = ctypes.create_string_buffer(b"GPL")
    attributes = ctypes.create_string_buffer(
        struct.pack("<IIQQ", 6, 2, ctypes.addressof(code), ctypes.addressof(license_name)), 128
    )
    libc = ctypes.CDLL(None, use_errno=True)
    fd = int(libc.syscall(321, 5, attributes, ctypes.c_size_t(128)))
    assert fd >= 0, os.strerror(ctypes.get_errno())
    return fd


@pytest.fixture(scope="module")
def bare() -> Iterator[Lab]:
    """A lab where both gateways wait for gre-xdp."""
    with Lab.up(f"{PREFIX}-bare", peer="gre-xdp") as lab:
        yield lab


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """A lab with User-Mode Linux as gateway B."""
    with Lab.up(f"{PREFIX}-uml", kernel="uml", key=KEY) as lab:
        yield lab


@pytest.fixture
def peer(lab: Lab) -> UmlKernel:
    """Gateway B of that lab."""
    assert isinstance(lab.peer, UmlKernel)
    return lab.peer


class TestTopology:
    """Wires, addresses, and what happens when things go wrong."""

    @pytest.mark.parametrize(
        ("node", "address"),
        [
            ("gw-a", "192.0.2.2"),
            ("gw-b", "192.0.2.1"),
            ("site-a", "10.1.0.1"),
            ("site-a", "2001:db8:a::1"),
            ("site-b", "10.2.0.1"),
            ("site-b", "2001:db8:b::1"),
        ],
    )
    def test_neighbours_reach_each_other_at_once(self, bare: Lab, node: str, address: str) -> None:
        """The first packet on every wire arrives, with no waiting for address checks."""
        ping(bare.nodes[node], address)

    def test_gateways_are_left_bare(self, bare: Lab) -> None:
        """The gateways neither forward nor have a tunnel or a route to the other site."""
        for name in ("gw-a", "gw-b"):
            gateway = bare.nodes[name]
            assert set(interfaces(gateway)) == {"lo", "eth0", "eth1"}
            assert "default" not in gateway.run(["ip", "route"]).stdout
            forwarding = gateway.call(Path("/proc/sys/net/ipv4/ip_forward").read_text)
            assert forwarding.strip() == "0"

    def test_the_underlay_speaks_ipv4_only(self, bare: Lab) -> None:
        """There is no IPv6 address on the underlay, not even a link-local one."""
        assert bare.nodes["gw-a"].run(["ip", "-6", "address", "show", "eth0"]).stdout == ""

    def test_ifindexes_are_unique(self, bare: Lab) -> None:
        """No two interfaces of a lab have the same ifindex, so they cannot be confused unseen."""
        found = [
            link["ifindex"]
            for node in bare.nodes.values()
            for name, link in interfaces(node).items()
            if name != "lo"
        ]
        assert len(found) == len(set(found)) == 6

    def test_links_behave_as_wires(self, bare: Lab) -> None:
        """Every end completes its checksums and takes redirected packets (GRO), at MTU 1500."""
        for node in bare.nodes.values():
            for name in set(interfaces(node)) - {"lo"}:
                features = node.run(["ethtool", "-k", name]).stdout
                assert "tx-checksumming: off" in features
                assert "generic-receive-offload: on" in features
                assert interfaces(node)[name]["mtu"] == 1500

    def test_other_shapes_build(self) -> None:
        """A hub with three spokes is a matter of description."""
        spokes = [
            Node(f"spoke-{n}", {"eth0": (f"192.0.2.{4 * n + 2}/30",)}, {"0.0.0.0/0": hub})
            for n in range(3)
            for hub in [f"192.0.2.{4 * n + 1}"]
        ]
        hub = Node("hub", {f"eth{n}": (f"192.0.2.{4 * n + 1}/30",) for n in range(3)})
        links = [Link(f"hub:eth{n}", f"spoke-{n}:eth0", mtu=1400 + n) for n in range(3)]
        with Topology(f"{PREFIX}-hub", [hub, *spokes], links) as shape:
            shape.nodes["hub"].set_sysctl("net/ipv4/ip_forward", 1)
            ping(shape.nodes["spoke-0"], "192.0.2.10")
            assert interfaces(shape.nodes["spoke-2"])["eth0"]["mtu"] == 1402
        assert not traces(f"{PREFIX}-hub")

    def test_failure_leaves_nothing(self) -> None:
        """A topology that cannot be built is an error with a remedy, and its beginnings vanish."""
        node = Node("one", {"eth0": ("192.0.2.1/24",)}, {"0.0.0.0/0": "203.0.113.1"})
        other = Node("two", {"eth0": ()})
        with pytest.raises(LabError):
            Topology(f"{PREFIX}-bad", [node, other], [Link("one:eth0", "two:eth0")]).up()
        assert not traces(f"{PREFIX}-bad")

    def test_down_ends_what_was_started_in_it(self) -> None:
        """A command started on a node is gone with the node."""
        with Topology(f"{PREFIX}-run", [Node("one", {})]) as shape:
            process = shape.nodes["one"].popen(["sleep", "1000"])
            assert process.poll() is None
        assert process.returncode == -signal.SIGKILL

    def test_failed_command_says_why(self, bare: Lab) -> None:
        """A command that fails raises with its output at hand; unless asked not to."""
        with pytest.raises(subprocess.CalledProcessError) as caught:
            bare.nodes["gw-a"].run(["ip", "link", "show", "nowhere"])
        assert "nowhere" in caught.value.__notes__[0]
        assert bare.nodes["gw-a"].run(["false"], check=False).returncode == 1


class TestKernel:
    """The stock kernel at gateway B."""

    @needs_uml
    def test_sites_reach_their_gateways(self, lab: Lab) -> None:
        """User-Mode Linux is on the underlay and is site B's gateway, for IPv4 and IPv6."""
        ping(lab.nodes["gw-a"], "192.0.2.2")
        for gateway in ("10.2.0.1", "2001:db8:b::1"):
            ping(lab.nodes["site-b"], gateway)

    @needs_uml
    def test_tunnel_is_configured(self, peer: UmlKernel) -> None:
        """gre1 has the key, the addresses, and the routes to site A."""
        link = peer.run("ip -d link show gre1")[1]
        assert "gre remote 192.0.2.1 local 192.0.2.2 ttl 64 ikey 0.0.0.77 okey 0.0.0.77" in link
        addresses = peer.run("ip address show gre1")[1]
        assert "169.254.10.2/30" in addresses
        assert "fd00:10::2/64" in addresses
        assert "10.1.0.0/24 dev gre1" in peer.run("ip route")[1]
        assert "2001:db8:a::/64 dev gre1" in peer.run("ip -6 route")[1]

    @needs_uml
    def test_site_b_sends_gre_to_gateway_a(self, lab: Lab) -> None:
        """What site B sends to site A is forwarded into the tunnel and arrives as keyed GRE."""
        capture = lab.nodes["gw-a"].popen(
            ["tcpdump", "-lnvi", "eth0", "-c", "1", "--immediate-mode", "ip proto 47"]
        )
        assert capture.stderr is not None
        assert "listening" in capture.stderr.readline()
        lab.nodes["site-b"].run(["ping", "-c", "1", "-W", "0.1", "10.1.0.2"], check=False)
        seen, _ = capture.communicate(timeout=10)
        assert "192.0.2.2 > 192.0.2.1: GREv0, Flags [key present], key=0x4d" in seen
        assert "10.2.0.2 > 10.1.0.2: ICMP echo request" in seen

    @needs_uml
    def test_native_xdp_attaches_to_the_tap(self, lab: Lab) -> None:
        """Gateway A's underlay takes an XDP program in native mode, and traffic flows on."""
        gateway = lab.nodes["gw-a"]
        program = load_xdp_pass()
        try:
            with IPRoute(netns=gateway.name) as ip:
                [index] = ip.link_lookup(ifname="eth0")
                ip.link("set", index=index, xdp_fd=program, xdp_flags=XDP_FLAGS_DRV_MODE)
                assert "xdp" in interfaces(gateway)["eth0"]
                ping(gateway, "192.0.2.2")
                ip.link("set", index=index, xdp_fd=-1, xdp_flags=XDP_FLAGS_DRV_MODE)
                assert "xdp" not in interfaces(gateway)["eth0"]
        finally:
            os.close(program)

    def test_lack_of_a_driver_is_said(self) -> None:
        """A host kernel without ip_gre is refused by name, before anything is built."""
        if kernel_gre.host_has_ip_gre():
            pytest.skip("this host has ip_gre")
        with pytest.raises(LabError, match="no GRE driver"):
            Lab.up(f"{PREFIX}-host", kernel="host")
        assert not traces(f"{PREFIX}-host")

    def test_host_kernel_runs_shell_commands(self, bare: Lab) -> None:
        """The host's kernel as peer answers as User-Mode Linux does."""
        run = HostKernel(bare.nodes["gw-b"]).run
        assert run("echo out; echo err >&2; exit 3") == (3, "out\nerr\n")
        with pytest.raises(LabError, match="nonsense"):
            kernel_gre.run_all(run, [["true"], ["ip", "link", "add", "nonsense"], ["true"]])


@needs_uml
class TestCommandChannel:
    """Commands in User-Mode Linux, from whoever knows its directory."""

    @pytest.mark.parametrize(
        ("command", "answer"),
        [
            ("true", (0, "")),
            ("echo out; echo err >&2; exit 3", (3, "out\nerr\n")),
            ("printf 'a\\nb'", (0, "a\nb")),
            ("cat <<END\n  $((6 * 7)) \\\\\nEND", (0, "  42 \\\n")),
            ("head -c 300000 /dev/zero | tr '\\0' x", (0, "x" * 300_000)),
            ("cat", (0, "")),
            ("no-such-command", (127, "sh: 1: no-such-command: not found\n")),
        ],
    )
    def test_answers(self, peer: UmlKernel, command: str, answer: tuple[int, str]) -> None:
        """Status and output arrive unchanged, of any size, and nothing waits for input."""
        assert peer.run(command) == answer

    def test_timeout(self, peer: UmlKernel) -> None:
        """A command that takes too long is killed, and the next one is answered."""
        with pytest.raises(subprocess.TimeoutExpired) as caught:
            peer.run("echo before; exec sleep 1000", timeout=0.5)
        assert caught.value.output == "before\n"
        assert peer.run("pgrep -x sleep") == (1, "")

    def test_too_long_a_command_is_refused(self, peer: UmlKernel) -> None:
        """A command that the console could choke on is not sent."""
        with pytest.raises(ValueError, match="too long"):
            peer.run("x" * 4000)
        assert peer.run("x=" + "x" * 3900) == (0, "")

    def test_reattach(self, lab: Lab, peer: UmlKernel) -> None:
        """Another process finds the lab by its prefix and runs commands while we do."""
        with python(
            "lab = Lab.load(sys.argv[1])",
            "print([lab.peer.run(f'echo {n}')[1] for n in range(5)], lab.key)",
            lab.prefix,
        ) as other:
            ours = [peer.run(f"echo {n}")[1] for n in range(5)]
            assert other.communicate(timeout=30)[0] == f"{ours} {KEY}\n"

    def test_shell(self, peer: UmlKernel) -> None:
        """The shell has a terminal of its own, and ends by exit or with its input."""
        (keys, typing), (showing, screen) = os.pipe(), os.pipe()
        os.write(typing, b"tty; exit 7\n")
        assert peer.shell(keys, screen) == 7
        assert b"/dev/tty1" in os.read(showing, 65536)
        os.write(typing, b"echo $((6 * 7)); (exit 5)\n")
        os.close(typing)
        assert peer.shell(keys, screen) == 5
        assert b"42" in os.read(showing, 65536)
        for fd in (keys, showing, screen):
            os.close(fd)


class TestLifetime:
    """Labs come, coexist and go without a trace."""

    def test_labs_coexist(self, bare: Lab) -> None:
        """A second lab, even one whose prefix begins with the first's, is another one."""
        with Lab.up(f"{bare.prefix}-site", peer="gre-xdp") as second:
            ping(second.nodes["gw-a"], "192.0.2.2")
        ping(bare.nodes["gw-a"], "192.0.2.2")

    @needs_uml
    def test_down_leaves_nothing(self, lab: Lab) -> None:
        """A lab outlives the process that built it; down removes it all, and no other lab."""
        prefix = f"{PREFIX}-two"
        with python("Lab.up(sys.argv[1], kernel='uml')", prefix) as builder:
            assert builder.wait(timeout=60) == 0
        assert (STATE_DIRECTORY / prefix).stat().st_mode & 0o777 == 0o700
        second = Lab.load(prefix)
        assert isinstance(second.peer, UmlKernel)
        assert second.peer.run("true") == (0, "")
        assert len(traces(prefix)) > 4
        second.down()
        assert not traces(prefix)
        second.down()
        ping(lab.nodes["site-b"], "10.2.0.1")

    def test_up_twice_is_refused(self, bare: Lab) -> None:
        """A prefix that is taken is an error, and the lab that has it is left alone."""
        with pytest.raises(LabError, match="is up"):
            Lab.up(bare.prefix, peer="gre-xdp")
        ping(bare.nodes["gw-a"], "192.0.2.2")

    def test_remove_of_a_half_built_lab(self) -> None:
        """What a process left that died while building is removed by prefix."""
        prefix = f"{PREFIX}-half"
        (STATE_DIRECTORY / prefix).mkdir(mode=0o700, parents=True)
        Topology(prefix, [Node("site-a", {})]).up()
        (NETNS_DIRECTORY / f"{prefix}-gw-a").touch()
        with pytest.raises(LabError, match="no lab"):
            Lab.load(prefix)
        Lab.remove(prefix)
        assert not traces(prefix)

    @needs_uml
    def test_death_is_told_with_the_console(self, tmp_path: Path) -> None:
        """A kernel that has died is an error that shows its console; stop ends what it left."""
        kernel = UmlKernel.start(tmp_path)
        assert kernel.is_running()
        os.kill(kernel.pid, signal.SIGKILL)
        os.waitid(os.P_PID, kernel.pid, os.WEXITED | os.WNOWAIT)
        with pytest.raises(LabError, match="its console says"):
            kernel.run("true")
        for _ in range(2):
            kernel.stop()
            assert not processes(str(tmp_path))
            assert not Path(f"/proc/{kernel.pid}").exists()

    def test_a_prefix_cannot_leave_the_directory(self) -> None:
        """Prefixes are names, not paths."""
        with pytest.raises(LabError, match="prefix"):
            Lab.load("../netns")


@pytest.mark.parametrize(("side", "other"), [("a", "b"), ("b", "a")])
def test_config_toml(bare: Lab, side: str, other: str) -> None:
    """The configuration of each gateway is TOML, and leads to the other one and its site."""
    config = tomllib.loads(bare.config_toml(side))  # type: ignore[arg-type]  # a literal in the table
    [tunnel] = config["tunnel"]
    assert [interface["name"] for interface in config["interface"]] == ["eth0", "eth1"]
    assert f"2001:db8:{other}::/64" in tunnel["routes"]
    assert "key" not in tunnel
    assert bare.nodes[f"gw-{other}"].run(["ip", "-j", "address"]).stdout.count(tunnel["remote"])
