"""The verbs that change a registry: ``push``, ``copy``, ``delete``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from moorage.puller.client import AsyncClient, to_platform, to_reference
from moorage.puller.commands.arguments import facts, tell_plan
from moorage.puller.commands.running import run_async
from moorage.puller.errors import BadReference
from moorage.puller.places import is_local
from moorage.puller.platforms import host_platform
from moorage.puller.show.console import display, to_json
from moorage.puller.show.text import printable
from moorage.puller.sources import is_directory_to_pack
from moorage.puller.transfer import CopyResult, Plan

if TYPE_CHECKING:
    from moorage.puller.pack import PackOptions

__all__ = ["copy", "delete", "push"]


def push(
    source: str,
    reference: str,
    compression: str | None,
    owner: str | None,
    ignore_file: str | None,
    referrers: bool,
    foreign: bool,
    store: str | None,
    platform: str | None,
    deadline: float | None,
    plan: bool,
    as_json: bool,
) -> Iterator[str]:
    """Sends a directory, a layout, an archive or an image of the store."""
    chosen, pack = to_platform(platform), _to_pack_options(source, compression, owner, ignore_file)

    async def work() -> CopyResult | Plan:
        async with AsyncClient(store, on_event=show) as client:
            if plan:
                return await client.plan_push(
                    source, reference, platform=chosen, pack=pack, referrers=referrers, foreign=foreign
                )
            return await client.push(
                source,
                reference,
                platform=chosen,
                pack=pack,
                referrers=referrers,
                foreign=foreign,
                deadline=deadline,
            )

    with display(as_json=as_json, moving="sending") as show:
        result = run_async(work())
    yield from _tell("Pushed", reference, result, as_json=as_json)


def _to_pack_options(
    source: str, compression: str | None, owner: str | None, ignore_file: str | None
) -> PackOptions | None:
    """What was asked for; None where it was nothing, and the packer is not loaded.

    Raises:
        BadReference: it is not well written, or there is nothing to pack.
    """
    if compression is owner is ignore_file is None:
        return None
    if not is_directory_to_pack(source):
        raise BadReference(f"{source}: --compression, --owner and --ignore-file are for a directory")
    from moorage.puller.pack import (  # noqa: PLC0415 (most pushes do not need it)
        Compression,
        Ignore,
        PackOptions,
        parse_compression,
        parse_owner,
        read_ignore_file,
    )

    return PackOptions(
        parse_compression(compression) if compression is not None else Compression(),
        parse_owner(owner) if owner is not None else None,
        read_ignore_file(ignore_file) if ignore_file is not None else Ignore(),
    )


def copy(
    source: str,
    destination: str,
    all_platforms: bool,
    referrers: bool,
    foreign: bool,
    store: str | None,
    platform: str | None,
    deadline: float | None,
    plan: bool,
    as_json: bool,
) -> Iterator[str]:
    """Copies between registries, layouts, archives and the store."""
    chosen = None if all_platforms else to_platform(platform) or host_platform()

    async def work() -> CopyResult | Plan:
        async with AsyncClient(store, on_event=show) as client:
            if plan:
                return await client.plan_copy(
                    source, destination, platform=chosen, referrers=referrers, foreign=foreign
                )
            return await client.copy(
                source, destination, platform=chosen, referrers=referrers, foreign=foreign, deadline=deadline
            )

    with display(as_json=as_json) as show:
        result = run_async(work())
    yield from _tell("Copied", destination, result, as_json=as_json)


def delete(reference: str) -> Iterator[str]:
    """Deletes a tag or a manifest."""

    async def work() -> None:
        async with AsyncClient() as client:
            await client.delete(reference)

    run_async(work())
    yield printable(f"deleted {to_reference(reference)}")


def _tell(event: str, reference: str, result: CopyResult | Plan, *, as_json: bool) -> Iterator[str]:
    if isinstance(result, Plan):
        yield from tell_plan(result, move="send", as_json=as_json)
        return
    name = reference if is_local(reference) else str(to_reference(reference))
    if as_json:
        about = {**facts(result.descriptor), "moved": result.moved, "seconds": round(result.seconds, 3)}
        yield to_json({"event": event, "reference": name, **about})
    else:
        yield printable(f"{name}@{result.descriptor.digest}")
