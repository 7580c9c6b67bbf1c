"""Bad configuration files: each is told in one error with its line and key, and soon.

The files themselves are in ``bad_files.py``.
"""

from __future__ import annotations

import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import bad_files
from bad_files import Bad
from gre_xdp import config, config_file, errors
from gre_xdp.errors import ConfigError, ConfigErrors

LARGE_S = 60.0  # on a busy machine; on an idle one each takes a few seconds at most
MANY_TUNNELS = 20_000
NOBODY = 65534


def short(parameter: object) -> str:
    """What names a row: some values are very long."""
    return str(parameter)[:40].encode("unicode_escape").decode()


def mistakes(text: str) -> tuple[ConfigError, ...]:
    with pytest.raises(ConfigErrors) as caught:
        config.parse(text, "c.toml")
    return caught.value.errors


def assert_told(mistake: ConfigError, line: int, words: str) -> None:
    assert (mistake.where or "").split(":")[:2] == ["c.toml", str(line)], mistake.message
    assert words in mistake.message
    assert mistake.remedy
    assert f"{mistake.message}{mistake.remedy}{mistake.where}".isprintable()
    assert len(mistake.message) < 300


ROWS = {**bad_files.SYNTAX, **bad_files.STRUCTURE, **bad_files.CONFLICTS}
WITHOUT_CR = {what: bad for what, bad in ROWS.items() if "\r" not in bad.text}


@pytest.mark.parametrize("bad", ROWS.values(), ids=ROWS)
def test_a_bad_file_is_one_mistake_with_its_line(bad: Bad) -> None:
    """One thing is wrong, and one thing is told, in one line."""
    (mistake,) = mistakes(bad.text)
    assert_told(mistake, bad.line, bad.words)


@pytest.mark.parametrize("bad", WITHOUT_CR.values(), ids=WITHOUT_CR)
def test_a_bad_file_is_as_bad_with_dos_line_ends(bad: Bad) -> None:
    """Lines are the same ones, however they end."""
    (mistake,) = mistakes(bad.text.replace("\n", "\r\n"))
    assert_told(mistake, bad.line, bad.words)


WRONG = [
    (key, value, row.words)
    for key, row in bad_files.KEYS.items()
    for value in dict.fromkeys(row.wrong)
]


@pytest.mark.parametrize(("key", "value", "words"), WRONG, ids=short)
def test_a_wrong_value_is_named_with_its_key(key: str, value: str, words: str) -> None:
    """Every type but the right ones, and the numbers beside the boundaries."""
    (mistake,) = mistakes(f"{bad_files.TUNNEL}{key} = {value}\n")
    assert_told(mistake, bad_files.LINE, words)
    assert re.match(rf'tunnel "fra1": {key}( = .*)?: ', mistake.message)


RIGHT = [(key, value) for key, row in bad_files.KEYS.items() for value in row.right]


@pytest.mark.parametrize(("key", "value"), RIGHT)
def test_a_value_at_the_boundary_is_right(key: str, value: str) -> None:
    """The smallest, the largest, and each word."""
    assert config.parse(f"{bad_files.TUNNEL}{key} = {value}\n", "c.toml").tunnels


@pytest.mark.parametrize("key", bad_files.LISTS)
@pytest.mark.parametrize("value", bad_files.ANY)
def test_what_is_no_list_is_named_with_its_key(key: str, value: str) -> None:
    """A single value is no list of one."""
    (mistake,) = mistakes(f"{bad_files.TUNNEL}{key} = {value}\n")
    assert_told(mistake, bad_files.LINE, "this is not a list")
    assert f": {key}" in mistake.message


ELEMENTS = [
    (key, value, words)
    for key, table in {
        "addresses": bad_files.NO_ADDRESSES,
        "routes": bad_files.NO_PREFIXES,
        "allowed_sources": bad_files.NO_PREFIXES,
    }.items()
    for words, values in table.items()
    for value in values
]


@pytest.mark.parametrize(("key", "value", "words"), ELEMENTS, ids=short)
def test_a_wrong_element_is_named_with_its_line(key: str, value: str, words: str) -> None:
    """The line is the element's own, and the others are not complained about."""
    good = '"10.7.0.0/16"' if key != "addresses" else '"10.7.0.1/16"'
    (mistake,) = mistakes(f"{bad_files.TUNNEL}{key} = [\n{good},\n{value},\n]\n")
    assert_told(mistake, bad_files.LINE + 2, words)
    assert mistake.message.startswith(f'tunnel "fra1": {key}')


TABLES = [
    *(("local", 5, bad_files.LOCAL, bad_files.NO_ENDPOINTS),),
    *(("remote", 6, bad_files.REMOTE, bad_files.NO_ENDPOINTS),),
    *(("name", 4, bad_files.NAME, bad_files.NO_NAMES),),
]
REQUIRED = [
    (key, line, old, value, words)
    for key, line, old, table in TABLES
    for words, values in table.items()
    for value in dict.fromkeys(values)
]


@pytest.mark.parametrize(("key", "line", "old", "value", "words"), REQUIRED, ids=short)
def test_a_wrong_name_or_end_is_named(
    key: str, line: int, old: str, value: str, words: str
) -> None:
    """What each tunnel must have is looked at as closely as the rest."""
    (mistake,) = mistakes(bad_files.TUNNEL.replace(old, f"{key} = {value}\n"))
    assert_told(mistake, line, words)
    assert f": {key}" in mistake.message


@pytest.mark.parametrize("value", bad_files.RIGHT_NAMES)
def test_an_odd_name_that_linux_takes_is_right(value: str) -> None:
    """Nothing is refused that only looks odd."""
    text = bad_files.TUNNEL.replace(bad_files.NAME, f"name = {value}\n")
    assert config.parse(text, "c.toml").tunnels[0].name


LISTENERS = [(value, words) for words, values in bad_files.NO_LISTENERS.items() for value in values]


@pytest.mark.parametrize(("value", "words"), LISTENERS, ids=short)
def test_a_wrong_listener_is_named(value: str, words: str) -> None:
    """The exporter listens at an address and a port, both checked."""
    (mistake,) = mistakes(f"\nexporter = {value}\n")
    assert_told(mistake, 2, words)
    assert mistake.message.startswith("exporter")


@pytest.mark.parametrize(
    ("content", "line", "words"), bad_files.BYTES.values(), ids=bad_files.BYTES
)
def test_bytes_that_are_no_text_are_one_mistake(
    tmp_path: Path, content: bytes, line: int, words: str
) -> None:
    """Other encodings are named as what they are, with the line where it shows."""
    file = tmp_path / "c.toml"
    file.write_bytes(content)
    (mistake,) = unreadable(file)
    assert mistake.where is not None
    assert mistake.where.removeprefix(f"{file}:").split(":")[0] == str(line)
    assert words in mistake.message


# --- large ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", bad_files.LARGE.values(), ids=bad_files.LARGE)
def test_a_large_bad_file_ends_soon(text: str) -> None:
    """Nothing takes time by the square of the file, and nobody is told a million mistakes."""
    start = time.monotonic()
    found = mistakes(text)
    assert time.monotonic() - start < LARGE_S
    assert 1 <= len(found) <= config.MAX_MISTAKES + 1
    assert all(mistake.where and ":" in mistake.where for mistake in found)


def test_what_is_not_told_is_counted() -> None:
    """Of very many mistakes the first ones are told, and how many follow from which line."""
    *told, last = mistakes("".join(f"a{n} = 1\n" for n in range(config.MAX_MISTAKES + 7)))
    assert len(told) == config.MAX_MISTAKES
    assert last.message == "7 more mistakes follow"
    assert last.where == f"c.toml:{config.MAX_MISTAKES + 1}"


@pytest.mark.parametrize(
    "text",
    [
        "".join(f"a{n} = 1\n" for n in range(1_100_000)),
        f"tunnel = [{'1,' * 1_100_000}]",
        f"{bad_files.TUNNEL}routes = [{'1,' * 1_100_000}]",
    ],
    ids=["keys", "tables", "elements"],
)
def test_more_than_anybody_means_is_not_looked_at(text: str) -> None:
    """A million mistakes would take gigabytes to note."""
    (mistake,) = mistakes(text)
    assert mistake.message == "the file holds more than 1000000 values"


def test_very_many_tunnels_are_read_soon() -> None:
    """20,000 tunnels with addresses and routes, and the one mistake among them."""
    tunnels = "".join(
        f'[[tunnel]]\nname = "t{n}"\nlocal = "192.0.2.1"\n'
        f'remote = "10.0.{n >> 8}.{n & 255}"\nkey = {n}\naddresses = ["fd00:{n:x}::1/64"]\n'
        f'routes = ["2001:db8:{n:x}::/48", "2001:db8:{n:x}:1::/64"]\n'
        for n in range(MANY_TUNNELS)
    )
    start = time.monotonic()
    assert len(config.parse(bad_files.PORT + tunnels, "c.toml").tunnels) == MANY_TUNNELS
    (mistake,) = mistakes(f"{bad_files.PORT}{tunnels}ttl = 0\n")
    assert time.monotonic() - start < LARGE_S
    assert mistake.where == f"c.toml:{2 + 7 * MANY_TUNNELS + 1}"


# --- what is no file ------------------------------------------------------------------------------


def unreadable(path: Path) -> tuple[ConfigError, ...]:
    with pytest.raises(ConfigErrors) as caught:
        config.load(path)
    return caught.value.errors


def _directory(path: Path) -> None:
    path.mkdir()


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _dangling(path: Path) -> None:
    path.symlink_to("nowhere")


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_directory, "is a directory"),
        (_loop, "too many levels of symbolic links"),
        (_dangling, "no such file"),
        (_socket, "neither a file nor a pipe"),
        (_device, "neither a file nor a pipe"),
    ],
)
def test_what_is_no_file_is_one_mistake(
    tmp_path: Path, make: Callable[[Path], None], words: str
) -> None:
    """It is not opened, as opening a device can have effects of its own."""
    path = tmp_path / "c.toml"
    make(path)
    (mistake,) = unreadable(path)
    assert words in mistake.message
    assert mistake.where == str(path)


def test_a_file_that_may_not_be_read_is_one_mistake(tmp_path: Path) -> None:
    """The kernel's own words."""
    path = tmp_path / "c.toml"
    path.touch(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)  # root may read everything
    try:
        (mistake,) = unreadable(path)
    finally:
        os.seteuid(user)
    assert "permission denied" in mistake.message


def test_a_name_that_no_terminal_shows_is_escaped(tmp_path: Path) -> None:
    """An error stays on its line, whatever the file is called."""
    path = tmp_path / "a\nb\x1b[31m.toml"
    path.write_text("a = 1\n")
    (mistake,) = unreadable(path)
    assert mistake.where == f"{str(path)!r}:1"


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """What a shell passes as <(command) is a file like another, also when it comes slowly."""
    pipe = tmp_path / "c.toml"
    os.mkfifo(pipe)

    def write() -> None:
        with pipe.open("w") as file:
            for piece in bad_files.TUNNEL.splitlines(keepends=True):
                file.write(piece)
                file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    found = config.load(pipe)
    writer.join()
    assert found == config.parse(bad_files.TUNNEL, "c.toml")


def test_a_pipe_that_nobody_writes_to_is_one_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for ever, whether nobody has it open or whoever has says nothing."""
    monkeypatch.setattr(config, "PIPE_WAIT_S", 0.05)
    pipe = tmp_path / "c.toml"
    os.mkfifo(pipe)
    (mistake,) = unreadable(pipe)
    assert "nobody wrote into this pipe" in mistake.message
    silent = os.open(pipe, os.O_RDWR)
    (mistake,) = unreadable(pipe)
    os.close(silent)
    assert "nobody wrote into this pipe" in mistake.message


def test_a_file_that_is_written_meanwhile_is_no_half_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody truncates it between two looks: half of a file may be valid, but is not meant."""
    path = tmp_path / "c.toml"
    path.write_text(bad_files.TUNNEL)
    real = os.fstat

    def fstat(descriptor: int) -> os.stat_result:
        found = real(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_size > len(bad_files.PORT):
            os.truncate(path, len(bad_files.PORT))
        return found

    monkeypatch.setattr(os, "fstat", fstat)
    (mistake,) = unreadable(path)
    monkeypatch.undo()
    assert "somebody was writing it meanwhile" in mistake.message
    assert len(config.load(path).interfaces) == 1


def test_a_file_that_is_replaced_all_the_time_is_always_one_of_them(tmp_path: Path) -> None:
    """A reader never sees a mixture of what editors put in its place."""
    path, new = tmp_path / "c.toml", tmp_path / "new.toml"
    texts = [bad_files.TUNNEL, f"{bad_files.TUNNEL}{bad_files.SECOND}" + "# x\n" * 50_000]
    allowed = [config.parse(text, "c.toml") for text in texts]
    path.write_text(texts[0])
    stop = threading.Event()

    def replace() -> None:
        while not stop.is_set():
            for text in texts:
                new.write_text(text)
                new.replace(path)

    writer = threading.Thread(target=replace)
    writer.start()
    try:
        found = [config.load(path) for _ in range(100)]
    finally:
        stop.set()
        writer.join()
    assert all(one in allowed for one in found)


def test_a_pipe_is_not_edited(tmp_path: Path) -> None:
    """What cannot be put back in its place is not taken out of it."""
    pipe = tmp_path / "c.toml"
    os.mkfifo(pipe)
    with (
        pytest.raises(errors.HostError, match="a pipe cannot be edited"),
        config_file.editing(pipe),
    ):
        pass
