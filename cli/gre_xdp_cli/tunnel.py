"""The commands that edit tunnels in the configuration file and apply it: tunnel add, set, del."""

# ruff: noqa: PLC0415 - pydantic and pyroute2 load when a command runs, not for --help

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click
from click.shell_completion import CompletionItem

from gre_xdp.errors import ConfigErrors, GreXdpError
from gre_xdp_cli import output
from gre_xdp_cli.config_commands import NOTHING, ROOT, refuse_pending, report_applied
from gre_xdp_cli.options import (
    Group,
    NamespaceCommand,
    Options,
    config_option,
    netns_option,
    pass_options,
    shared,
)
from gre_xdp_cli.signals import terminable

if TYPE_CHECKING:
    from gre_xdp.config_edit import Change, Value

# --- the words ------------------------------------------------------------------------------------

# A word with a value → its key in [[tunnel]], and what completion offers as value.
_VALUES: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "local": ("local", ()),
    "remote": ("remote", ()),
    "key": ("key", ()),
    "ikey": ("ikey", ()),
    "okey": ("okey", ()),
    "ttl": ("ttl", ("inherit",)),
    "hoplimit": ("ttl", ("inherit",)),
    "tos": ("tos", ("inherit",)),
    "tclass": ("tos", ("inherit",)),
    "mtu": ("mtu", ("auto",)),
    "mss_clamp": ("mss_clamp", ("on", "off")),
    "payload": ("payload", ("ip", "ethernet")),
    "backing": ("backing", ("veth", "kernel")),
    "mtu_probe": ("mtu_probe", ("on", "off")),
    "device": ("device", ()),
    "nexthop": ("nexthop", ()),
    "name": ("name", ()),
}
# Words that stand alone → their key and its value; None: the key is removed.
_FLAGS: Final[Mapping[str, tuple[str, bool | None]]] = {
    **{f"no{way}key": (f"{way}key", None) for way in ("", "i", "o")},
    **{way + word: (way + word, True) for word in ("csum", "seq") for way in ("", "i", "o")},
    **{f"no{way}{word}": (way + word, None) for word in ("csum", "seq") for way in ("", "i", "o")},
    "pmtudisc": ("pmtudisc", True),
    "nopmtudisc": ("pmtudisc", False),
}
# Words that can stand more than once → the key that holds the list.
_LISTS: Final = {"address": "addresses", "route": "routes", "allowed_source": "allowed_sources"}
_UNLISTS: Final = {f"no{word}": key for word, key in _LISTS.items()}
_WITH_VALUE: Final = (*_VALUES, *_LISTS, *_UNLISTS)
_WORDS: Final = (*_VALUES, *_FLAGS, *_LISTS, *_UNLISTS)
# Keys that take true and false beside numbers: here on and off.
_SWITCHES: Final = ("mss_clamp", "mtu_probe")
_ON_OFF: Final = {"on": True, "true": True, "off": False, "false": False}
_STRINGS: Final = ("local", "remote", "payload", "backing", "device", "nexthop", "name")


def _change(words: tuple[str, ...]) -> Change:
    """What the words ask for; raises ``click.UsageError``."""
    from gre_xdp.config_edit import Change

    values: dict[str, Value | None] = {}
    lists: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    said: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        if word in _FLAGS:
            key, value = _FLAGS[word]
            _say_once(said, key, word)
            values[key] = value
        elif word in _VALUES:
            key = _VALUES[word][0]
            _say_once(said, key, word)
            values[key] = _value(key, _next(word, rest))
        elif word in _LISTS:
            lists[True].append((_LISTS[word], _next(word, rest)))
        elif word in _UNLISTS:
            lists[False].append((_UNLISTS[word], _next(word, rest)))
        else:
            near = difflib.get_close_matches(word, _WORDS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"the words are {', '.join(_WORDS)}"
            raise click.UsageError(f'there is no word "{word}": {hint}')
    return Change(values, added=lists[True], removed=lists[False])


def _next(word: str, rest: Iterator[str]) -> str:
    value = next(rest, None)
    if value is None:
        raise click.UsageError(f"{word} wants a value")
    return value


def _say_once(said: dict[str, str], key: str, word: str) -> None:
    """``said``: by key, and for a shorthand by those that it stands for, the word that set it."""
    is_shorthand = key in ("key", "csum", "seq")
    for name in (f"i{key}", f"o{key}") if is_shorthand else (key,):
        if name in said:
            raise click.UsageError(f"{word} comes after {said[name]}, which has said that already")
        said[name] = word


def _value(key: str, text: str) -> Value:
    """What stands in the file: a number where it looks like one, true or false, else the text."""
    if key in _STRINGS:
        return text
    if key in _SWITCHES and text in _ON_OFF:
        return _ON_OFF[text]
    if re.fullmatch("[0-9]{1,20}", text):
        return int(text)
    if re.fullmatch("0[xX][0-9A-Fa-f]{1,16}", text):
        return int(text, 16)
    return text


# --- completion -----------------------------------------------------------------------------------


def _complete_name(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The tunnels of the file."""
    del parameter
    from gre_xdp import config, config_edit

    path = ctx.ensure_object(Options).config
    try:
        found = config_edit.names(config.decode(config.read(path), str(path)), str(path))
    except GreXdpError:
        return []
    return [CompletionItem(name) for name in found if name.startswith(incomplete)]


def _complete_word(
    ctx: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """The words, or what the word before can have."""
    del parameter
    rest = iter(ctx.params.get("words") or ())
    offered: tuple[str, ...] = _WORDS
    for word in rest:
        if word in _WITH_VALUE and next(rest, None) is None:
            offered = _VALUES[word][1] if word in _VALUES else ()
    return [CompletionItem(word) for word in offered if word.startswith(incomplete)]


# --- the commands ---------------------------------------------------------------------------------


@click.group(
    cls=Group,
    examples=(
        "sudo gre-xdp tunnel add fra1 local 192.0.2.1 remote 198.51.100.7 key 77 ttl 64",
        "sudo gre-xdp tunnel set fra1 key 78 nocsum route 10.2.0.0/16",
        "sudo gre-xdp tunnel del fra1",
    ),
)
def tunnel() -> None:
    """Add, change and remove tunnels, in the words of ip tunnel.

    Edits the configuration file, where comments and formatting of everything else stay as they
    are, and applies it. A mistake changes nothing; when the kernel refuses, the former file is put
    back. Needs root, except with --no-apply.
    """


_NEEDS = f"{ROOT}; with --no-apply only a file that may be written"


def _name_argument(*, is_known: bool) -> Callable[[Any], Any]:
    return click.argument("name", shell_complete=_complete_name if is_known else None)


def _words_argument() -> Callable[[Any], Any]:
    return click.argument(
        "words",
        nargs=-1,
        required=True,
        metavar="WORD [VALUE] ...",
        shell_complete=_complete_word,
    )


def _edit_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "-n", "--dry-run", is_flag=True, help="Show what would change, and change nothing."
        ),
        click.option("--no-apply", is_flag=True, help="Edit the file only; no agent is told."),
    ):
        command = option(command)
    return command


@tunnel.command(
    cls=NamespaceCommand,
    needs=_NEEDS,
    examples=(
        "gre-xdp tunnel add fra1 local 192.0.2.1 remote 198.51.100.7 key 77 ttl 64",
        "gre-xdp tunnel add fra1 local 192.0.2.1 remote 198.51.100.7 \\",
        "    address 169.254.10.1/30 address fd00:10::1/64 route 10.2.0.0/16",
        "gre-xdp tunnel add tap1 local 2001:db8::1 remote 2001:db8::2 payload ethernet --no-apply",
    ),
)
@_name_argument(is_known=False)
@_words_argument()
@_edit_options
@shared(config_option, netns_option)
@pass_options
def add(options: Options, name: str, words: tuple[str, ...], dry_run: bool, no_apply: bool) -> None:
    """Add a tunnel to the configuration file, and apply it.

    It comes after the last one of the file. NAME is also the device's name.

    \b
    Words that must be there: local ADDRESS, remote ADDRESS. Others:
      key K, ikey K, okey K           a number or a dotted quad
      csum, icsum, ocsum              GRE checksums
      seq, iseq, oseq                 sequence numbers
      ttl N|inherit (or hoplimit), tos N|inherit (or tclass)
      pmtudisc, nopmtudisc            whether DF is always set
      mtu BYTES|auto, mss_clamp BYTES|on|off, mtu_probe on|off
      payload ip|ethernet, backing veth
      device NAME, nexthop A          share a device, selected by the next hop of routes
      address A[/LENGTH], route PREFIX, allowed_source PREFIX: any number of times

    They mean what the keys of [[tunnel]] mean, see docs/configuration.md. Numbers are decimal, or
    begin with 0x; so is that of tos, which ip tunnel reads as hexadecimal.
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from gre_xdp import config_edit

    wanted = _change(words)

    def edit(text: str, source: str) -> str:
        return config_edit.add(text, name, wanted, source)

    _carry_out(options, edit, dry_run=dry_run, no_apply=no_apply)


@tunnel.command(
    "set",
    cls=NamespaceCommand,
    needs=_NEEDS,
    examples=(
        "gre-xdp tunnel set fra1 key 78",
        "gre-xdp tunnel set fra1 nokey nocsum mtu auto",
        "gre-xdp tunnel set fra1 route 10.3.0.0/16 noroute 10.2.0.0/16",
        "gre-xdp tunnel set fra1 ikey 5 --dry-run",
    ),
)
@_name_argument(is_known=True)
@_words_argument()
@_edit_options
@shared(config_option, netns_option)
@pass_options
def set_(
    options: Options, name: str, words: tuple[str, ...], dry_run: bool, no_apply: bool
) -> None:
    """Change a tunnel of the configuration file, and apply it.

    The words are those of gre-xdp tunnel add. What is not named stays as it is, and what the
    tunnel has already stays as it is written.

    \b
    The words that take something away:
      nokey, noikey, nookey           no key, in both or one direction
      nocsum, noicsum, noocsum, noseq, noiseq, nooseq
      noaddress A, noroute PREFIX, noallowed_source PREFIX

    A value is written also where it is the default; the words with no remove their keys, and
    nopmtudisc writes false. address, route and allowed_source add to what is there. ikey and okey
    leave the other direction the key that both had. name NEW gives it another name: that makes
    another device, and the counters begin anew.
    """  # noqa: D301 - \b is click's mark for a paragraph that keeps its lines
    from gre_xdp import config_edit

    wanted = _change(words)

    def edit(text: str, source: str) -> str:
        return config_edit.change(text, name, wanted, source)

    _carry_out(options, edit, dry_run=dry_run, no_apply=no_apply)


@tunnel.command(
    "del",
    cls=NamespaceCommand,
    needs=_NEEDS,
    examples=("gre-xdp tunnel del fra1", "gre-xdp tunnel del fra1 --no-apply"),
)
@_name_argument(is_known=True)
@_edit_options
@shared(config_option, netns_option)
@pass_options
def del_(options: Options, name: str, dry_run: bool, no_apply: bool) -> None:
    """Remove a tunnel from the configuration file, and apply it.

    Its table goes, and with it comments that are clearly its own: lines directly above, unless
    they begin the file or follow another table directly, and lines directly below, unless another
    table follows them directly.
    """
    from gre_xdp import config_edit

    def edit(text: str, source: str) -> str:
        return config_edit.remove(text, name, source)

    _carry_out(options, edit, dry_run=dry_run, no_apply=no_apply)


def _carry_out(
    options: Options, edit: Callable[[str, str], str], *, dry_run: bool, no_apply: bool
) -> None:
    """Edit the file; unless told not to, apply it, and have the former file if that fails.

    ``edit`` makes the new text of the old one and the file's name.
    """
    from gre_xdp import agent_lock, config, config_file, reconcile, writer_lock
    from gre_xdp.history import History

    path = options.config
    with config_file.editing(path) as file:
        text = edit(file.text, config.shown(path))
        try:
            wanted = config.parse(text, config.shown(path))
        except ConfigErrors:
            if not options.json:
                output.note("nothing is changed; these are the lines of the file as it would be:")
            raise
        if dry_run:
            _preview(options, file.text, text, [] if no_apply else reconcile.diff(wanted))
            return
        if no_apply:
            if text != file.text:
                file.replace(text)
            _report_edited(options, is_edited=text != file.text)
            return
        writer_lock.require_root()
        history = History(path)
        refuse_pending(history)
        agent = agent_lock.require_agreement(path)
        with terminable():
            try:
                if text != file.text:
                    file.replace(text)
                # An agent that reads the file later would undo what is applied, for a moment.
                if agent is not None:
                    agent_lock.reload(agent)
                steps = reconcile.apply(wanted)
            except BaseException:
                file.put_back()
                if agent is not None:
                    agent_lock.reload(agent)
                raise
        history.note_applied(text)
    report_applied(options, wanted, steps)


def _preview(options: Options, old: str, new: str, steps: list[Any]) -> None:
    lines = list(
        difflib.unified_diff(
            old.splitlines(),
            new.splitlines(),
            str(options.config),
            f"{options.config} (edited)",
            lineterm="",
        )
    )
    if options.json:
        output.print_json({"changes": [step.as_dict() for step in steps], "edit": lines})
        return
    for line in lines:
        output.say(line)
    if steps:
        output.print_steps(steps)
    elif not lines:
        output.say(NOTHING)


def _report_edited(options: Options, *, is_edited: bool) -> None:
    if options.json:
        output.print_json({"changes": []})
    elif is_edited:
        output.say(f"{options.config}: edited; gre-xdp apply makes the kernel match")
    else:
        output.say(NOTHING)
