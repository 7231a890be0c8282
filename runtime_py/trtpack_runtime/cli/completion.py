# SPDX-License-Identifier: Apache-2.0
"""``trtpack completion``."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ..errors import InternalError

EXAMPLES = """\b
Examples:
  trtpack completion bash > ~/.local/share/bash-completion/completions/trtpack
  trtpack completion zsh > "${fpath[1]}/_trtpack"
  trtpack completion fish > ~/.config/fish/completions/trtpack.fish
"""


@click.command(epilog=EXAMPLES)
@click.argument("shell", metavar="SHELL", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the script that completes trtpack in SHELL: bash, zsh or fish."""
    from .group import COMPLETE_VARIABLE, trtpack

    found = get_completion_class(shell)
    if found is None:
        raise InternalError(f"click has no completion for {shell}")
    click.echo(found(trtpack, {}, "trtpack", COMPLETE_VARIABLE).source())
