"""The configuration file: its example, its mistakes and their lines, and no traceback ever."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # it has no types
import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from gre_xdp import config as config_file
from gre_xdp.errors import ConfigError, ConfigErrors
from gre_xdp.model import Config, Interface, Tunnel
from gre_xdp.toml_lines import Locator
from gre_xdp.values import Loc
from strategies import configs

EXAMPLE = """\
unknown_gre = "drop"
bypass_firewall = false
drift = "repair"
exporter = "127.0.0.1:9747"

[[interface]]
name = "eth0"
mode = "native"

[[tunnel]]
name = "fra1"
local = "192.0.2.1"
remote = "198.51.100.7"
backing = "veth"
payload = "ip"
key = 77
csum = false
seq = false
ttl = 64
tos = "inherit"
pmtudisc = true
mtu = "auto"
mss_clamp = true
addresses = ["169.254.10.1/30", "fd00:10::1/64"]
routes = ["10.20.0.0/16", "2001:db8:20::/48"]
allowed_sources = []
"""
PORT = '[[interface]]\nname = "eth0"\n'
ENDS = 'local = "192.0.2.1"\nremote = "198.51.100.7"\n'
FRA1 = f'[[tunnel]]\nname = "fra1"\n{ENDS}'


def mistakes(text: str) -> list[ConfigError]:
    with pytest.raises(ConfigErrors) as caught:
        config_file.parse(text, "c.toml")
    return list(caught.value.errors)


def told(text: str) -> list[tuple[str | None, str]]:
    return [(mistake.where, mistake.message) for mistake in mistakes(text)]


def test_the_documented_example_is_read() -> None:
    """Every documented key has its documented meaning."""
    config = config_file.parse(EXAMPLE, "c.toml")
    assert config.unknown_gre == "drop"
    assert config.interfaces == (Interface(name="eth0"),)
    (tunnel,) = config.tunnels
    assert (tunnel.ikey, tunnel.okey) == (77, 77)
    assert [str(address) for address in tunnel.addresses] == ["169.254.10.1/30", "fd00:10::1/64"]
    assert [str(route) for route in tunnel.routes] == ["10.20.0.0/16", "2001:db8:20::/48"]


def test_a_file_is_read_as_its_text_is(tmp_path: Path) -> None:
    """A byte order mark and DOS line ends, which editors add, mean nothing."""
    file = tmp_path / "config.toml"
    file.write_bytes(b"\xef\xbb\xbf" + EXAMPLE.replace("\n", "\r\n").encode())
    assert config_file.load(file) == config_file.parse(EXAMPLE, "c.toml")


@pytest.mark.parametrize("text", ["", "\n", "# nothing\n", "interface = []\ntunnel = []"])
def test_an_empty_file_is_valid(text: str) -> None:
    """A host may be asked to have no tunnels."""
    assert config_file.parse(text, "c.toml") == Config()


# What is written after the first line, on which line it is wrong, the message, the remedy.
MISTAKES: list[tuple[str, int, str, str]] = [
    (
        'colour = "red"',
        2,
        'colour = "red": there is no such key here',
        "remove it; the keys here are unknown_gre, bypass_firewall, drift, exporter, interface,"
        " tunnel",
    ),
    ('drfit = "repair"', 2, 'drfit = "repair": there is no such key here', "write drift"),
    ('mode = "skb"', 2, 'mode = "skb": there is no such key here', "move it below a [[interface]]"),
    ("[[tunel]]\nname = 1", 2, "tunel: there is no such key here", "write tunnel"),
    ("[[tunnels]]", 2, "tunnels: there is no such key here", "write tunnel"),
    (
        "[offload]\ndevices = []",
        2,
        "offload: there is no such key here",
        "remove it; the keys here",
    ),
    (
        f"{PORT}{FRA1}remot = 1",
        8,
        'tunnel "fra1": remot = 1: there is no such key here',
        "write remote",
    ),
    (
        f'{PORT}{FRA1}drift = "repair"',
        8,
        'tunnel "fra1": drift = "repair": there is no such key here',
        "move it to the top of the file, above the first [[interface]] or [[tunnel]]",
    ),
    (f"{PORT}{FRA1}both_key = 1", 8, 'tunnel "fra1": both_key = 1: there is no such', "write"),
    (
        f'{PORT}[[tunnel]]\nname = "fra1"\nlocal = "192.0.2.1"\nremote = "fd00::1"',
        7,
        'tunnel "fra1": remote = "fd00::1": this is IPv6, but local = 192.0.2.1 is IPv4',
        "write local and remote of one family",
    ),
    (
        f'{PORT}\n{FRA1}\n[[tunnel]]\nname = "fra2"\n{ENDS}',
        13,
        'tunnel "fra2": remote = "198.51.100.7": tunnel "fra1" has the same local and remote, and'
        " the same ikey or also none, so only one of the two could receive (line 8)",
        "give each a key of its own, here and at the peer, or remove one",
    ),
    (
        f'{PORT}{FRA1}routes = [\n  "10.0.0.0/8", # ]\n  "10.20.0.1/16",\n]',
        10,
        'tunnel "fra1": routes = "10.20.0.1/16": bits are set beyond the prefix length',
        'write "10.20.0.0/16"',
    ),
    (
        f'{PORT}{FRA1}backing = "kernel"',
        8,
        'tunnel "fra1": backing = "kernel": this backing is not supported yet by this version',
        'write "veth"',
    ),
    (
        f"{PORT}{FRA1}mtu_probe = true",
        8,
        'tunnel "fra1": mtu_probe = true: this sends IPv6 packets to the tunnel itself, which has'
        " no IPv6 address that the remote could route",
        'add one to addresses, like "fd00:10::1/64"',
    ),
    (
        f'{PORT}{FRA1}payload = "ethernet"\nmtu_probe = true',
        9,
        'tunnel "fra1": mtu_probe = true: this asks whether IPv6 packets pass, and an Ethernet'
        " tunnel carries frames",
        "remove it",
    ),
    (
        f'{PORT}{FRA1}payload = "ethernet"\nallowed_sources = ["10.0.0.0/8"]',
        9,
        'tunnel "fra1": allowed_sources: an Ethernet tunnel carries frames, whose IP sources are'
        " not looked at",
        'remove this and filter at the bridge, or set payload = "ip"',
    ),
    (
        f'{PORT}[[tunnel]]\nname = "fra1"\nlocal = "fe80::1"\nremote = "2001:db8::2"',
        6,
        'tunnel "fra1": local = "fe80::1": a link-local address cannot be an end of a tunnel',
        "write a unicast address of the underlay",
    ),
    (
        f'{PORT}[[tunnel]]\nname = "fra1"\nlocal = "2001:db8::1"\nremote = "::ffff:192.0.2.1"',
        7,
        'tunnel "fra1": remote = "::ffff:192.0.2.1": an IPv4-mapped address cannot be an end of a'
        " tunnel",
        "write a unicast address of the underlay",
    ),
    (
        FRA1,
        2,
        "tunnel: there is no [[interface]] where XDP could meet the packets of tunnels",
        "add an [[interface]] with the name of the underlay's device",
    ),
    (f"{PORT}[[interface]]", 4, "interface number 2: name is missing", "add name = …"),
    ("bypass_firewall = 1", 2, "bypass_firewall = 1: this is neither true nor false", "write true"),
    (
        'unknown_gre = "log"',
        2,
        'unknown_gre = "log": this is none of its values',
        'write "drop" or "pass"',
    ),
    (
        f'{PORT}mode = "generic"',
        4,
        'interface "eth0": mode = "generic": this is none of its values',
        'write "native" or "skb"',
    ),
    (
        f'{PORT}{FRA1}routes = "::/0"',
        8,
        'tunnel "fra1": routes = "::/0": this is not a list',
        'write routes = ["…", "…"]',
    ),
    (
        '[interface]\nname = "eth0"',
        2,
        "interface: this is not an array of tables",
        "write [[interface]], two brackets",
    ),
    ("interface = [7]", 2, "interface number 1: this is not a table", "write [[interface]] and"),
    ('interface = [{ name = "lo" }]', 2, 'interface "lo": name = "lo": this name has', "choose"),
    (f'"a\\nb" = "{"x" * 99}"', 2, f'"a\\nb" = "{"x" * 59}…: there is no such key', "remove it"),
    (f"drift = 0x{'f' * 9999}", 2, f"drift = 0x{'f' * 58}…: this is none of its values", "write"),
    ("drift = 2024-01-01", 2, "drift = 2024-01-01: this is none of its values", "write"),
]


@pytest.mark.parametrize(("text", "line", "message", "remedy"), MISTAKES)
def test_a_mistake_names_place_key_value_and_remedy(
    text: str, line: int, message: str, remedy: str
) -> None:
    """One mistake is one error, in plain words."""
    (mistake,) = mistakes(f"# a configuration\n{text}\n")
    assert mistake.where == f"c.toml:{line}"
    assert mistake.message.startswith(message)
    assert mistake.remedy.startswith(remedy)


def test_all_mistakes_are_told_at_once() -> None:
    """Wrong keys do not hide conflicts between tables, and lines are in order."""
    text = f"""\
drift = "fix"
[[interface]]
name = "eth0"
mod = "skb"
[[tunnel]]
name = "fra1"
{ENDS}ttl = 0
tos = 999
[[tunnel]]
name = "fra2"
{ENDS}[[tunnel]]
name = "eth0"
remote = "::1"
"""
    assert [(where, message.partition(":")[0]) for where, message in told(text)] == [
        ("c.toml:1", 'drift = "fix"'),
        ("c.toml:4", 'interface "eth0"'),
        ("c.toml:9", 'tunnel "fra1"'),
        ("c.toml:10", 'tunnel "fra1"'),
        ("c.toml:14", 'tunnel "fra2"'),  # overlaps fra1 in spite of what is wrong with fra1
        ("c.toml:15", 'tunnel "eth0"'),
        ("c.toml:17", 'tunnel "eth0"'),
    ]


@pytest.mark.parametrize("line", ["key = -1", "ikey = 'x'", "key = 1\nikey = 1"])
def test_a_tunnel_with_a_wrong_key_is_compared_with_none(line: str) -> None:
    """What the key was meant to be is unknown, so that no overlap is claimed."""
    (mistake,) = mistakes(f'{PORT}{FRA1}[[tunnel]]\nname = "fra2"\n{ENDS}{line}\n')
    assert 'tunnel "fra2"' in mistake.message
    assert "key" in mistake.message


SYNTAX: list[tuple[str, str, str]] = [
    ('a = "x\n', "c.toml:1:7", "illegal character '\\n'"),
    ("a = 1\n\n= 2", "c.toml:3:1", "invalid statement"),
    ("a = 1\na = 2\n", "c.toml:2:6", "cannot overwrite a value"),
    ("[interface]\n[interface]", "c.toml:2:11", "cannot declare interface twice"),
    ("\n\na = [1,", "c.toml:3", "invalid value"),
    ("\x00", "c.toml:1:1", "invalid statement"),
]


@pytest.mark.parametrize(("text", "where", "words"), SYNTAX)
def test_a_syntax_error_names_line_and_column(text: str, where: str, words: str) -> None:
    """At the end of the text there is a line only."""
    assert told(text) == [(where, f"this is not TOML: {words}")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"a = {'[' * 10**5}", "nested too deeply"),
        (f"a = {'1' * 10**4}", "out of range"),
    ],
)
def test_what_only_python_cannot_hold_is_one_error(text: str, words: str) -> None:
    """Limits of the interpreter are not tracebacks."""
    ((where, message),) = told(text)
    assert where == "c.toml:1"
    assert words in message


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        (config_file.MAX_KEY_PARTS, "a: there is no such key here"),
        (2 * sys.getrecursionlimit(), "a key has more than 50 parts"),
    ],
)
def test_a_deep_dotted_key_is_one_mistake(parts: int, message: str) -> None:
    """A value is never walked deeper than the model knows."""
    assert told(f"{'.'.join('a' * parts)} = 1") == [("c.toml:1", message)]


@pytest.mark.parametrize(
    ("content", "where", "words"),
    [
        (None, "", "no such file"),
        (b"\n\n\xff\n", ":3", "not UTF-8"),
        (b"#" * (config_file.MAX_BYTES + 1), "", "longer than 16 MiB"),
    ],
    ids=["missing", "not UTF-8", "too large"],
)
def test_an_unreadable_file_is_one_error(
    tmp_path: Path, content: bytes | None, where: str, words: str
) -> None:
    """The file is named, and the line where there is one."""
    file = tmp_path / "config.toml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigErrors) as caught:
        config_file.load(file)
    (mistake,) = caught.value.errors
    assert mistake.where == f"{file}{where}"
    assert words in mistake.message


@pytest.mark.parametrize("path", [Path("/"), Path("/dev/null/config.toml"), Path("a\0b")])
def test_what_is_no_file_is_one_error(path: Path) -> None:
    """A directory, a file that is taken for a directory, and no path at all."""
    with pytest.raises(ConfigErrors) as caught:
        config_file.load(path)
    assert len(caught.value.errors) == 1


# --- lines ----------------------------------------------------------------------------------------

TRICKY = '''\
# [[tunnel]]
top = """
[[tunnel]]
name = 1 \\""""  # three and one
lit = \'\'\'
[x]
a = "\'\'\'
"quoted key" = 1
a . "b.c" . d = 1
[[ tunnel ]] # [[interface]]
  name = "# = ["   # comment
"local" = [ # [
  { x = 1 }, [ 2,
  3 ],
  "]", # ,
  4 ] # ]
inline = { a = 1, b = [1, 2] }
[tunnel.sub]
k = 1
[[tunnel.deep]]
k = 2
[[tunnel.deep]]
k = 3
\t[["tunnel"]]\r
name = 1979-05-27 07:32:00\r
[plain]
x = 1.5
y = 0x10'''

LINES: list[tuple[Loc, int]] = [
    ((), 1),
    (("top",), 2),
    (("lit",), 5),
    (("x",), 1),
    (("quoted key",), 8),
    (("a",), 9),
    (("a", "b.c", "d"), 9),
    (("tunnel",), 10),
    (("tunnel", 0), 10),
    (("tunnel", 0, "name"), 11),
    (("tunnel", 0, "local"), 12),
    (("tunnel", 0, "local", 0), 13),
    (("tunnel", 0, "local", 0, "x"), 13),
    (("tunnel", 0, "local", 1), 13),
    (("tunnel", 0, "local", 1, 1), 14),
    (("tunnel", 0, "local", 2), 15),
    (("tunnel", 0, "local", 3), 16),
    (("tunnel", 0, "inline", "b"), 17),
    (("tunnel", 0, "missing"), 10),
    (("tunnel", 0, "sub", "k"), 19),
    (("tunnel", 0, "deep", 0, "k"), 21),
    (("tunnel", 0, "deep", 1, "k"), 23),
    (("tunnel", 1), 24),
    (("tunnel", 1, "name"), 25),
    (("plain", "x"), 27),
    (("plain", "y"), 28),
    (("nowhere", 3), 1),
]


@pytest.mark.parametrize(("path", "line"), LINES)
def test_the_locator_finds_the_line_of_a_path(path: Loc, line: int) -> None:
    """Strings, comments and brackets do not lead astray; what is absent is where it would be."""
    assert Locator(TRICKY).line(path) == line


@given(configs())
def test_the_locator_finds_every_key_that_is_written(config: Config) -> None:
    """The line of a tunnel's key begins with that key."""
    text = config_file.dump(config)
    lines = text.split("\n")
    locator = Locator(text)
    for n, table in enumerate(tomlkit.parse(text).get("tunnel", [])):
        for key in table:
            assert lines[locator.line(("tunnel", n, key)) - 1].startswith(f"{key} = ")


# --- any input ------------------------------------------------------------------------------------

KEYS = [
    *["unknown_gre", "bypass_firewall", "drift", "exporter", "interface", "tunnel"],
    *["name", "mode", "local", "remote", "backing", "payload", "key", "ikey", "okey", "csum"],
    *["icsum", "seq", "oseq", "ttl", "tos", "mtu", "mss_clamp", "addresses", "routes", "x y"],
]
FRAGMENTS = ["[[tunnel]]\n", "[tunnel]\n", "\n", '"', "'''", '"""', "[", "]", "{", "=", ".", "#"]
FRAGMENTS += [
    "\\u0000",
    "true",
    "-1",
    "inf",
    "{a=1}",
    "198.51.100.7",
    "\r",
    *(f"{k}=" for k in KEYS),
]


def assert_plain(error: ConfigErrors, source: str, lines: int) -> None:
    """Every error is in our own words and points into the text."""
    for mistake in error.errors:
        told_text = f"{mistake.message} {mistake.remedy}"
        assert not re.search(r"Input should|\[type=|https?://|pydantic|Traceback", told_text)
        assert mistake.remedy
        assert mistake.where is not None
        place = mistake.where.removeprefix(source).lstrip(":").partition(":")[0]
        assert 1 <= int(place or 1) <= lines


def try_to_parse(text: str) -> None:
    try:
        config_file.parse(text, "c.toml")
    except ConfigErrors as error:
        assert_plain(error, "c.toml", text.count("\n") + 1)


@given(configs())
def test_dump_and_parse_are_inverse(config: Config) -> None:
    """A configuration that is written and read again is equal."""
    assert config_file.parse(config_file.dump(config), "c.toml") == config


@given(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8")))
def test_any_bytes_are_a_configuration_or_errors(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    """Nothing but ConfigErrors comes out of a file."""
    file = tmp_path_factory.getbasetemp() / "any.toml"
    file.write_bytes(content)
    try:
        config_file.load(file)
    except ConfigErrors as error:
        assert_plain(error, str(file), content.count(b"\n") + 1)


@given(configs(max_tunnels=3), st.data())
def test_a_damaged_configuration_is_a_configuration_or_errors(
    config: Config, data: st.DataObject
) -> None:
    """Cuts and insertions anywhere in a valid text give nothing but ConfigErrors."""
    text = config_file.dump(config)
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(text)))
        cut = data.draw(st.integers(0, 30))
        piece = data.draw(st.sampled_from(FRAGMENTS) | st.text(max_size=5))
        text = f"{text[:start]}{piece}{text[start + cut :]}"
    try_to_parse(text)


_scalars = (
    st.booleans()
    | st.integers()
    | st.integers(0, 255)
    | st.floats()
    | st.text(st.characters(codec="utf-8"), max_size=20)
    | st.datetimes()
    | st.ip_addresses().map(str)
    | st.sampled_from(["eth0", "fra1", "192.0.2.1/0", "198.51.100.7/32", "inherit", "gx-1"])
)
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner)
)
_tables = st.dictionaries(st.sampled_from(KEYS), _values, max_size=8)


@given(
    _tables,
    st.dictionaries(st.sampled_from(["interface", "tunnel"]), st.lists(_tables, max_size=4)),
)
def test_any_values_under_known_keys_are_a_configuration_or_errors(
    top: dict[str, Any], arrays: dict[str, Any]
) -> None:
    """Values of every TOML type anywhere give nothing but ConfigErrors."""
    try_to_parse(tomlkit.dumps({**top, **arrays}))


# --- schema ---------------------------------------------------------------------------------------


def test_the_schema_describes_every_key_of_every_table() -> None:
    """The JSON Schema has the keys of the file, each with one sentence, and no others."""
    schema = config_file.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    for table in (schema, schema["$defs"]["Interface"], schema["$defs"]["Tunnel"]):
        assert table["additionalProperties"] is False
        assert all(entry["description"].endswith(".") for entry in table["properties"].values())
    assert set(schema["properties"]) == {
        *("unknown_gre", "bypass_firewall", "drift", "exporter", "interface", "tunnel")
    }
    names = {field.alias or name for name, field in Tunnel.model_fields.items()}
    assert set(schema["$defs"]["Tunnel"]["properties"]) == names
    assert schema["$defs"]["Tunnel"]["required"] == ["name", "local", "remote"]


SCHEMA = jsonschema.Draft202012Validator(config_file.json_schema())


def test_the_schema_accepts_the_documented_example() -> None:
    """An editor with the schema shows no error in a right file."""
    SCHEMA.validate(tomlkit.parse(EXAMPLE).unwrap())


@given(configs())
def test_the_schema_accepts_any_valid_configuration(config: Config) -> None:
    """The schema is never stricter than the model."""
    SCHEMA.validate(tomlkit.parse(config_file.dump(config)).unwrap())


@pytest.mark.parametrize("line", ["key = 1\nikey = 1", "keyy = 1", "ttl = 0", "mss_clamp = 7"])
def test_the_schema_refuses_what_it_can_see(line: str) -> None:
    """Excluded pairs, unknown keys and ranges are in the schema too."""
    assert not SCHEMA.is_valid(tomlkit.parse(f"{PORT}{FRA1}{line}\n").unwrap())
