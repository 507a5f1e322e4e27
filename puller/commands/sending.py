"""The verbs that change a registry: ``push``, ``copy``, ``delete``."""

from __future__ import annotations

from collections.abc import Iterator

from moorage.puller.client import AsyncClient, to_platform, to_reference
from moorage.puller.commands.arguments import facts
from moorage.puller.commands.running import run_async
from moorage.puller.platforms import host_platform
from moorage.puller.show.console import display, to_json
from moorage.puller.show.text import printable
from moorage.puller.transfer import CopyResult

__all__ = ["copy", "delete", "push"]


def push(
    source: str, reference: str, store: str | None, platform: str | None, deadline: float | None, as_json: bool
) -> Iterator[str]:
    """Sends a directory, a layout or an image of the store."""
    chosen = to_platform(platform)

    async def work() -> CopyResult:
        async with AsyncClient(store, on_event=show) as client:
            return await client.push(source, reference, platform=chosen, deadline=deadline)

    with display(as_json=as_json, moving="sending") as show:
        result = run_async(work())
    yield from _tell("Pushed", reference, result, as_json=as_json)


def copy(
    source: str,
    destination: str,
    all_platforms: bool,
    referrers: bool,
    platform: str | None,
    deadline: float | None,
    as_json: bool,
) -> Iterator[str]:
    """Copies between registries and layouts."""
    chosen = None if all_platforms else to_platform(platform) or host_platform()

    async def work() -> CopyResult:
        async with AsyncClient(on_event=show) as client:
            return await client.copy(source, destination, platform=chosen, referrers=referrers, deadline=deadline)

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


def _tell(event: str, reference: str, result: CopyResult, *, as_json: bool) -> Iterator[str]:
    name = reference if reference.startswith("oci:") else str(to_reference(reference))
    if as_json:
        about = {**facts(result.descriptor), "moved": result.moved, "seconds": round(result.seconds, 3)}
        yield to_json({"event": event, "reference": name, **about})
    else:
        yield printable(f"{name}@{result.descriptor.digest}")
