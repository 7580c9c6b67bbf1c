"""Bad configuration files, as data: what is written, and the one mistake that is to be told.

A row of a table is what is wrong and (line, words of the message); ``LINE`` is the line below a
good tunnel. What is told in full, to the letter, is in ``unit/test_config.py``.
"""

from __future__ import annotations

from typing import NamedTuple

PORT = '[[interface]]\nname = "eth0"\n'
NAME, LOCAL, REMOTE = 'name = "fra1"\n', 'local = "192.0.2.1"\n', 'remote = "198.51.100.7"\n'
TUNNEL = f"{PORT}[[tunnel]]\n{NAME}{LOCAL}{REMOTE}"
SECOND = '[[tunnel]]\nname = "fra2"\nlocal = "192.0.2.1"\nremote = "198.51.100.8"\n'
LINE = TUNNEL.count("\n") + 1
IPV6 = TUNNEL.replace("192.0.2.1", "2001:db8::1").replace("198.51.100.7", "2001:db8::7")

# --- values ---------------------------------------------------------------------------------------


class Key(NamedTuple):
    """A key of a tunnel: words of its mistake, values that are right, and values that are wrong."""

    words: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]


# What no key takes.
NOTHINGS = (
    "1.5",
    "nan",
    "-inf",
    "1979-05-27",
    "07:32:00",
    "1979-05-27T07:32:00Z",
    "{}",
    "{ a = 1 }",
)
NO_NUMBERS = (*NOTHINGS, "[]", "[1]", '""', '"1"', '" 64"', '"0x40"', '"Inherit"', '"٦٤"')
NO_BOOLEANS = (
    *NOTHINGS,
    "[]",
    "[true]",
    "0",
    "1",
    "-1",
    '""',
    '"true"',
    '"yes"',
    "0xFFFFFFFFFFFFFFFF",
)
NO_STRINGS = (*NOTHINGS, "true", "false", "0", "[]", '["veth"]', '[["veth"]]')
HUGE = ("18446744073709551616", "-9223372036854775809", "0x" + "f" * 5000)
BOOLEAN = Key("this is neither true nor false", ("true", "false"), (*NO_BOOLEANS, *HUGE))
NO_KEY = ("-1", "4294967296", "true", '"1"', '"1.2.3"', '"1.2.3.4.5"', '"0.0.0.256"', '"01.2.3.4"')
GRE_KEY = Key(
    "a key is a whole number from 0 to 4294967295 or a dotted quad",
    ("0", "4294967295", "0xFFFF_FFFF", '"0.0.0.0"', '"255.255.255.255"'),
    (*NO_KEY, *NOTHINGS, *HUGE, '""', '"::1"', '"1.2.3.4/32"', '" 1.2.3.4"', '"1.2.3.4\\n"', "[1]"),
)
KEYS = {
    "key": GRE_KEY,
    "ikey": GRE_KEY,
    "okey": GRE_KEY,
    **dict.fromkeys(("csum", "icsum", "ocsum", "seq", "iseq", "oseq", "pmtudisc"), BOOLEAN),
    "mtu_probe": BOOLEAN._replace(right=("false",)),
    "ttl": Key(
        "this is neither a whole number from 1 to 255 nor",
        ("1", "255", "0xff", '"inherit"'),
        ("0", "256", "-1", "true", "false", "64.0", '"auto"', *NO_NUMBERS, *HUGE),
    ),
    "tos": Key(
        "this is neither a whole number from 0 to 255 nor",
        ("0", "255", '"inherit"'),
        ("256", "-1", "true", "false", "0.0", '"auto"', *NO_NUMBERS, *HUGE),
    ),
    "mtu": Key(
        "this is neither a whole number from 68 to 65535 nor",
        ("68", "65535", '"auto"'),
        ("67", "65536", "0", "-1476", "true", "false", '"inherit"', *NO_NUMBERS, *HUGE),
    ),
    "mss_clamp": Key(
        "this is neither a whole number from 88 to 65495 nor",
        ("88", "65495", "true", "false"),
        ("87", "65496", "0", "1", "-1", '"auto"', '"true"', *NO_NUMBERS, *HUGE),
    ),
    "backing": Key("this is none of its values", ('"veth"',), ('"Veth"', '""', *NO_STRINGS)),
    "payload": Key(
        "this is none of its values",
        ('"ip"', '"ethernet"'),
        ('"IP"', '"gretap"', '"ip "', '""', *NO_STRINGS),
    ),
}
ANY = (*NOTHINGS, "true", "0", '""', '"10.0.0.1"')
LISTS = ("addresses", "routes", "allowed_sources")
# Elements of a list, and words of the mistake.
NO_PREFIXES = {
    "this is not an IP prefix": (
        *NOTHINGS[:6],
        *("7", "true", "[]", "{}", '["10.0.0.0/8"]', '""', '"/8"', '"10.0.0.0/"', '"10.0.0.0/33"'),
        *('"10.0.0.0/-1"', '"10.0.0.0/8/8"', '"10.0.0.0/255.0.0.0"', '"10.0.0.0/0.255.255.255"'),
        *(
            '"10.0.0/8"',
            '"010.0.0.0/8"',
            '"10.0.0.0/٨"',
            '"fd00::/129"',
            '"fd00:::/8"',
            '"default"',
        ),
        *(
            '"fe80::%eth0/64"',
            '"10.0.0.0 /8"',
            '"10.0.0.0/8\\n"',
            '"\uff11\uff10.0.0.0/8"',
            '"10.0.0.0/+8"',
        ),
    ),
    "bits are set beyond the prefix length": (
        *('"10.0.0.1/8"', '"0.0.0.1/0"', '"fd00::1/64"', '"::1/0"', '"255.255.255.255/31"'),
    ),
}
NO_ADDRESSES = {
    "this is not an IP address with a prefix length": (
        *NOTHINGS[:6],
        *("7", "false", "[]", '""', '"10.0.0.1/33"', '"10.0.0.1/255.0.0.0"', '"10.0.0.01/8"'),
        *('"fd00::1/129"', '"fe80::1%eth0/64"', '"fd00::g/64"', '"fra1"', '"10.0.0.1/8 "'),
    ),
    "a device cannot have this address": (
        *('"0.0.0.0/0"', '"::/0"', '"::/64"', '"224.0.0.1/4"', '"239.1.2.3/32"', '"ff02::1/64"'),
        *('"127.0.0.1/8"', '"::1/128"'),
    ),
}
NO_ENDPOINTS = {
    "this is not an IP address": (
        *NO_STRINGS,
        *(
            '""',
            '" "',
            '"192.0.2"',
            '"192.0.2.1.1"',
            '"192.0.2.256"',
            '"192.0.2.01"',
            '"0xC0000201"',
        ),
        *(
            '"3221225985"',
            '"192.0.2.1/32"',
            '"192.0.2.1 "',
            '"192.0.2.1\\u0000"',
            '"[2001:db8::1]"',
        ),
        *(
            '"2001:db8::1::2"',
            '"2001:db8:::1"',
            '"2001:db8::12345"',
            '"fe80::1%eth0"',
            '"fe80::1%"',
        ),
        *('"example.org"', '"\uff11\uff192.0.2.1"', '"%s"', '"1:2:3:4:5:6:7:8:9"'),
    ),
    "the unspecified address cannot be": ('"0.0.0.0"', '"::"', '"0:0::0"'),
    "a loopback address cannot be": ('"127.0.0.1"', '"127.255.255.255"', '"::1"'),
    "a multicast address cannot be": ('"224.0.0.1"', '"239.255.255.255"', '"ff02::1"', '"ff0e::1"'),
    "the broadcast address cannot be": ('"255.255.255.255"',),
    "a link-local address cannot be": ('"fe80::1"', '"febf::ffff"'),
    "an IPv4-mapped address cannot be": ('"::ffff:192.0.2.1"', '"::ffff:c000:201"'),
}
NO_NAMES = {
    "a device name is a string of 1 to 15 characters": (
        *NO_STRINGS,
        *('""', f'"{"a" * 16}"', f'"{"a" * 100_000}"', f'"{"é" * 16}"'),
    ),
    "Linux takes no such device name": (
        *(
            '"."',
            '".."',
            '"a/b"',
            '"/"',
            '"a:1"',
            '" "',
            '"a b"',
            '"a\\tb"',
            '"a\\nb"',
            '"a\\u0000b"',
        ),
        *('"%s"', '"gre%d"', '"a%"', '"é"', '"名"', '"a\\u200Bb"', '"\\U0001F600"', '"a\\u007F"'),
        '"\\u202Efra1"',
    ),
    "this name has another meaning to Linux": ('"all"', '"default"', '"lo"'),
    'names that begin with "gx-" are for': ('"gx-"', '"gx-fra1"', '"gx-gx-"'),
}
RIGHT_NAMES = (
    '"a"',
    f'"{"a" * 15}"',
    '"..."',
    '"-"',
    '"eth0.7"',
    '"gx"',
    '"GX-a"',
    "'\\'",
    '"\\""',
)
NO_LISTENERS = {
    "this is not a string HOST:PORT": NO_STRINGS,
    "this does not end in a colon and a port": (
        *('"127.0.0.1"', '"127.0.0.1:"', '"127.0.0.1:0"', '"127.0.0.1:65536"', '"localhost"'),
        *('"127.0.0.1:-1"', '"127.0.0.1:99999999"', '"127.0.0.1:٩٧"', '"127.0.0.1:9747 "', '" "'),
    ),
    "the host is neither an IP address nor a host name": (
        *('":9747"', '"::1:9747"', '"[::1:9747"', '"[]:1"', '"[127.0.0.1]:1"', '"127.1:9747"'),
        *(
            '"256.0.0.1:1"',
            '"a b:1"',
            '"-a:1"',
            '"a\\nb:1"',
            '"é:1"',
            '"[fe80::1%eth0]:1"',
            '"a/b:1"',
        ),
    ),
}

# --- whole files ----------------------------------------------------------------------------------


class Bad(NamedTuple):
    """A file that is no configuration: where, and words of the one message."""

    text: str
    line: int
    words: str


TOML = "this is not TOML: "
SYNTAX = {
    "no value": Bad("drift =", 1, TOML),
    "no value, more lines": Bad('drift =\nexporter = ""', 1, TOML),
    "no equals sign": Bad('drift "repair"', 1, TOML),
    "no key": Bad('= "repair"', 1, TOML),
    "no quotes": Bad("drift = repair", 1, TOML),
    "one quote": Bad('drift = "repair', 1, TOML),
    "wrong quotes": Bad("drift = “repair”", 1, TOML),  # what word processors write
    "a string that a line ends": Bad('drift = "re\npair"', 1, TOML),
    "three quotes never closed": Bad('a = 1\ndrift = """\nrepair\n\n', 3, TOML),
    "no such escape": Bad('drift = "\\x41"', 1, TOML),
    "half a surrogate": Bad('drift = "\\ud800"', 1, TOML),
    "beyond Unicode": Bad('drift = "\\U00110000"', 1, TOML),
    "a control character": Bad('drift = "\x1b[31m"', 1, TOML),
    "a control character in a comment": Bad("# \x07\n", 1, TOML),
    "two values": Bad("bypass_firewall = true false", 1, TOML),
    "two pairs in a line": Bad('drift = "repair" exporter = ""', 1, TOML),
    "a capital": Bad("bypass_firewall = True", 1, TOML),
    "a leading zero": Bad(f"{TUNNEL}ttl = 064", LINE, TOML),
    "two underscores": Bad(f"{TUNNEL}key = 1__0", LINE, TOML),
    "hexadecimal with a sign": Bad(f"{TUNNEL}key = -0x1", LINE, TOML),
    "a point and no digit": Bad(f"{TUNNEL}key = 1.", LINE, TOML),
    "two points": Bad(f"{TUNNEL}local = 192.0.2.1", LINE, TOML),
    "a day that is none": Bad(f"{TUNNEL}key = 2025-02-30", LINE, TOML),
    "one bracket": Bad("[[interface]\n", 1, TOML),
    "no bracket": Bad("[[interface\n", 1, TOML),
    "no name in brackets": Bad("[[]]\n", 1, TOML),
    "brackets apart": Bad('[ [interface] ]\nname = "eth0"\n', 1, TOML),
    "a value after a header": Bad("[[interface]] name = 1", 1, TOML),
    "an array never closed": Bad(f'{TUNNEL}routes = ["10.0.0.0/8",', LINE, TOML),
    "no comma": Bad(f'{TUNNEL}routes = ["10.0.0.0/8" "::/0"]', LINE, TOML),
    "two commas": Bad(f'{TUNNEL}routes = ["10.0.0.0/8",, "::/0"]', LINE, TOML),
    "round brackets": Bad(f"{TUNNEL}routes = ()", LINE, TOML),
    "an inline table over two lines": Bad("interface = [{\nname = 1 }]", 1, TOML),
    "an inline table with a last comma": Bad('interface = [{ name = "eth0", }]', 1, TOML),
    "a colon, as in YAML": Bad("drift: repair", 1, TOML),
    "JSON": Bad('{ "drift": "repair" }', 1, TOML),
    "a comment of C": Bad("// hello", 1, TOML),
    "carriage returns alone": Bad('drift = "repair"\rexporter = ""\r', 1, TOML),
    "a second byte order mark": Bad('\ufeffdrift = "repair"', 1, TOML),
    "a no-break space": Bad('drift\u00a0= "repair"', 1, TOML),
    "a NUL": Bad('\ndrift = "repair"\n\0', 3, TOML),
    "a key twice": Bad('drift = "repair"\n\ndrift = "report"', 3, TOML),
    "a key twice, once in quotes": Bad(f'{TUNNEL}"ttl" = 1\nttl = 1', LINE + 1, TOML),
    "a table twice": Bad("[interface]\n[interface]", 2, TOML),
    "a table, then an array of tables": Bad(f"{PORT}[tunnel]\n{NAME}[[tunnel]]", 5, TOML),
    "an array of tables, then a table": Bad(f"{TUNNEL}[tunnel]", LINE, TOML),
    "an array, then an array of tables": Bad("tunnel = []\n[[tunnel]]", 2, TOML),
    "a value, then a table": Bad('drift = "repair"\n[drift]', 2, TOML),
    "a value, then a dotted key": Bad('drift = "repair"\ndrift.a = 1', 2, TOML),
    "an inline table is complete": Bad("tunnel = {}\ntunnel.a = 1", 2, TOML),
    "deep brackets": Bad("\na = " + "[" * 100_000, 2, "a value is nested too deeply"),
    "deep brackets, closed": Bad(f"\na = {'[' * 10**5}{']' * 10**5}", 2, "nested too deeply"),
    "deep braces": Bad("\na = " + "{a=" * 100_000, 2, "a value is nested too deeply"),
    "deep brackets of a header": Bad("[" * 100_000, 1, TOML),
    "a deep key": Bad("\n" + ".".join("a" * 500_000) + " = 1", 2, "a key has more than 50 parts"),
    "a deep header": Bad(
        "\n[" + " . ".join("a" * 500_000) + "]", 2, "a key has more than 50 parts"
    ),
    "a deep key in quotes": Bad(
        '"a"' + '."a"' * 500_000 + " = 1", 1, "a key has more than 50 parts"
    ),
    "a long number": Bad(f"\n[[tunnel]]\nkey = {'1' * 10_000}", 3, "out of range"),
}

NO_SUCH_KEY = "there is no such key here"
STRUCTURE = {
    "unknown at the top": Bad("colour = 1", 1, f"colour = 1: {NO_SUCH_KEY}"),
    "unknown in an interface": Bad(f"{PORT}mtu = 1500", 3, f'"eth0": mtu = 1500: {NO_SUCH_KEY}'),
    "unknown in a tunnel": Bad(f"{TUNNEL}colour = 1", LINE, f'"fra1": colour = 1: {NO_SUCH_KEY}'),
    "unknown table": Bad("[general]\na = 1\nb = 2", 1, f"general: {NO_SUCH_KEY}"),
    "unknown table in a table": Bad("\n[a.b]\nc = 1", 2, f"a: {NO_SUCH_KEY}"),
    "unknown array of tables": Bad("[[peer]]\n[[peer]]", 1, f"peer: {NO_SUCH_KEY}"),
    "unknown table in a tunnel": Bad(
        f"{TUNNEL}[tunnel.a]\nb = 1", LINE, f'"fra1": a: {NO_SUCH_KEY}'
    ),
    "unknown dotted": Bad(f"{TUNNEL}ttl.inner = 1", LINE, '"fra1": ttl: this is neither'),
    "a capital": Bad(f"{TUNNEL}TTL = 1", LINE, f"TTL = 1: {NO_SUCH_KEY}"),
    "an empty key": Bad('"" = 1', 1, f'"" = 1: {NO_SUCH_KEY}'),
    "a key of blanks": Bad('"  " = 1', 1, f'"  " = 1: {NO_SUCH_KEY}'),
    "a key of signs": Bad(
        '"%s{0}\\u0000\\u202e" = 1', 1, f'"%s{{0}}\\u0000\\u202e" = 1: {NO_SUCH_KEY}'
    ),
    "a key with a point": Bad('"tunnel.name" = 1', 1, f'"tunnel.name" = 1: {NO_SUCH_KEY}'),
    "our own names": Bad(f"{TUNNEL}both_key = 1", LINE, f"both_key = 1: {NO_SUCH_KEY}"),
    "our own name for an array": Bad("tunnels = []", 1, f"tunnels: {NO_SUCH_KEY}"),
    "a number for an array": Bad(
        f"tunnel = 7\n{PORT}", 1, "tunnel = 7: this is not an array of tables"
    ),
    "a text for an array": Bad('interface = "eth0"', 1, 'interface = "eth0": this is not an array'),
    "an inline table for an array": Bad(
        f"tunnel = {{}}\n{PORT}", 1, "tunnel: this is not an array of tables"
    ),
    "one bracket": Bad("[interface]\nname = 'a'", 1, "interface: this is not an array of tables"),
    "texts in an array": Bad('interface = ["eth0"]', 1, "interface number 1: this is not a table"),
    "arrays in an array": Bad("interface = [\n\n[]]", 3, "interface number 1: this is not a table"),
    "a table in an array": Bad(
        'interface = [{ name = "a" },\n{ name = "b", mod = 1 }]',
        2,
        f'interface "b": mod = 1: {NO_SUCH_KEY}',
    ),
    "a value far inside of an inline table": Bad(
        'interface = [{ name = "eth0" }]\ntunnel = [{ name = "fra1", local = "192.0.2.1",'
        ' remote = "198.51.100.7", routes = [\n"::/0",\n"10.0.0.1/8"] }]',
        4,
        'routes = "10.0.0.1/8": bits are set',
    ),
    "nothing in a tunnel but a name": Bad(
        f"{TUNNEL}[[tunnel]]\nname = 'b'\nlocal = '192.0.2.1'",
        LINE,
        'tunnel "b": remote is missing',
    ),
    "no name": Bad(f"{PORT}[[tunnel]]\n{LOCAL}{REMOTE}", 3, "tunnel number 1: name is missing"),
    "no interface": Bad(SECOND, 1, "tunnel: there is no [[interface]]"),
}

CONFLICTS = {
    "one name, two interfaces": Bad(f"{PORT}{PORT}", 4, 'name = "eth0": interface "eth0" has this'),
    "one name, two tunnels": Bad(
        f"{TUNNEL}{SECOND.replace('fra2', 'fra1')}",
        LINE + 1,
        'name = "fra1": tunnel "fra1" has this',
    ),
    "a tunnel named like an interface": Bad(
        TUNNEL.replace("fra1", "eth0"), 4, 'name = "eth0": interface "eth0" has this name already'
    ),
    "one pair of ends": Bad(
        f"{TUNNEL}{SECOND.replace('100.8', '100.7')}",
        LINE + 3,
        'tunnel "fra1" has the same local and',
    ),
    "one pair of ends, one key": Bad(
        f'{TUNNEL}key = 7\n{SECOND.replace("100.8", "100.7")}ikey = "0.0.0.7"',
        LINE + 4,
        'tunnel "fra1" has the same local and remote',
    ),
    "one pair of ends, written otherwise": Bad(
        f"{IPV6}{SECOND}".replace("198.51.100.8", "2001:DB8:0::0007").replace(
            "192.0.2.1", "2001:db8::0:1"
        ),
        LINE + 3,
        'tunnel "fra1" has the same local and remote',
    ),
    "both ends alike": Bad(TUNNEL.replace("198.51.100.7", "192.0.2.1"), 6, "this is also local"),
    "two families": Bad(
        TUNNEL.replace("198.51.100.7", "2001:db8::7"), 6, "this is IPv6, but local"
    ),
    "two families, the other way": Bad(
        IPV6.replace("2001:db8::7", "192.0.2.7"), 6, "this is IPv4, but local = 2001:db8::1 is IPv6"
    ),
    **{
        f"{word} and {way}{word}": Bad(
            f"{TUNNEL}{way}{word} = {value}\n{word} = {value}",
            LINE,
            f"{way}{word} = {value}: {word} has set both directions already",
        )
        for word, value in {"key": "1", "csum": "true", "seq": "false"}.items()
        for way in "io"
    },
    "one address twice": Bad(
        f'{TUNNEL}addresses = [\n"10.0.0.1/30",\n"10.0.0.1/31",\n]',
        LINE + 2,
        'tunnel "fra1" has this',
    ),
    "one address, two tunnels": Bad(
        f'{TUNNEL}addresses = ["fd00::1/64"]\n{SECOND}addresses = ["fd00::0:1/127"]',
        LINE + 5,
        'addresses = "fd00::0:1/127": tunnel "fra1" has this address already',
    ),
    "one route, two tunnels": Bad(
        f'{TUNNEL}routes = ["::/0"]\n{SECOND}routes = ["0::/0"]',
        LINE + 5,
        'tunnel "fra1" has this route',
    ),
    "the remote on link": Bad(
        f'{TUNNEL}addresses = ["198.51.100.1/24"]',
        LINE,
        "198.51.100.0/24 holds the tunnel's own remote",
    ),
    "a remote as route": Bad(
        f'{TUNNEL}routes = ["198.51.100.8/32"]\n{SECOND}',
        LINE,
        'this is the remote of tunnel "fra2"',
    ),
    "Ethernet with sources": Bad(
        f'{TUNNEL}payload = "ethernet"\nallowed_sources = ["::/0"]',
        LINE + 1,
        "allowed_sources: an Ethernet",
    ),
    "Ethernet with probes": Bad(
        f'{TUNNEL}payload = "ethernet"\nmtu_probe = true',
        LINE + 1,
        "mtu_probe = true: this asks whether",
    ),
    "probes without an address": Bad(
        f'{TUNNEL}mtu_probe = true\naddresses = ["fe80::1/64"]',
        LINE,
        "mtu_probe = true: this sends IPv6",
    ),
}

# --- bytes ----------------------------------------------------------------------------------------

UTF8 = "the file is not UTF-8 text"
BYTES = {
    "UTF-16 with a mark": (TUNNEL.encode("utf-16"), 1, UTF8),
    "UTF-16 without a mark": (TUNNEL.encode("utf-16-le"), 1, UTF8),
    "UTF-16, big end first": (b"\xfe\xff" + TUNNEL.encode("utf-16-be"), 1, UTF8),
    "UTF-32": (TUNNEL.encode("utf-32-be"), 1, UTF8),
    "Latin-1": (f"{TUNNEL}# Zürich\n".encode("latin-1"), LINE, UTF8),
    "half of a character": (f"{TUNNEL}# Zü".encode()[:-1], LINE, UTF8),
    "an overlong NUL": (b"\n\xc0\x80", 2, UTF8),
    "a surrogate": (b"\n\xed\xa0\x80", 2, UTF8),
    "NULs at the end": (TUNNEL.encode() + bytes(4096), LINE, UTF8),
    "only NULs": (bytes(1_000_000), 1, UTF8),
    "a gzip file": (b"\x1f\x8b\x08\x00\x00\x00\x00\x00", 1, UTF8),
    "an ELF file": (b"\x7fELF\x02\x01\x01" + bytes(9), 1, UTF8),
    "two marks": (b"\xef\xbb\xbf\xef\xbb\xbf" + TUNNEL.encode(), 1, TOML),
    "CR alone": (TUNNEL.replace("\n", "\r").encode(), 1, TOML),
    "CR CR LF": (TUNNEL.replace("\n", "\r\r\n").encode(), 1, TOML),
}

# --- large ----------------------------------------------------------------------------------------

MEGABYTE = 1_000_000
LARGE = {
    "letters": "x" * MEGABYTE,
    "quotes": '"' * MEGABYTE,
    "apostrophes": "'" * MEGABYTE,
    "backslashes": 'a = "' + "\\" * MEGABYTE,
    "an endless string": 'a = """' + '\\"""' * (MEGABYTE // 4),
    "brackets and an endless string": f"b = {'[' * 10_000}" + '"\\' * (MEGABYTE // 2),
    "commas": "a = [" + "," * MEGABYTE,
    "headers": "[[tunnel]]\n" * (MEGABYTE // 11),
    "other headers": "".join(f"[[t{n}]]\n" for n in range(MEGABYTE // 10)),
    "keys": "".join(f"name_of_local_and_remote_{n} = 1\n" for n in range(MEGABYTE // 34)),
    "long keys": f'"{"a" * 50_000}" = 1\n' * 20,
    "dotted keys": "".join(f"{'a.' * 45}b{n} = 1\n" for n in range(MEGABYTE // 100)),
    "a key with what looks like our quotes": ('["' + "('" * (MEGABYTE // 4) + '"]\n') * 2,
    "numbers": "tunnel = [" + "1," * (MEGABYTE // 2) + "]",
    "a float": "drift = 1." + "1" * MEGABYTE,
    "a hexadecimal number": "drift = 0x" + "f" * MEGABYTE,
    "wrong routes": f"{TUNNEL}routes = [" + '"x",' * (MEGABYTE // 4) + "]",
    "50,000 tunnels of garbage": PORT + '[[tunnel]]\nfoo = 1\nname = 3\nttl = "x"\n' * 50_000,
    "20,000 tunnels of one name": PORT + TUNNEL.removeprefix(PORT) * 20_000,
    "comments, then junk": "# nothing\n" * (MEGABYTE // 10) + "junk",
}
