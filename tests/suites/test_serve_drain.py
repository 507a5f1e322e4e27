"""``moorage serve`` as a process: it starts, says where, heals, and stops without hurting anybody.

Law of stopping (DESIGN 10, promise F6): not ready at once, connections for a while, then none; what runs may end;
status 0; no process stays.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from tests.servers import MoorageProcess

BLOB = os.urandom(1024) * 65536  # 64 MiB: far beyond what sockets buffer
DIGEST = f"sha256:{hashlib.sha256(BLOB).hexdigest()}"
DELAY = 4.0
PATIENCE = 60.0
"""Seconds after which what is waited for has not come; on a busy machine much comes late."""

workers = pytest.mark.parametrize("workers", [pytest.param(1, id="1 worker"), pytest.param(4, id="4 workers")])


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def _children(pid: int) -> list[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _is_refused(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
    except ConnectionRefusedError:
        return True
    except TimeoutError:
        return False
    return False


def _ask(url: str, path: str) -> int:
    """The status of a GET on a connection of its own; without httpx, which takes too long to begin."""
    connection = http.client.HTTPConnection("127.0.0.1", _port(url), timeout=PATIENCE)
    try:
        connection.request("GET", path)
        return connection.getresponse().status
    finally:
        connection.close()


def _push(url: str) -> None:
    answer = httpx.post(f"{url}/v2/big/blobs/uploads/?digest={DIGEST}", content=BLOB, timeout=PATIENCE)
    assert answer.status_code == 201


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@contextmanager
def _slow_download(url: str) -> Iterator[list[str]]:
    """Reads the blob in a thread, slowly until the block ends; the list then gets its digest."""
    digests: list[str] = []
    begun, hurry = threading.Event(), threading.Event()

    def read() -> None:
        seen = hashlib.sha256()
        with httpx.stream("GET", f"{url}/v2/big/blobs/{DIGEST}", timeout=PATIENCE) as answer:
            for chunk in answer.iter_raw(1024 * 1024):
                seen.update(chunk)
                begun.set()
                hurry.wait(0.5)
        digests.append(f"sha256:{seen.hexdigest()}")

    with _thread(read, hurry):
        assert begun.wait(PATIENCE)
        yield digests


@contextmanager
def _slow_upload(url: str) -> Iterator[list[int]]:
    """Sends a blob in a thread, slowly until the block ends; the list then gets the status."""
    parts = [os.urandom(4096) for _ in range(200)]
    digest = hashlib.sha256(b"".join(parts)).hexdigest()
    statuses: list[int] = []
    begun, hurry = threading.Event(), threading.Event()

    def body() -> Iterator[bytes]:
        for part in parts:
            yield part
            begun.set()
            hurry.wait(0.3)

    def send() -> None:
        address = f"{url}/v2/slow/blobs/uploads/?digest=sha256:{digest}"
        statuses.append(httpx.post(address, content=body(), timeout=PATIENCE).status_code)

    with _thread(send, hurry):
        assert begun.wait(PATIENCE)
        yield statuses


@contextmanager
def _thread(run: Callable[[], None], hurry: threading.Event) -> Iterator[None]:
    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        hurry.set()
        thread.join(PATIENCE)


@contextmanager
def _excused_from(moment: float) -> Iterator[None]:
    """Whoever asks after that moment, because the machine was slow, may be refused."""
    try:
        yield
    except ConnectionError:
        if time.monotonic() < moment:
            raise


@workers
def test_sigterm_drains(tmp_path: Path, workers: int) -> None:
    """Not ready at once, new connections still served, then refused; what runs ends whole; status 0; nobody stays."""
    with MoorageProcess(tmp_path / "root", "--drain-delay", f"{DELAY}s", workers=workers) as server:
        _push(server.url)
        everybody = [server.process.pid, *_children(server.process.pid)]
        assert len(everybody) == 1 + workers
        with _slow_download(server.url) as digests, _slow_upload(server.url) as statuses:
            assert _ask(server.url, "/readyz") == 200
            server.process.send_signal(signal.SIGTERM)
            began = time.monotonic()
            with _excused_from(began + DELAY):
                _until(lambda: [_ask(server.url, "/readyz") for _ in range(workers)] == [503] * workers)
                for _ in range(workers):  # each on a new connection, so on every worker
                    assert _ask(server.url, "/healthz") == 200
                    assert _ask(server.url, "/v2/") == 200
            _until(lambda: _is_refused(_port(server.url)))
            assert time.monotonic() - began > DELAY - 0.5
            assert server.process.poll() is None
            assert not digests
            assert not statuses
        assert digests == [DIGEST]
        assert statuses == [201]
        assert server.wait(timeout=PATIENCE) == 0
        assert [pid for pid in everybody if _exists(pid)] == []


@workers
def test_idle_connections_do_not_hold_up_the_end(tmp_path: Path, workers: int) -> None:
    """A kept connection that asks for nothing is closed when the listeners are."""
    flags = ("--drain-delay", "0", "--drain-timeout", "100s")
    with MoorageProcess(tmp_path / "root", *flags, workers=workers) as server, httpx.Client(timeout=PATIENCE) as client:
        for _ in range(4):
            client.get(f"{server.url}/v2/")
        assert server.stop(timeout=PATIENCE) == 0  # in less than the drain timeout


@workers
def test_a_second_signal_stops_at_once(tmp_path: Path, workers: int) -> None:
    """Whoever cannot wait sends it again: no child stays, and the status says that something was cut."""
    with MoorageProcess(tmp_path / "root", "--drain-delay", "60", workers=workers) as server:
        everybody = [server.process.pid, *_children(server.process.pid)]
        server.process.send_signal(signal.SIGINT)
        _until(lambda: _ask(server.url, "/readyz") == 503)  # it has heard; two signals at once may become one
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.wait(timeout=PATIENCE / 2) == 1  # in less than the drain delay
        assert [pid for pid in everybody if _exists(pid)] == []


def test_what_does_not_end_in_time_is_cut(tmp_path: Path) -> None:
    """After the drain timeout a request that hangs is cut, and the server still ends well."""
    with (
        MoorageProcess(tmp_path / "root", "--drain-delay", "0", "--drain-timeout", "1s") as server,
        socket.create_connection(("127.0.0.1", _port(server.url))) as client,
    ):
        client.sendall(b"POST /v2/a/blobs/uploads/?digest=sha256:" + b"0" * 64 + b" HTTP/1.1\r\nHost: a\r\n")
        client.sendall(b"Content-Length: 100\r\nExpect: 100-continue\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 100")  # the request is being served
        client.sendall(b"abc")
        began = time.monotonic()
        assert server.stop(timeout=PATIENCE) == 0
        assert time.monotonic() - began > 0.8


def test_a_worker_that_dies_is_started_again(tmp_path: Path) -> None:
    """The others go on serving, the parent says what happened, and a new one takes the place."""
    with MoorageProcess(tmp_path / "root", workers=2) as server:
        victim = _children(server.process.pid)[0]
        os.kill(victim, signal.SIGKILL)
        deadline = time.monotonic() + PATIENCE
        while victim in (now := _children(server.process.pid)) or len(now) < 2:
            assert httpx.get(f"{server.url}/healthz", timeout=PATIENCE).status_code == 200
            assert time.monotonic() < deadline
        _until(lambda: f"worker {victim} was killed by signal 9" in server.errors)
        assert server.process.poll() is None


def test_a_worker_that_keeps_dying_is_started_ever_later(tmp_path: Path) -> None:
    """A worker that dies again and again does not become a fork bomb."""
    with MoorageProcess(tmp_path / "root") as server:
        killed = set[int]()
        until = time.monotonic() + 3
        while time.monotonic() < until or len(killed) < 3:
            assert time.monotonic() < until + PATIENCE
            for pid in _children(server.process.pid):
                killed.add(pid)
                with suppress(ProcessLookupError):  # reaped between the look and the shot
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        assert 3 <= len(killed) <= 8  # pauses of 0.1, 0.2, 0.4, 0.8, 1.6 s


def test_workers_do_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """If the parent is killed outright, its workers end too, and the port is free."""
    with MoorageProcess(tmp_path / "root", workers=2) as server:
        children, port = _children(server.process.pid), _port(server.url)
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait(PATIENCE)
        _until(lambda: _is_refused(port) and not any(_exists(pid) for pid in children))


def test_figures_are_those_of_all_workers(tmp_path: Path) -> None:
    """Whichever worker is asked tells the sum of all, also after one of them died."""
    with MoorageProcess(tmp_path / "root", workers=4) as server:
        for _ in range(40):  # a connection each, so all workers get some
            assert httpx.get(f"{server.url}/v2/", timeout=PATIENCE).status_code == 200
        _until(lambda: _pings(server) == 40)  # one is counted a moment after it was answered
        os.kill(_children(server.process.pid)[0], signal.SIGKILL)
        assert [_pings(server) for _ in range(8)] == [40] * 8


def _pings(server: MoorageProcess) -> float:
    """How many of them the figures say were answered."""
    text = httpx.get(f"{server.url}/metrics", timeout=PATIENCE).text
    found = re.search(r'^moorage_requests_total{endpoint="Ping",method="GET",status="2xx"} (\S+)$', text, re.MULTILINE)
    return float(found[1]) if found else 0


def test_abandoned_uploads_expire(tmp_path: Path) -> None:
    """A session without progress for the time to live is gone, and counted."""
    with (
        MoorageProcess(tmp_path / "root", "--upload-ttl", "4s", workers=2) as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
    ):
        began = time.monotonic()
        location = client.post("/v2/a/blobs/uploads/").headers["location"]
        assert client.get(location).status_code == 204 or time.monotonic() > began + 4
        _until(lambda: 'moorage_uploads_total{event="expired"} 1.0' in client.get("/metrics").text)
        assert client.get(location).status_code == 404


def test_a_look_that_fails_is_one_line_and_is_made_again(tmp_path: Path) -> None:
    """While the store refuses to drop what has expired, the log says so without a traceback; then it is dropped."""
    locks, away = tmp_path / "root" / ".moorage" / "locks", tmp_path / "away"
    with (
        MoorageProcess(tmp_path / "root", "--upload-ttl", "200ms") as server,
        httpx.Client(base_url=server.url, timeout=PATIENCE) as client,
    ):
        locks.rename(away)
        location = client.post("/v2/a/blobs/uploads/").headers["location"]
        _until(lambda: "cannot look for what has expired: " in server.errors)
        away.rename(locks)
        _until(lambda: client.get(location).status_code == 404)
        assert "Traceback" not in server.errors


@pytest.mark.parametrize(
    ("flag", "status"),
    [pytest.param("--read-only", 405, id="read-only"), pytest.param("--no-delete", 202, id="no-delete")],
)
def test_switches_reach_the_api(tmp_path: Path, flag: str, status: int) -> None:
    """--read-only refuses to write, --no-delete to delete."""
    with MoorageProcess(tmp_path / "root", flag) as server:
        assert httpx.post(f"{server.url}/v2/a/blobs/uploads/", timeout=PATIENCE).status_code == status
        assert httpx.delete(f"{server.url}/v2/a/manifests/latest", timeout=PATIENCE).status_code == 405


def test_the_first_line_tells_where_and_how(tmp_path: Path) -> None:
    """One line on stderr: the place, the address, and what to type next."""
    with MoorageProcess(tmp_path / "root") as server:
        (line,) = server.errors.splitlines()
        assert str(tmp_path / "root") in line
        assert server.url in line
        assert f"moorage push DIRECTORY 127.0.0.1:{_port(server.url)}/hello:latest" in line


def _start(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A ``moorage serve`` that is expected not to start."""
    command = [str(Path(sys.executable).with_name("moorage")), "serve"]
    clean = {key: value for key, value in os.environ.items() if not key.startswith("MOORAGE_")}
    return subprocess.run(
        [*command, *arguments], env=clean | environment, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


def _assert_one_line(done: subprocess.CompletedProcess[str], status: int, *words: str) -> None:
    assert done.returncode == status
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("moorage: ")
    assert all(word in line for word in words)


def test_a_port_in_use_is_said(tmp_path: Path) -> None:
    """Another server on the port: one line, status 1."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        done = _start("--root", str(tmp_path / "root"), "--listen", f"127.0.0.1:{port}")
    _assert_one_line(done, 1, f"127.0.0.1:{port}", "in use", "--listen")


def test_a_root_open_to_everybody_is_refused(tmp_path: Path) -> None:
    """A directory that everybody may write into is no place for images."""
    root = tmp_path / "root"
    root.mkdir()
    root.chmod(0o777)
    _assert_one_line(_start("--root", str(root), "--listen", "127.0.0.1:0", "--workers", "3"), 1, str(root))


def test_a_foreign_root_is_refused(tmp_path: Path) -> None:
    """A directory that holds something else is left alone."""
    (tmp_path / "precious").write_text("mine")
    tmp_path.chmod(0o700)
    _assert_one_line(_start("--root", str(tmp_path), "--listen", "127.0.0.1:0"), 1, "not empty")
    assert (tmp_path / "precious").read_text() == "mine"
    assert not (tmp_path / "format").exists()


def test_a_bad_certificate_is_said(tmp_path: Path) -> None:
    """Files that are no certificate: one line, status 1."""
    for name in ("cert", "key"):
        (tmp_path / name).write_text("no PEM")
        (tmp_path / name).chmod(0o600)
    done = _start("--tls-cert", str(tmp_path / "cert"), "--tls-key", str(tmp_path / "key"))
    _assert_one_line(done, 1, "certificate")


def test_an_unknown_variable_refuses_to_start() -> None:
    """A misspelt variable is not a default in silence: the nearest known one is named, status 2."""
    _assert_one_line(_start(MOORAGE_WORKER="3"), 2, "MOORAGE_WORKER", "MOORAGE_WORKERS")


def _is_usable(host: str) -> bool:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as sock:
        try:
            sock.bind((host, 0))
        except OSError:
            return False
    return True


def test_a_name_is_listened_to_on_every_address(tmp_path: Path) -> None:
    """``localhost`` is 127.0.0.1 and ::1, and a machine without IPv6 has the other one all the same."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    addresses = {str(place[0]) for *_, place in socket.getaddrinfo("localhost", port, type=socket.SOCK_STREAM)}
    usable = [address for address in addresses if _is_usable(address)]
    assert usable
    with MoorageProcess(tmp_path / "root", "--listen", f"localhost:{port}"):
        for address in usable:
            with socket.create_connection((address, port), PATIENCE) as client:
                client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: a\r\n\r\n")
                assert client.recv(1000).startswith(b"HTTP/1.1 200 ")
