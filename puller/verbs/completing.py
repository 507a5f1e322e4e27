"""The verb that teaches shells the others."""

from __future__ import annotations

import click

__all__ = ["completion"]


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes a shell complete our words.

    bash: add `eval "$(moorage completion bash)"` to ~/.bashrc; zsh: the same in ~/.zshrc; fish: write the output to
    ~/.config/fish/completions/moorage.fish.
    """
    from click.shell_completion import get_completion_class  # noqa: PLC0415 (nobody else needs it)

    maker = get_completion_class(shell)
    if maker is None:
        raise click.UsageError(f"{shell}: cannot be completed")
    click.echo(maker(context.find_root().command, {}, "moorage", "_MOORAGE_COMPLETE").source())
