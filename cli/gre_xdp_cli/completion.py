"""Shell completion: prints the script that a shell loads."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from gre_xdp_cli import output
from gre_xdp_cli.options import Command, Options, pass_options, shared

_PROGRAM = "gre-xdp"
_VARIABLE = "_GRE_XDP_COMPLETE"


@click.command(
    cls=Command,
    needs="no root",
    examples=(
        "gre-xdp completion bash > /etc/bash_completion.d/gre-xdp",
        "gre-xdp completion zsh  > /usr/local/share/zsh/site-functions/_gre-xdp",
        "gre-xdp completion fish > ~/.config/fish/completions/gre-xdp.fish",
    ),
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@shared()
@click.pass_context
@pass_options
def completion(options: Options, ctx: click.Context, shell: str) -> None:
    """Print the completion script of a shell."""
    make = get_completion_class(shell)
    assert make is not None
    # Not source(): that runs bash to ask for its version, which is not known where the script goes.
    complete = make(ctx.find_root().command, {}, _PROGRAM, _VARIABLE)
    script = complete.source_template % complete.source_vars()
    if options.json:
        output.print_json({"shell": shell, "script": script})
    else:
        output.say(script)
