"""The words of the command line: arguments, options and help of each verb, one module per group.

Law: a verb here checks what contradicts itself and calls ``run``; only click is loaded until then, so help is instant.
"""

from __future__ import annotations

import gc
from typing import Any

import click

__all__ = ["as_json", "deadline", "named", "plan", "platform", "run", "store"]


def named(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """Refuses an empty name, which is the working directory to the system; who writes one has a variable unset."""
    if value == "":
        raise click.BadParameter("the name is empty")
    return value


as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document per line on stdout.")
store = click.option(
    "--store", metavar="DIR", callback=named, help="The local store.  [default: $MOORAGE_STORE or the user's data]"
)
platform = click.option("--platform", metavar="OS/ARCH", help="Which image of an index.  [default: this machine's]")

plan = click.option("--plan", is_flag=True, help="Only say what would be moved, in bytes; nothing is done.")
deadline = click.option(
    "--deadline", metavar="SECONDS", type=click.FloatRange(min=0, min_open=True), help="Give up when it takes longer."
)


def run(verb: str, **options: Any) -> None:
    """Runs a verb; what it needs is loaded now."""
    gc.disable()  # most of what loading makes stays: looking through it again and again took 7 % of a small pull
    from moorage.puller import commands  # noqa: PLC0415 (see the law)

    commands.run(verb, options)
