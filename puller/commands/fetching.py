"""The verbs that bring images here: ``pull``, ``unpack``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from moorage.puller.client import AsyncClient, to_platform, to_reference
from moorage.puller.commands.arguments import facts, tell_plan
from moorage.puller.commands.running import run_async
from moorage.puller.results import LayerResult, PullResult
from moorage.puller.show.console import display, say, to_json
from moorage.puller.show.text import few_lines, printable
from moorage.registry.oci import Platform, Reference

if TYPE_CHECKING:
    from moorage.puller.transfer import Plan
    from moorage.puller.unpack.owners import OwnerMode

__all__ = ["pull", "unpack"]


def pull(
    reference: str,
    target: str | None,
    no_unpack: bool,
    owner: str | None,
    store: str | None,
    platform: str | None,
    deadline: float | None,
    plan: bool,
    as_json: bool,
) -> Iterator[str]:
    """Fetches into the store, and unpacks there or to ``target``."""
    owners = _prepare_owners(owner)
    wanted, chosen = to_reference(reference), to_platform(platform)
    if plan:
        yield from _plan(wanted, chosen, store, as_json=as_json)
        return

    async def work() -> PullResult:
        async with AsyncClient(store, on_event=show) as client:
            return await client.pull(
                wanted, platform=chosen, unpack=target, trees=not no_unpack, owners=owners, deadline=deadline
            )

    with display(as_json=as_json, moving="fetching") as show:
        result = run_async(work())
    _remark(result)
    name = f"{wanted.registry}/{wanted.repository}@{result.digest}"
    yield to_json({"event": "Pulled", "reference": name, **_to_json(result)}) if as_json else printable(name)


def _plan(wanted: Reference, platform: Platform | None, store: str | None, *, as_json: bool) -> Iterator[str]:
    async def work() -> Plan:
        async with AsyncClient(store) as client:
            return await client.plan_pull(wanted, platform=platform)

    yield from tell_plan(run_async(work()), move="fetch", as_json=as_json)


def unpack(
    reference: str, target: str, owner: str | None, store: str | None, platform: str | None, as_json: bool
) -> Iterator[str]:
    """Unpacks an image of the store to ``target``."""
    owners = _prepare_owners(owner)
    wanted, chosen = to_reference(reference), to_platform(platform)

    async def work() -> PullResult:
        async with AsyncClient(store, on_event=show) as client:
            return await client.pull(wanted, platform=chosen, unpack=target, owners=owners, policy="never")

    with display(as_json=as_json) as show:
        result = run_async(work())
    _remark(result)
    yield to_json({"event": "Unpacked", **_to_json(result)}) if as_json else printable(str(result.path))


def _prepare_owners(owner: str | None) -> OwnerMode | None:
    """Enters a user namespace where keeping owners needs one: now, before there is a second thread."""
    if owner is None:
        return None
    from moorage.puller.unpack.owners import OwnerMode  # noqa: PLC0415 (rarely needed)

    owners = OwnerMode(owner)
    if owners is OwnerMode.KEEP and os.geteuid() != 0:
        from moorage.puller.unpack.namespace import NoNamespace, enter_namespace  # noqa: PLC0415 (rarely needed)

        try:
            enter_namespace()
        except NoNamespace as exc:
            say(f"owners are kept only as far as your own rights allow: {exc}")
    return owners


def _remark(result: PullResult) -> None:
    for line in few_lines(result.remarks):
        say(line)


def _to_json(result: PullResult) -> dict[str, Any]:
    from moorage.puller.show.documents import times_to_json  # noqa: PLC0415 (only JSON needs it)

    return {
        **facts(result.descriptor),
        "platform": str(result.platform) if result.platform else None,
        "fetched": result.fetched,
        "seconds": round(result.seconds, 3),
        "times": times_to_json(result.times),
        "layers": [_layer_to_json(layer) for layer in result.layers],
        "paths": result.paths,
        "remarks": list(result.remarks),
    }


def _layer_to_json(layer: LayerResult) -> dict[str, Any]:
    return {
        **facts(layer.descriptor),
        "diffID": str(layer.diff_id) if layer.diff_id else None,
        "source": layer.source,
        "fetched": layer.fetched,
        "seconds": round(layer.seconds, 3),
        "path": layer.path,
    }
