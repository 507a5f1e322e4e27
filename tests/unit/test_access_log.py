"""The access log and the layer that writes it: everything about a request, and no secret of it."""

from __future__ import annotations

import asyncio
import os
import re
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from moorage.registry.web.access_log import MAX_AGENT, MAX_PATH, AccessLog, Entry, harmless_query
from moorage.registry.web.metrics import Table
from moorage.registry.web.middleware import observed

from tests.servers import serving


async def _app(scope: Any, receive: Any, send: Any) -> None:
    scope["moorage.endpoint"] = "GetBlob"
    if scope["path"] == "/fails":
        raise ValueError("a defect")
    body = (await receive())["body"] if scope["method"] == "POST" else b""
    headers = [(b"content-length", b"6")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    if scope["path"] == "/breaks":
        raise ValueError("a defect in the middle")
    await send({"type": "http.response.body", "body": b"abc", "more_body": True})
    await send({"type": "http.response.body", "body": b"def"})
    assert headers == [(b"content-length", b"6")], "what the app sent is the app's"
    assert len(body) in (0, 5)


class _Logged:
    """A logged app on a real server."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table = Table(workers=1)
        self.descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self.log = AccessLog(self.descriptor)
        self.app = observed(_app, self.table.meter(0), self.log)

    async def ask(self, method: str, target: str, **options: Any) -> httpx.Response | None:
        async with serving(self.app) as url, httpx.AsyncClient(timeout=60) as client:
            try:
                return await client.request(method, url + target, **options)
            except httpx.RemoteProtocolError:
                return None

    def lines(self) -> list[dict[str, Any]]:
        self.log.flush()
        return [msgspec.json.decode(line) for line in self.path.read_bytes().splitlines()]


@pytest.fixture
def logged(tmp_path: Path) -> Any:
    logged = _Logged(tmp_path / "access.log")
    yield logged
    os.close(logged.descriptor)


async def test_a_request_is_one_line(logged: _Logged) -> None:
    """Everything that an operator asks for, under the name that the answer carries too."""
    answer = await logged.ask("POST", "/v2/a?digest=sha256:0", content=b"12345", headers={"User-Agent": "docker/28"})
    (line,) = logged.lines()
    assert answer is not None
    assert line.pop("ms") > 0
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("time"))
    assert line.pop("id") == answer.headers["x-request-id"]
    assert line == {
        "method": "POST",
        "path": "/v2/a",
        "query": "digest=sha256:0",
        "status": 200,
        "bytes": 6,
        "received": 5,
        "client": "127.0.0.1",
        "agent": "docker/28",
    }


async def test_secrets_are_not_written(logged: _Logged) -> None:
    """Neither Authorization nor cookies nor parameters that might be signatures leave a trace."""
    headers = {"Authorization": "Bearer s3cret", "Cookie": "s3cret", "X-Forwarded-For": "s3cret"}
    await logged.ask("GET", "/v2/a?token=s3cret&n=5&X-Amz-Signature=s3cret&s3cret", headers=headers)
    logged.log.flush()
    assert b"s3cret" not in logged.path.read_bytes()
    assert logged.lines()[0]["query"] == "n=5"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        pytest.param("ci-1234", True, id="plain"),
        pytest.param("a" * 64, True, id="64 characters"),
        pytest.param("a" * 65, False, id="65 characters"),
        pytest.param("a b", False, id="space"),
        pytest.param('a"},{', False, id="quotes"),
    ],
)
async def test_the_clients_request_id(logged: _Logged, given: str, kept: bool) -> None:
    """A client's id is taken over if it is harmless; otherwise it gets ours."""
    answer = await logged.ask("GET", "/x", headers={"X-Request-Id": given})
    assert answer is not None
    assert (answer.headers["x-request-id"] == given) is kept
    assert logged.lines()[0]["id"] == answer.headers["x-request-id"]


async def test_ids_differ(logged: _Logged) -> None:
    """No two requests share an id."""
    answers = [await logged.ask("GET", "/x") for _ in range(3)]
    assert len({answer.headers["x-request-id"] for answer in answers if answer}) == 3


@pytest.mark.parametrize(
    ("path", "status"),
    [pytest.param("/fails", "5xx", id="before the answer"), pytest.param("/breaks", "cut", id="in the middle")],
)
async def test_a_failure_is_logged(logged: _Logged, path: str, status: str) -> None:
    """A defect before the answer is a 500 to all; an answer that was not completed says so, in log and figures."""
    answer = await logged.ask("GET", path)
    (line,) = logged.lines()
    assert (line["status"], line.get("cut", False)) == ((500, False) if answer else (200, True))
    figure = f'moorage_requests_total{{endpoint="GetBlob",method="GET",status="{status}"}} 1.0'
    assert figure in logged.table.render("1").decode()


async def test_long_and_strange_values_stay_in_their_string(logged: _Logged) -> None:
    """A path or agent of any length and bytes is cut and escaped; a line stays a line."""
    agent = b"\xff\xc2\x85\t" + b"x" * 1000
    await logged.ask("GET", "/" + "y" * 5000 + "%0a%22", headers=[(b"User-Agent", agent)])
    (line,) = logged.lines()
    assert (len(line["path"]), len(line["agent"])) == (MAX_PATH, MAX_AGENT)
    assert logged.path.read_bytes().count(b"\n") == 1


def _entry(**values: Any) -> Entry:
    fixed: dict[str, Any] = {
        "time": "t",
        "method": "GET",
        "path": "/",
        "status": 200,
        "bytes": 0,
        "ms": 1.0,
        "client": "",
        "agent": "",
    }
    return Entry(**(fixed | {"id": "1"} | values))


def test_query_parameters() -> None:
    """Known ones are kept as they came, others vanish with their names."""
    assert harmless_query(b"n=1&last=a%2Fb&password=x&from=c&from") == "n=1&last=a%2Fb&from=c&from"
    assert len(harmless_query(b"tag=" + b"x" * 9000)) == 512


async def test_lines_of_many_writers_are_not_torn() -> None:
    """Through one pipe, written in pieces that the kernel takes whole."""
    reading, writing = os.pipe()
    log = AccessLog(writing)
    for i in range(200):
        log.write(_entry(path=f"/{i}", agent="x" * 190))
    reader = asyncio.create_task(asyncio.to_thread(_read_all, reading))
    await asyncio.to_thread(log.flush)
    os.close(writing)
    lines = (await reader).splitlines()
    assert [f"/{i}" for i in range(200)] == [msgspec.json.decode(line)["path"] for line in lines]


def _read_all(descriptor: int) -> bytes:
    with open(descriptor, "rb") as file:
        return file.read()


async def test_a_broken_log_does_not_stop_the_registry(caplog: pytest.LogCaptureFixture) -> None:
    """A reader that is gone costs its lines and one warning, nothing else."""
    reading, writing = os.pipe()
    os.close(reading)
    log = AccessLog(writing)
    for _ in range(2):
        log.write(_entry())
        log.flush()
    os.close(writing)
    assert len([record for record in caplog.records if "access log" in record.message]) == 1


def test_the_clock() -> None:
    """Times are UTC to the millisecond, also across a second."""
    times = iter([0.9996, 1.0, 1.5])
    log = AccessLog(1, clock=lambda: next(times))
    assert [log.now() for _ in range(3)] == [f"1970-01-01T00:00:0{each}Z" for each in ("0.999", "1.000", "1.500")]
