"""Where pins live: their paths, their modes, and how nothing of them is left."""

from __future__ import annotations

import errno
import stat
from pathlib import Path

import pytest

from gre_xdp import abi, errors, pins
from gre_xdp.pins import Pins

COOKIE = 4711


@pytest.fixture(autouse=True)
def bpffs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in the place of /sys/fs/bpf."""
    directory = tmp_path / "bpf"
    directory.mkdir(mode=0o755)
    monkeypatch.setattr(pins, "BPFFS", directory)
    return directory


@pytest.fixture
def place() -> Pins:
    return Pins.of_namespace(COOKIE)


def fill(place: Pins) -> None:
    """Pins as an applied configuration leaves them."""
    place.make()
    (place.maps / "tunnels").touch()
    (place.links / "2").touch()
    (place.programs / "aaa").mkdir()
    (place.programs / "aaa" / "gre_xdp_port").touch()


def test_pins_live_in_a_directory_per_layout_and_namespace(bpffs: Path, place: Pins) -> None:
    """Other layouts and other namespaces are never met."""
    root = bpffs / "gre-xdp" / f"v{abi.PIN_VERSION}" / str(COOKIE)
    assert place.root == root
    assert (place.maps, place.programs, place.links) == (
        root / "maps",
        root / "programs",
        root / "links",
    )
    assert Pins.of_namespace(COOKIE + 1).root != root


def test_pins_exist_once_they_are_made(place: Pins) -> None:
    """Looking makes nothing."""
    assert not place.exists()
    assert not place.root.exists()
    place.make()
    assert place.exists()


def test_making_twice_is_making_once(place: Pins) -> None:
    """What is pinned already stays."""
    fill(place)
    place.make()
    assert (place.maps / "tunnels").exists()


def test_only_the_owner_may_enter(bpffs: Path, place: Pins) -> None:
    """Whoever opens a pin may change the data plane; bpffs itself is not ours to close."""
    place.make()
    below = [path for path in bpffs.rglob("*") if path.is_dir()]
    assert len(below) == 6
    assert {stat.S_IMODE(path.stat().st_mode) for path in below} == {0o700}
    assert stat.S_IMODE(bpffs.stat().st_mode) == 0o755


def test_removing_leaves_nothing_but_bpffs(bpffs: Path, place: Pins) -> None:
    """Everything below goes, and the parents that are empty then."""
    fill(place)
    place.remove()
    assert list(bpffs.iterdir()) == []
    assert bpffs.is_dir()


def test_removing_twice_is_removing_once(bpffs: Path, place: Pins) -> None:
    """What is absent is removed."""
    place.remove()
    fill(place)
    place.remove()
    place.remove()
    assert list(bpffs.iterdir()) == []


# What else is there, below bpffs, and the directories that have to stay for it.
NEIGHBOURS = {
    "another namespace": (f"gre-xdp/v{abi.PIN_VERSION}/99/maps/tunnels", "99"),
    "another layout": (f"gre-xdp/v{abi.PIN_VERSION + 1}/{COOKIE}/maps/tunnels", str(COOKIE)),
    "a stranger's file": ("gre-xdp/stranger", "gre-xdp"),
    "another program": ("tc/globals/map", "globals"),
}


@pytest.mark.parametrize(("other", "directory"), NEIGHBOURS.values(), ids=NEIGHBOURS)
def test_removing_spares_what_others_have(
    bpffs: Path, place: Pins, other: str, directory: str
) -> None:
    """A parent stays as long as anything is in it."""
    fill(place)
    (bpffs / other).parent.mkdir(parents=True, exist_ok=True)
    (bpffs / other).touch()
    place.remove()
    assert not place.root.exists()
    assert [path for path in bpffs.rglob("*") if path.is_file()] == [bpffs / other]
    assert directory in {path.name for path in (bpffs / other).parents}


def test_empty_parents_of_an_interrupted_removal_go(bpffs: Path, place: Pins) -> None:
    """A second removal finishes the first."""
    place.root.parent.mkdir(parents=True)
    place.remove()
    assert list(bpffs.iterdir()) == []


def test_pins_that_may_not_be_looked_at_need_root(
    place: Pins, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without permission the answer is not "there are none"."""

    def refuse(path: Path) -> bool:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", refuse)
    with pytest.raises(errors.PrivilegeError) as caught:
        place.exists()
    assert "root" in caught.value.remedy


def test_an_ordinary_directory_is_no_bpffs() -> None:
    """The file system's magic number decides; pins elsewhere would be plain files."""
    assert not pins.is_bpffs_mounted()
    assert not pins.unmount_bpffs_if_empty()


def test_a_missing_directory_is_no_bpffs(bpffs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without bpffs has no mount point for it."""
    monkeypatch.setattr(pins, "BPFFS", bpffs / "absent")
    assert not pins.is_bpffs_mounted()


# Who has mounted /sys: lines of /proc/self/mountinfo, as proc(5) describes them.
_ROOT_LINE = "25 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw\n"
_SYS_LINE = "26 25 0:23 / /sys rw,nosuid,nodev,noexec shared:7 - sysfs {} rw\n"
_BELOW_LINE = "27 26 0:24 / /sys/kernel/debug rw shared:8 - debugfs blue rw\n"
_BARE_LINE = "28 25 0:25 / /sys rw - sysfs {} rw\n"  # no optional fields

# The lines, and the namespace that has to be named (None: what is pinned will last).
MOUNTS: dict[str, tuple[str, str | None]] = {
    "ip netns exec": (_SYS_LINE.format("blue"), "blue"),
    "ip netns exec over the host's": (
        _SYS_LINE.format("sysfs") + _BARE_LINE.format("blue"),
        "blue",
    ),
    "the host's": (_SYS_LINE.format("sysfs"), None),
    "the host's again": (_SYS_LINE.format("blue") + _SYS_LINE.format("sysfs"), None),
    "no /sys": ("", None),
    "a container's": (_BARE_LINE.format("none"), None),
    "a namespace that is gone": (_SYS_LINE.format("red"), None),
    "another mount of that name": (_SYS_LINE.format("sysfs") + _BELOW_LINE, None),
    # mount -t sysfs /sys /sys: a path that exists is no namespace for that.
    "a path": (_SYS_LINE.format("/sys"), None),
}


@pytest.fixture
def mounts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file in the place of /proc/self/mountinfo, on a host that has one namespace, "blue"."""
    (tmp_path / "netns").mkdir()
    (tmp_path / "netns" / "blue").touch()
    monkeypatch.setattr(pins, "_NAMESPACES", tmp_path / "netns")
    monkeypatch.setattr(pins, "_MOUNTS", tmp_path / "mountinfo")
    return tmp_path / "mountinfo"


@pytest.mark.parametrize(("lines", "namespace"), MOUNTS.values(), ids=MOUNTS)
def test_a_sys_that_ends_with_its_command_is_refused_and_netns_named(
    mounts: Path, lines: str, namespace: str | None
) -> None:
    """What ``ip netns exec`` gives its command would take the pins with it; no other /sys would."""
    mounts.write_text(_ROOT_LINE + lines)
    if namespace is None:
        pins.require_shared_mounts()
        return
    with pytest.raises(errors.HostError) as caught:
        pins.require_shared_mounts()
    assert f"--netns {namespace}" in caught.value.remedy
    assert caught.value.where == str(pins.BPFFS)


def test_where_bpffs_is_mounted_nothing_else_counts(
    mounts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody has seen to it."""
    mounts.write_text(_ROOT_LINE + _SYS_LINE.format("blue"))
    monkeypatch.setattr(pins, "is_bpffs_mounted", lambda: True)
    pins.require_shared_mounts()
