"""Any configuration file whatever, many of them: ``--files`` says how many, ``--seed`` which."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter
from pathlib import Path
from random import Random, SystemRandom

import pytest

from bad_files import TUNNEL
from config_mutations import Mutator
from gre_xdp import config
from gre_xdp.errors import ConfigError, ConfigErrors
from gre_xdp_cli.main import cli

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
SEEDS = (
    *(path.read_text() for path in sorted((ROOT / "contrib").glob("*.toml"))),
    *re.findall(r"^```toml\n(.*?)^```", README, re.DOTALL | re.MULTILINE),
    config.dump(config.parse(f"{TUNNEL}key = 7\nroutes = ['10.0.0.0/8']", "c.toml")),
)
# Of so many files is one given to the command, too.
COMMAND = 10
# What a mistake is called here: words of its message.
KINDS = {
    "not UTF-8": "the file is not UTF-8 text",
    "not TOML": "this is not TOML: ",
    "unknown key": "there is no such key here",
    "missing key": " is missing",
    "not a table": "this is not a table",
    "not an array of tables": "this is not an array of tables",
    "not a list": "this is not a list",
    "not a boolean": "this is neither true nor false",
    "not a word": "this is none of its values",
    "not a number": "this is neither a whole number",
    "not a key": "a key is a whole number",
    "not a name": "a device name is",
    "not a name for Linux": "Linux takes no such device name",
    "not an address": "this is not an IP address",
    "not a prefix": "this is not an IP prefix",
    "not an end": "cannot be an end of a tunnel",
    "bits beyond": "bits are set beyond the prefix length",
    "two families": "but local = ",
    "both and one direction": "has set both directions",
    "twice": "already",
    "one pair of ends": "the same local and remote",
    "a loop": "would be routed into",
    "no interface": "there is no [[interface]]",
    "not a listener": "this does not end in a colon and a port",
    "not yet": "not supported yet",
}
# So many meet every kind.
FILES_FOR_ALL = 10_000
VALID = "valid"
# Mistakes of the whole file, or of its text before it means anything.
NO_KEY = re.compile("the file is |this is not TOML: |a value is nested|a number or|a key has more")
SUBJECT = re.compile(
    r'(?:(?:tunnel|interface) (?:number \d+|"(?:[^"\\]|\\.)*(?:"|\\?…))(?:: |$| ))?(.*)'
)
KEY = re.compile(r'("(?:[^"\\]|\\.)*"|[\w-]+)(?: = .*?)?: |([\w-]+) is missing')


def judge(raw: bytes) -> list[str]:
    """The kinds of what is wrong with a file, and that it is told as it has to be."""
    try:
        text = config.decode(raw, "c.toml")
        found = config.parse(text, "c.toml")
    except ConfigErrors as errors:
        lines = raw.decode("utf-8", "replace").splitlines() or [""]
        return [judge_mistake(mistake, raw, lines) for mistake in errors.errors]
    assert config.parse(config.dump(found), "c.toml") == found
    return [VALID]


def judge_mistake(mistake: ConfigError, raw: bytes, lines: list[str]) -> str:
    """The kind of a mistake, which names its line, its key if it is about one, and a remedy."""
    message, where = mistake.message, mistake.where or ""
    place = re.fullmatch(r"c\.toml:(\d+)(?::(\d+))?", where)
    assert place, where
    line = int(place[1])
    assert 1 <= line <= raw.count(b"\n") + 1
    assert message
    assert mistake.remedy
    for told in (message, mistake.remedy):
        assert told.isprintable()
        assert len(told) < 500
        assert not re.search(r"Input should|\[type=|pydantic|Traceback|Error\b|object at 0x", told)
    if not NO_KEY.match(message):
        assert_names_key(message, lines[:line])
    kinds = [kind for kind, words in KINDS.items() if words in message]
    return kinds[0] if kinds else "something else"


def assert_names_key(message: str, lines: list[str]) -> None:
    """The key stands on the line; of an array, an inline table or a missing key above it."""
    subject = SUBJECT.fullmatch(message)
    assert subject, message
    key = KEY.match(subject[1])
    if key is None:
        assert subject[1].startswith("this is not a table"), message
        return
    if key[2]:
        assert re.search(r"\[|\{", lines[-1]), message
        return
    name = key[1]
    if name[0] == '"' and ("\\" in name or "…" in message):
        return  # it is not written as the message has it
    name = name.strip('"')
    above = [n for n, line in enumerate(lines) if name in line]
    assert above, message
    is_here = above[-1] == len(lines) - 1
    assert is_here or re.search(r"\[|\{|'''|\"\"\"", "".join(lines[above[-1] :])), message


def run(files: int, seed: int | None) -> Counter[str]:
    """Judge so many files; returns how often each kind was met."""
    seed = SystemRandom().getrandbits(32) if seed is None else seed
    sys.stdout.write(f"\n{files} files, --seed {seed}\n")
    mutator, met = Mutator(SEEDS, Random(seed)), Counter[str]()  # noqa: S311 - not for secrets
    for number in range(files):
        raw = mutator.file()
        try:
            met.update(set(judge(raw)))
        except BaseException as problem:
            problem.add_note(f"file {number} of --seed {seed}: {raw!r}")
            raise
    return met


@pytest.mark.timeout(3600)
def test_any_file(pytestconfig: pytest.Config) -> None:
    """A configuration that survives being written, or mistakes in plain words with their places."""
    files = pytestconfig.getoption("--files")
    met = run(files, pytestconfig.getoption("--seed"))
    sys.stdout.write("".join(f"{count:8} {kind}\n" for kind, count in met.most_common()))
    if files >= FILES_FOR_ALL:
        assert met.keys() >= {VALID, *KINDS}


def test_a_seed_makes_the_same_files() -> None:
    """What has failed once can be had again."""

    def first(seed: int) -> list[bytes]:
        mutator = Mutator(SEEDS, Random(seed))  # noqa: S311 - not for secrets
        return [mutator.file() for _ in range(300)]

    assert first(7) == first(7) != first(8)


@pytest.mark.timeout(3600)
def test_any_file_for_the_command(
    pytestconfig: pytest.Config, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """`gre-xdp check` ends with 0 or 1, says the same in JSON, and nothing else."""
    seed = pytestconfig.getoption("--seed") or 1
    mutator, path = Mutator(SEEDS, Random(seed)), tmp_path / "c.toml"  # noqa: S311 - not for secrets
    for number in range(pytestconfig.getoption("--files") // COMMAND):
        raw = mutator.file()
        path.write_bytes(raw)
        try:
            judge_command(path, capfd)
        except BaseException as problem:
            problem.add_note(f"file {number} of --seed {seed}: {raw!r}")
            raise


def judge_command(path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    code, out, err = check(path, capfd)
    json_code, json_out, json_err = check(path, capfd, "-j")
    assert code == json_code
    assert "Traceback" not in out + err + json_out + json_err
    result = json.loads(json_out)
    assert result["file"] == str(path)
    if code == 0:
        assert (err, json_err, result["errors"]) == ("", "", [])
        assert out.endswith("no mistakes\n")
        return
    assert code == 1
    assert out == ""
    error = json.loads(json_err)["error"]
    assert error["code"] == "config"
    assert error["errors"] == result["errors"]
    assert error == {**result["errors"][0], "errors": result["errors"]}
    # Three lines for each: what, where, remedy.
    told = err.splitlines()
    assert len(told) == 3 * len(result["errors"])
    for n, mistake in enumerate(result["errors"]):
        assert told[3 * n] == f"error: {mistake['message']}"
        assert told[3 * n + 1] == f"  where: {mistake['where']}"
        assert told[3 * n + 2] == f"  remedy: {mistake['remedy']}"


def check(path: Path, capfd: pytest.CaptureFixture[str], *options: str) -> tuple[object, str, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(["check", *options, str(path)])
    return ended.value.code, *capfd.readouterr()
