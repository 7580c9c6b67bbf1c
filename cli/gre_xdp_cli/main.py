"""The command ``gre-xdp``: its shared options, its commands, and the one place that ends it."""

from __future__ import annotations

import contextlib
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any, NoReturn

import click

import gre_xdp
from gre_xdp_cli import config_commands, output, serve
from gre_xdp_cli.bench import bench
from gre_xdp_cli.completion import completion
from gre_xdp_cli.confirm import confirm, rollback
from gre_xdp_cli.demo import demo
from gre_xdp_cli.doctor import doctor
from gre_xdp_cli.failures import BROKEN_PIPE_EXIT, INTERRUPTED_EXIT, exit_code, explain
from gre_xdp_cli.lab import lab
from gre_xdp_cli.mtu import mtu
from gre_xdp_cli.options import Group, Options, asks_for_json, config_option, netns_option, shared
from gre_xdp_cli.show import show
from gre_xdp_cli.tunnel import tunnel

# What click raises for a group without a command, with the help text as message; new in 8.2.
_NO_ARGUMENTS: Any = getattr(click.exceptions, "NoArgsIsHelpError", ())


class Root(Group):
    """The whole command: whatever goes wrong below becomes one error and an exit code here."""

    def main(  # type: ignore[override]  # always ends the process, as click does by default
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        **extra: Any,
    ) -> NoReturn:
        """Run with these arguments, those of the process if None; raises ``SystemExit``."""
        arguments = list(sys.argv[1:] if args is None else args)
        options = Options(json=asks_for_json(arguments))
        extra |= {"standalone_mode": False, "obj": options}
        _prepare_streams()
        try:
            code = super().main(arguments, prog_name or self.name, **extra)
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_stdout()
            sys.exit(BROKEN_PIPE_EXIT)
        except (KeyboardInterrupt, click.Abort):
            sys.exit(INTERRUPTED_EXIT)
        except Exception as problem:  # noqa: BLE001 - users get a sentence, whatever happens
            sys.exit(_fail(problem, options))
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: click.Context) -> Any:
        """Called by click; a Ctrl-C from here on ends it without the blank line click prints."""
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            raise click.exceptions.Exit(INTERRUPTED_EXIT) from None


def _prepare_streams() -> None:
    """Make stdin, stdout and stderr usable, however this process was started."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        # Python has None in place of a stream that was closed before it started.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: SIM115 - stays open
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without the characters of a message is no reason to fail.
        sys.stdout.reconfigure(errors="backslashreplace")


def _fail(problem: Exception, options: Options) -> int:
    """Tell the user; returns the exit code."""
    if isinstance(problem, _NO_ARGUMENTS) and not options.json:
        output.note(problem.format_message())
    else:
        is_traced = options.debug and not isinstance(problem, click.ClickException)
        trace = "".join(traceback.format_exception(problem)) if is_traced else None
        output.print_error(explain(problem), as_json=options.json, traceback=trace)
    try:
        sys.stdout.flush()
    except OSError:
        _forget_stdout()
    return exit_code(problem, options.trouble_code)


def _forget_stdout() -> None:
    """Nobody takes what is left in stdout's buffer: Python must not try to write it at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _print_version(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    del parameter
    if not value or ctx.resilient_parsing:
        return
    if ctx.ensure_object(Options).json:
        output.print_json({"version": gre_xdp.__version__})
    else:
        output.say(f"gre-xdp {gre_xdp.__version__}")
    ctx.exit()


@click.group(
    "gre-xdp",
    cls=Root,
    context_settings={
        "auto_envvar_prefix": "GRE_XDP",
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
    examples=(
        "gre-xdp check site.toml         # is the file right? needs no root",
        "sudo gre-xdp diff site.toml     # what would change?",
        "sudo gre-xdp apply site.toml    # change it",
        "sudo gre-xdp show -s            # does it work?",
        "sudo gre-xdp lab up             # try it without a network of your own",
    ),
)
@shared(config_option, netns_option)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    allow_from_autoenv=False,
    callback=_print_version,
    help="Print the version.",
)
def cli() -> None:
    """GRE tunnels forwarded by XDP, with the kernel as control plane and slow path.

    Write /etc/gre-xdp/config.toml, then: check, diff, apply, show. Nouns (show) change nothing,
    verbs (apply, down) do. Every option can be set in the environment, as in GRE_XDP_CONFIG.
    """


for _command in (
    config_commands.check,
    config_commands.diff,
    config_commands.apply,
    confirm,
    rollback,
    tunnel,
    show,
    config_commands.down,
    serve.agent,
    serve.exporter,
    lab,
    doctor,
    mtu,
    bench,
    completion,
):
    cli.add_command(_command)
lab.add_command(demo)


def main() -> NoReturn:
    """Entry point of the program."""
    cli.main()


if __name__ == "__main__":
    main()
