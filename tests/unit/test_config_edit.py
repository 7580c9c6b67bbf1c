"""Edits of tunnels in a configuration's text: what changes is asked for, and nothing else does."""

from __future__ import annotations

import re
from ipaddress import ip_interface, ip_network
from itertools import count
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from gre_xdp import config, config_edit
from gre_xdp.config_edit import Change, Value
from gre_xdp.errors import ConfigError
from gre_xdp.model import Config, Tunnel
from strategies import configs, device_names, keys

ROOT = Path(__file__).resolve().parents[2]
SITE = """\
# Frankfurt
unknown_gre = "drop"   # floods end here

[[interface]]
name = "eth0" # underlay

# To Amsterdam.
[[tunnel]]
name   = "ams1"
local  = '192.0.2.1'     # ours
remote = "198.51.100.7"
# agreed on the phone
key    = 77              # with Amsterdam
routes = [
    "10.2.0.0/16",       # LAN
    "10.3.0.0/16"        # guests
]
# mtu = 1400

# To Paris.
[[tunnel]]
  name = "par1"
  local = "192.0.2.1"
  remote = "198.51.100.8"
  csum = true
  addresses = ["169.254.10.5/30", "fd00:10::5/64"]

# The LAN.
[[interface]]
name = "eth1"
"""
PARIS = SITE[SITE.index("# To Paris.") : SITE.index("# The LAN.")]
AMSTERDAM = SITE[SITE.index("# To Amsterdam.") : SITE.index("# To Paris.")]
ENDS = {"local": "192.0.2.1", "remote": "203.0.113.9"}


def changed(name: str, values: dict[str, Value | None], **lists: list[tuple[str, str]]) -> str:
    text = config_edit.change(SITE, name, Change(values, **lists), "site.toml")
    config.parse(text, "site.toml")
    return text


# --- single edits ---------------------------------------------------------------------------------


def test_a_tunnel_is_added_behind_the_last_one() -> None:
    """In the order of the documentation, indented like its neighbour, before what follows."""
    change = Change(
        {"okey": 8, "pmtudisc": False, **ENDS, "ttl": "inherit"},
        added=[("routes", "10.9.0.0/16"), ("routes", "::/0")],
    )
    new = """
[[tunnel]]
  name = "ber1"
  local = "192.0.2.1"
  remote = "203.0.113.9"
  okey = 8
  ttl = "inherit"
  pmtudisc = false
  routes = ["10.9.0.0/16", "::/0"]
"""
    text = config_edit.add(SITE, "ber1", change, "site.toml")
    assert text == SITE.replace("\n# The LAN.", f"{new}\n# The LAN.")
    assert config_edit.names(text, "site.toml") == ["ams1", "par1", "ber1"]


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "TABLE\n"),
        ("\n\n", "TABLE\n\n\n\n"),
        ("# only this\n", "# only this\n\nTABLE\n"),
        ("drift = 'report'", "drift = 'report'\n\nTABLE"),
        ("drift = 'report'\r\n", "drift = 'report'\r\n\r\nTABLE\r\n"),
        ('[[tunnel]]\nname = "a"\n# c\n', '[[tunnel]]\nname = "a"\n# c\n\nTABLE\n'),
        ('[[tunnel]]\nname = "a"\n\n\n', '[[tunnel]]\nname = "a"\n\nTABLE\n\n\n'),
        (
            '[[tunnel]]\nname = "a"\n# of eth0\n[[interface]]\n',
            '[[tunnel]]\nname = "a"\n\nTABLE\n# of eth0\n[[interface]]\n',
        ),
    ],
)
def test_where_a_tunnel_is_added(before: str, after: str) -> None:
    """A blank line is before it, and the file ends as it ended; del brings it back to the byte."""
    newline = "\r\n" if "\r" in before else "\n"
    table = newline.join(["[[tunnel]]", 'name = "new"', "key = 1"])
    text = config_edit.add(before, "new", Change({"key": 1}), "f")
    assert text == after.replace("TABLE", table)
    assert config_edit.remove(text, "new", "f") == before


def test_an_empty_array_of_tunnels_makes_room() -> None:
    """``tunnel = []`` forbids [[tunnel]], so it goes."""
    text = 'tunnel = [] # none\ndrift = "report"\n'
    assert config_edit.add(text, "a", Change(), "f") == (
        'drift = "report"\n\n[[tunnel]]\nname = "a"\n'
    )


@pytest.mark.parametrize(
    ("name", "values", "old", "new"),
    [
        ("ams1", {"remote": "198.51.100.9"}, '"198.51.100.7"\n', '"198.51.100.9"\n'),
        ("ams1", {"key": 78}, "key    = 77 ", "key    = 78 "),
        ("ams1", {"key": "0.0.0.78"}, "key    = 77 ", 'key    = "0.0.0.78" '),
        ("ams1", {"key": None}, "key    = 77              # with Amsterdam\n", ""),
        ("ams1", {"ikey": 5}, "# agreed", "ikey = 5\n# agreed"),
        ("ams1", {"okey": None}, "key    = 77", "ikey    = 77"),
        ("ams1", {"ttl": 9}, "# with Amsterdam\n", "# with Amsterdam\nttl = 9\n"),
        ("ams1", {"mss_clamp": True}, "# with Amsterdam\n", "# with Amsterdam\nmss_clamp = true\n"),
        ("par1", {"csum": None}, "  csum = true\n", ""),
        ("par1", {"icsum": None}, "  csum = true\n", "  ocsum = true\n"),
        ("par1", {"seq": True}, "  csum = true\n", "  csum = true\n  seq = true\n"),
        ("par1", {"name": "cdg1"}, '"par1"', '"cdg1"'),
        # Nothing to do.
        ("ams1", {"local": "192.0.2.1", "ikey": 77, "okey": 77, "icsum": None}, "", ""),
        ("par1", {"csum": True, "icsum": True, "key": None, "iseq": None}, "", ""),
    ],
)
def test_a_value_is_changed_in_its_place(
    name: str, values: dict[str, Value | None], old: str, new: str
) -> None:
    """Only that value or line is another one: comments and alignment stay."""
    expected = SITE.replace(old, new, 1) if old else SITE
    if values == {"ikey": 5}:
        expected = SITE.replace("key    = 77", "okey    = 77").replace(
            '"198.51.100.7"\n', '"198.51.100.7"\nikey = 5\n'
        )
    assert changed(name, values) == expected


def test_both_directions_take_the_place_of_one() -> None:
    """The key of both stands where the first of ikey and okey stood, with its comment."""
    text = '[[tunnel]]\nname = "a"\nokey = 5 # out\nikey = 6\n'
    assert config_edit.change(text, "a", Change({"key": 7}), "f") == (
        '[[tunnel]]\nname = "a"\nkey = 7 # out\n'
    )


LISTS = [
    ("[]", "+b", '["b"]'),
    ("[ ]", "+b", '["b" ]'),
    ('["a"]', "+b", '["a", "b"]'),
    ('["a",]', "+b", '["a", "b",]'),
    ('["a"]', "+a", '["a"]'),
    ('[\n  "a"\n]', "+b", '[\n  "a",\n  "b"\n]'),
    ('[\n  "a" # one\n]', "+b", '[\n  "a", # one\n  "b"\n]'),
    ('[\n  "a", # one\n  # end\n]', "+b", '[\n  "a", # one\n  "b",\n  # end\n]'),
    ('["a",\n "c"]', "+b", '["a",\n "c", "b"]'),
    ('["a", "b"]', "-a", '["b"]'),
    ('["a", "b"]', "-b", '["a"]'),
    ('["a", "b",]', "-b", '["a",]'),
    ('["a"]', "-a", "[]"),
    ('["a", # one\n "b"]', "-b", '["a", # one\n ]'),
    ('["a", "b", # two\n "c"]', "-b", '["a", # two\n "c"]'),
    ('[\n  "a", # one\n  "b", # two\n]', "-a", '[\n  "b", # two\n]'),
    ('[\n  "a", # one\n  "b" # two\n]', "-b", '[\n  "a", # one\n]'),
    ("['a,]', 'b']", "-b", "['a,]']"),
]


@pytest.mark.parametrize(("before", "edit", "after"), LISTS)
def test_elements_come_and_go(before: str, edit: str, after: str) -> None:
    """A list keeps its form and the comments of its other elements."""
    text = '[[tunnel]]\nname = "t" # x\nroutes = {} # of t\n'
    lists = {"added" if edit[0] == "+" else "removed": [("routes", edit[1:])]}
    found = config_edit.change(text.format(before), "t", Change(**lists), "f")
    assert found == text.format(after)


def test_addresses_are_the_same_however_they_are_written() -> None:
    """What is there already is not added, and is found for removal."""
    other = "fd00:0010:0::5/64"
    assert changed("par1", {}, added=[("addresses", other)]) == SITE
    assert "fd00" not in changed("par1", {}, removed=[("addresses", other)])


@pytest.mark.parametrize(
    ("name", "text"),
    [("par1", SITE.replace(f"{PARIS}", "")), ("ams1", SITE.replace(AMSTERDAM, ""))],
)
def test_a_tunnel_is_removed_with_its_own_comments(name: str, text: str) -> None:
    """Those directly above, and commented-out keys directly below."""
    assert config_edit.remove(SITE, name, "f") == text


@pytest.mark.parametrize(
    ("before", "after"),
    [
        # The beginning of the file, what follows another table, what precedes another table.
        ("# file\n[[tunnel]]\nname = 'a'\n", "# file\n"),
        ("[[interface]]\n# mode = 1\n[[tunnel]]\nname = 'a'\n", "[[interface]]\n# mode = 1\n"),
        ("[[tunnel]]\nname = 'a'\n# b\n[[interface]]\n", "# b\n[[interface]]\n"),
        ("[[tunnel]]\nname = 'a'\n\n[[interface]]\n", "[[interface]]\n"),
        ("[[interface]]\n\n# other\n\n[[tunnel]]\nname = 'a'", "[[interface]]\n\n# other"),
        ("exporter = '''\n\n# no comment'''\n[[tunnel]]\nname = 'a'\n", None),
    ],
)
def test_comments_that_may_be_of_something_else_stay(before: str, after: str | None) -> None:
    """Removing is careful: no other table loses its words."""
    assert config_edit.remove(before, "a", "f") == (after or before[: before.index("[[")])


@pytest.mark.parametrize(
    ("text", "name", "words"),
    [
        (SITE, "ams2", ("there is no tunnel", "ams1")),
        ("", "ams2", ("there is no tunnel", "tunnel add ams2")),
        (SITE.replace("par1", "ams1"), "ams1", ("there are 2 tunnels", "a name of its own")),
        ('tunnel = [{name = "a"}]', "a", ("below headers", "[[tunnel]]")),
        ("tunnel = 5", "a", ("below headers", "[[tunnel]]")),
        ("[tunnel]\nname = 'a'", "a", ("below headers", "[[tunnel]]")),
    ],
)
def test_what_cannot_be_found_is_said(text: str, name: str, words: tuple[str, str]) -> None:
    """The error names what there is."""
    for edit in (
        lambda: config_edit.change(text, name, Change(), "f"),
        lambda: config_edit.remove(text, name, "f"),
    ):
        with pytest.raises(ConfigError, match=re.escape(words[0])) as refusal:
            edit()
        assert words[1] in refusal.value.remedy
        assert str(refusal.value.where).startswith("f")


def test_what_is_there_is_not_added_again() -> None:
    """The error says where it is."""
    with pytest.raises(ConfigError, match="already") as refusal:
        config_edit.add(SITE, "par1", Change(), "f")
    line = SITE[: SITE.index('  name = "par1"')].count("\n")
    assert refusal.value.where == f"f:{line}"


def test_what_is_not_there_is_not_removed() -> None:
    """A prefix that the list does not have is more often a slip than a wish."""
    with pytest.raises(ConfigError, match="/17 is none of its routes") as refusal:
        changed("ams1", {}, removed=[("routes", "10.2.0.0/17")])
    assert "10.2.0.0/16, 10.3.0.0/16" in refusal.value.remedy


def test_a_mistake_of_the_file_can_be_mended() -> None:
    """An edit needs a file that is TOML, not one that is right already."""
    broken = SITE.replace("key    = 77 ", "key    = -1 ")
    assert config_edit.change(broken, "ams1", Change({"key": 77}), "f") == SITE


def test_odd_spellings_are_understood() -> None:
    """Quoted keys, blanks in headers and Windows line ends are TOML, too."""
    text = '[[ "tunnel" ]]\r\n"name"="a"\r\n\'ttl\' =\t0x10 # x\r\n'
    assert config_edit.change(text, "a", Change({"ttl": 16}), "f") == text
    assert config_edit.change(text, "a", Change({"ttl": 17, "mtu": 1400}), "f") == (
        text.replace("0x10", "17") + "mtu = 1400\r\n"
    )


def test_values_that_need_escapes_stay_what_they_are() -> None:
    """Whatever a word holds becomes a string, never TOML of its own."""
    name = '"\\\x7f\x00\n]['
    text = config_edit.add("", name, Change(), "f")
    assert config_edit.names(text, "f") == [name]


# --- any edit of any file -------------------------------------------------------------------------


@st.composite
def files(draw: st.DrawFn) -> tuple[Config, str]:
    """A configuration, and one of the many texts that mean it; no two comments are alike."""
    found = draw(configs(max_tunnels=3).filter(lambda c: c.interfaces))
    choice = draw(st.randoms(use_true_random=False)).choice
    above = ["", "", "", "\n", "  \n", "# @\n", "\n# @ [[tunnel]]\n\n", "\t# @\n# @\n"]
    behind = ["", "", "", " # @ name = 'x'", "\t"]
    lines = []
    for line in config.dump(found).replace("tunnel = []\n", "").splitlines():
        is_plain = "=" in line or line.startswith("[")
        lines.append(choice(above) + choice(["", "  "]) * is_plain + line)
        lines.append(choice(behind) * is_plain + "\n")
    text = "".join(lines) + choice(above)
    if choice([True, False]):
        text = re.sub(r'\["([^"\]]*)", ', r'[\n    "\1", # @ first\n  ', text)
    numbers = count()
    text = re.sub("@", lambda _: str(next(numbers)), text) if "@" not in str(found) else text
    text = text.replace("\n", choice(["\n", "\r\n"]))
    text = choice([text, text.rstrip("\r\n")])
    assert config.parse(text, "f") == found
    return found, text


changes = st.fixed_dictionaries(
    {},
    optional={
        "ttl": st.integers(1, 255) | st.just("inherit"),
        "tos": st.integers(0, 255) | st.just("inherit"),
        "mtu": st.integers(68, 65535) | st.just("auto"),
        "pmtudisc": st.booleans(),
        "mss_clamp": st.booleans() | st.integers(88, 65495),
        "okey": keys,
        "csum": st.sampled_from([True, None]),
        "iseq": st.sampled_from([True, None]),
    },
)
NEW_ROUTE, NEW_ADDRESS = "203.0.113.0/25", "203.0.113.129/25"


@given(files(), device_names, st.tuples(keys, changes))
def test_del_undoes_add_to_the_byte(
    file: tuple[Config, str], name: str, asked: tuple[int | None, dict[str, Value | None]]
) -> None:
    """Adding a tunnel adds bytes in one place and a tunnel to the model; del takes both away."""
    found, text = file
    assume(name not in {table.name for table in (*found.interfaces, *found.tunnels)})
    values = {**asked[1], **ENDS} | ({"ikey": asked[0]} if asked[0] is not None else {})
    added = config_edit.add(text, name, Change(values, added=[("routes", NEW_ROUTE)]), "f")
    parsed = config.parse(added, "f")
    assert parsed.tunnels[:-1] == found.tunnels
    assert parsed.interfaces == found.interfaces
    alone = {key: value for key, value in values.items() if value is not None}
    expected = Tunnel.model_validate({"name": name, **alone, "routes": [NEW_ROUTE]})
    assert parsed.tunnels[-1] == expected
    assert config_edit.remove(added, name, "f") == text


@given(files(), changes, st.data())
def test_a_change_is_what_was_asked_and_nothing_else(
    file: tuple[Config, str], values: dict[str, Value | None], data: st.DataObject
) -> None:
    """One tunnel's table is other bytes; the model is the old one with what was asked for."""
    found, text = file
    assume(found.tunnels)
    number = data.draw(st.integers(0, len(found.tunnels) - 1))
    old = found.tunnels[number]
    route = str(data.draw(st.sampled_from(old.routes))) if old.routes else None
    change = Change(
        values,
        added=[("routes", NEW_ROUTE), ("addresses", NEW_ADDRESS)],
        removed=[("routes", route)] if route else [],
    )
    edited = config_edit.change(text, old.name, change, "f")
    update: dict[str, object] = dict(values)
    if "csum" in update:
        update["icsum"] = update["ocsum"] = bool(update.pop("csum"))
    if "iseq" in update:
        update["iseq"] = bool(update["iseq"])
    update["routes"] = (*(r for r in old.routes if str(r) != route), ip_network(NEW_ROUTE))
    update["addresses"] = (*old.addresses, ip_interface(NEW_ADDRESS))
    wanted = list(found.tunnels)
    wanted[number] = old.model_copy(update=update)
    assert config.parse(edited, "f") == found.model_copy(update={"tunnels": tuple(wanted)})
    # All bytes outside the table, and all comments inside it but that of the route, are there.
    comments = re.findall("#[^\n]*", text)
    assert len(re.findall("#[^\n]*", edited)) >= len(comments) - 4
    start = next(i for i, (a, b) in enumerate(zip(text, edited, strict=False)) if a != b)
    table = _table(text, number)
    assert table[0] <= start
    assert edited.endswith(text[table[1] :])
    assert edited.startswith(text[: table[0]])
    # Asking for the same again changes nothing.
    again = Change(values, added=change.added)
    assert config_edit.change(edited, old.name, again, "f") == edited


@given(files(), st.data())
def test_removing_leaves_all_other_tables_and_their_comments(
    file: tuple[Config, str], data: st.DataObject
) -> None:
    """What is left is the text without one piece, and means the same without one tunnel."""
    found, text = file
    assume(found.tunnels)
    number = data.draw(st.integers(0, len(found.tunnels) - 1))
    left = config_edit.remove(text, found.tunnels[number].name, "f")
    rest = (*found.tunnels[:number], *found.tunnels[number + 1 :])
    assert config.parse(left, "f") == found.model_copy(update={"tunnels": rest})
    start, end = _table(text, number)
    # Comments that are gone stood in the table, or between it and its neighbours.
    above = re.search(r"(^[ \t]*(#[^\n]*)?\r?\n)*\Z", text[:start], re.MULTILINE)
    assert above is not None
    assert text[: above.start()].rstrip() == left[: above.start()].rstrip()
    assert left.rstrip().endswith(text[end:].rstrip())


def _table(text: str, number: int) -> tuple[int, int]:
    """Where the tunnel's lines from header to header, or the end of the file, are."""
    headers = [m.start() for m in re.finditer(r"^ *\[\[tunnel\]\]", text, re.MULTILINE)]
    every = [m.start() for m in re.finditer(r"^ *\[\[", text, re.MULTILINE)]
    start = headers[number]
    return start, next((place for place in every if place > start), len(text))


@given(st.sampled_from(sorted((ROOT / "contrib").glob("*.toml"))), keys)
def test_the_examples_can_be_edited(path: Path, key: int | None) -> None:
    """Files as people write them."""
    text = path.read_text()
    for name in config_edit.names(text, path.name):
        edited = config_edit.change(text, name, Change({"key": key}), path.name)
        found = {t.name: t.ikey for t in config.parse(edited, path.name).tunnels}
        assert found[name] == key
        assert sorted([*config_edit.names(config_edit.remove(text, name, "f"), "f"), name]) == (
            sorted(found)
        )
