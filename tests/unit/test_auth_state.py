"""What authentication keeps is one and the same for every process, and whoever loses a race learns it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NoReturn

import pytest
from moorage.auth.errors import StateConflict, StateUnavailable
from moorage.auth.state import RECENT, RecentState, State, Stored
from moorage.registry.auth_state import StoredState
from moorage.storage_backends.base import ObjectInfo, ObjectStore
from moorage.storage_backends.errors import StorageUnavailable
from moorage.storage_backends.memory import MemoryStore
from moorage.storage_backends.urls import open_store


@pytest.fixture(params=["memory", "filesystem"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ObjectStore]:
    opened = await open_store("memory:" if request.param == "memory" else str(tmp_path / "root"))
    yield opened
    await opened.close()


async def test_values_are_kept(store: ObjectStore) -> None:
    """Read, written and removed by name; what is absent is None, and its removal no error."""
    state = StoredState(store)
    assert await state.read("robots/ci") is None
    version = await state.write("robots/ci", b"one", expect=None)
    assert await StoredState(store).read("robots/ci") == Stored(b"one", version)
    await state.write("robots/ci", b"two", expect=version)
    await state.write("robots/a", b"", expect=None)
    await state.write("refresh/a", b"", expect=None)
    assert [name async for name in state.names("robots/")] == ["robots/a", "robots/ci"]
    for _ in range(2):
        await state.delete("robots/ci")
    assert await state.read("robots/ci") is None


async def test_they_lie_under_auth(store: ObjectStore) -> None:
    """DESIGN 4: ``auth/…``, so that no repository's key is ever one of them."""
    await StoredState(store).write("robots/ci", b"x", expect=None)
    found = [one async for one in store.list("")]
    assert [one.key for one in found if isinstance(one, ObjectInfo)] == ["auth/robots/ci"]


async def test_of_many_writers_one_wins(store: ObjectStore) -> None:
    """Compare-and-swap: for what must be absent, and for what must be as it was read."""
    state = StoredState(store)
    for expect in (None, "read"):
        stored = await state.read("a")
        version = stored.version if stored and expect else None
        outcomes = await asyncio.gather(
            *(state.write("a", b"%d %d" % (number, bool(expect)), expect=version) for number in range(8)),
            return_exceptions=True,
        )
        assert sum(isinstance(one, str) for one in outcomes) == 1
        assert sum(isinstance(one, StateConflict) for one in outcomes) == 7


class _Unreachable(MemoryStore):
    """A store that does not answer."""

    def _no_answer(self, *_: Any, **__: Any) -> NoReturn:
        raise StorageUnavailable("no answer")

    read = put = delete = list = _no_answer


async def test_a_store_that_does_not_answer() -> None:
    """Is told apart from a value that is not there: nothing may be concluded from it, least of all a right."""
    state = StoredState(_Unreachable())
    for call in (state.read("a"), state.write("a", b"", expect=None), state.delete("a"), anext(state.names("a/"))):
        with pytest.raises(StateUnavailable, match="no answer"):
            await call


async def test_recent_state() -> None:
    """Within a second a value, or that there is none, is not asked for again; after that it is."""
    seconds, below = [0.0], StoredState(MemoryStore())
    recent = RecentState(below, clock=lambda: seconds[0])
    assert await recent.read("a") is None
    version = await below.write("a", b"one", expect=None)
    assert await recent.read("a") is None
    seconds[0] += RECENT
    assert await recent.read("a") == Stored(b"one", version)
    await below.delete("a")
    seconds[0] += RECENT
    assert await recent.read("a") is None


async def test_what_is_written_is_seen_at_once() -> None:
    """By the same process; a write that lost its race makes it look again, too."""
    below = StoredState(MemoryStore())
    recent = RecentState(below, clock=lambda: 0.0)
    assert await recent.read("a") is None
    version = await recent.write("a", b"one", expect=None)
    assert await recent.read("a") == Stored(b"one", version)
    await recent.delete("a")
    assert await recent.read("a") is None
    version = await below.write("a", b"two", expect=None)
    with pytest.raises(StateConflict):
        await recent.write("a", b"three", expect=None)
    assert await recent.read("a") == Stored(b"two", version)
    assert [name async for name in recent.names("")] == ["a"]


async def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Logins with names that nobody has cannot fill the memory."""
    monkeypatch.setattr("moorage.auth.state._REMEMBERED", 3)
    asked: list[str] = []

    class Asked(StoredState):
        async def read(self, name: str) -> Stored | None:
            asked.append(name)
            return await super().read(name)

    recent: State = RecentState(Asked(MemoryStore()), clock=lambda: 0.0)
    for name in "abcdad":
        await recent.read(name)
    assert "".join(asked) == "abcda"
