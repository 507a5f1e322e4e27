"""Uploads that go on at another replica with every chunk, while replicas die.

Law of the judgement (promise M7): an upload stands where an answer said, or further, at a place that was sent; it is
known until it is finished; and what comes out are the bytes that went in.
"""

from __future__ import annotations

import hashlib
import itertools
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, TypeVar

import httpx

__all__ = ["UploadLoad"]

_MIB: Final = 1024 * 1024
_SIZES: Final = (0, 2, 70_000, 5 * _MIB, 12 * _MIB, 13 * _MIB, 26 * _MIB)
"""Around the size of a part (12 MiB) and the limit of what is budgeted."""

_PATIENCE: Final = 180.0
"""Seconds without any progress after which an upload hangs."""


_Result = TypeVar("_Result")


class _Lost(Exception):
    """No answer, or none that tells what happened."""


@dataclass
class UploadLoad:
    """One client's uploads to repository ``name``, one after another. ``finished``: how many; ``moves``: how often a
    request found the upload where another replica had left it."""

    urls: Callable[[], list[str]]
    seed: int
    name: str = "team/uploads"
    finished: int = 0
    moves: int = 0
    complaints: list[str] = field(default_factory=list)

    def run(self, stop: threading.Event) -> None:
        """Uploads until ``stop`` is set; at least one is finished."""
        with httpx.Client(timeout=30, follow_redirects=True) as http:
            for number in itertools.count():
                if self.complaints or (stop.is_set() and self.finished):
                    return
                try:
                    _Upload(self, http, random.Random(f"{self.seed}-{number}")).run()
                except Exception as failure:  # noqa: BLE001  # whatever it is, it must be heard of
                    self.complaints.append(f"upload {number}: {failure!r}")
                self.finished += 1


class _Upload:
    def __init__(self, load: UploadLoad, http: httpx.Client, dice: random.Random) -> None:
        self._load, self._http, self._dice = load, http, dice
        self._content = dice.randbytes(dice.choice(_SIZES))
        self._digest = f"sha256:{hashlib.sha256(self._content).hexdigest()}"
        self._base = f"/v2/{load.name}/blobs/"
        self._acknowledged = 0
        self._last = ""

    def run(self) -> None:
        self._acknowledged = 0
        place = self._persist(self._open)
        offset = 0
        while offset < len(self._content):
            stop = min(len(self._content), offset + self._dice.choice((2, 1000, _MIB, 8 * _MIB, 30 * _MIB)))
            offset = self._persist(partial(self._send, place, offset, stop))
        self._persist(lambda: self._finish(place))
        self._persist(self._compare)

    def _persist(self, step: Callable[[], _Result]) -> _Result:
        """Does a step until it is known to be done; each try may be at another replica."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return step()
            except _Lost:
                assert time.monotonic() < deadline, f"no progress with {step!r}"
                time.sleep(0.05)

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        replicas = self._load.urls()
        if not replicas:
            raise _Lost
        url = self._dice.choice(replicas)
        self._load.moves += self._last not in ("", url)
        self._last = url
        try:
            answer = self._http.request(method, f"{url}{path}", **arguments)
        except httpx.TransportError:
            raise _Lost from None
        if answer.status_code == 503:
            raise _Lost
        return answer

    def _open(self) -> str:
        answer = self._ask("POST", f"{self._base}uploads/")
        assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
        return str(answer.headers["Location"])

    def _send(self, place: str, start: int, stop: int) -> int:
        """Sends a chunk; returns where the upload stands, which is where it was asked for if the answer was lost."""
        headers = {"Content-Range": f"{start}-{stop - 1}"}
        try:
            answer = self._ask("PATCH", place, content=self._content[start:stop], headers=headers)
        except _Lost:
            return self._look(place, {start, stop})
        if answer.status_code == 416:  # what was taken for lost came through after all
            return self._look(place, {start, stop})
        assert answer.status_code == 202, f"{answer.status_code}: {answer.text}"
        self._acknowledged = stop
        return stop

    def _look(self, place: str, sent: set[int]) -> int:
        answer = self._persist(lambda: self._ask("GET", place))
        assert answer.status_code == 204, f"the upload is lost: {answer.status_code} {answer.text}"
        first, _, last = answer.headers["Range"].partition("-")
        offset = 0 if (first, last) == ("0", "0") else int(last) + 1  # no chunk ends behind the first byte
        low, high = self._acknowledged, max(sent)
        assert low <= offset <= high, f"the upload stands at {offset}, not between {low} and {high}"
        self._acknowledged = offset
        return offset

    def _finish(self, place: str) -> None:
        try:
            answer = self._ask("PUT", place, params={"digest": self._digest})
        except _Lost:
            if self._holds():
                return
            raise
        if answer.status_code == 404 and not self._holds():
            # An earlier closing request, whose answer was lost, took the bytes and died before it linked them: what was
            # not acknowledged may be gone, and is sent again.
            self.run()
            return
        assert answer.status_code in (201, 404), f"{answer.status_code}: {answer.text}"

    def _holds(self) -> bool:
        answer = self._persist(lambda: self._ask("HEAD", f"{self._base}{self._digest}"))
        return answer.status_code == 200

    def _compare(self) -> None:
        answer = self._ask("GET", f"{self._base}{self._digest}")
        assert answer.status_code == 200, f"{answer.status_code}: {answer.text}"
        assert answer.content == self._content, "other bytes came out"
