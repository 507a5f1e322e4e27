"""The parent of the workers: opens the sockets, forks, starts again what dies, and stops everything in order.

Law: the parent runs no loop, no thread and no request. It blocks its signals and waits for them, so nothing ever
interrupts it; the workers inherit its listening sockets, so a connection that arrives while a worker is started again
waits instead of failing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from moorage.registry.settings import Address, Settings
from moorage.registry.web.certificate import Certificate, CertificateError
from moorage.registry.web.metrics import Table
from moorage.registry.web.server import BACKLOG
from moorage.registry.web.worker import Worker

if TYPE_CHECKING:
    from moorage.registry.web.authority import Foundation

__all__ = ["CannotServe", "serve"]

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_NO_SUCH_ADDRESS = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # such as ::1 where IPv6 is switched off
_POLL = 0.02  # seconds between two looks at the workers while they start
_GRACE = 5.0  # seconds that workers get beyond their drain before they are killed
_LONGEST_PAUSE = 10.0  # seconds before a worker that keeps dying is started again
_HEALTHY = 10.0  # seconds of life after which a death is not counted as one of a series


class CannotServe(Exception):
    """The server cannot start; the message is one line for the operator."""


def serve(settings: Settings, *, say: Callable[[str], None]) -> int:
    """Serves until SIGTERM or SIGINT; returns the exit status.

    Args:
        say: tells the operator something, one line at a time.

    Raises:
        CannotServe: the sockets, the certificate, or what logins need are not to be had.
    """
    foundation = _foundation(settings, say) if settings.has_login else None
    certificate = _certificate(settings)
    sockets = _listen(settings.listen)
    _allow_files()
    table = Table(settings.workers)
    lifeline, held = os.pipe()
    worker = Worker(settings, sockets, table, certificate, lifeline, foundation)

    def work(index: int) -> int:
        os.close(held)
        return worker.run(index)

    host, port = sockets[0].getsockname()[:2]
    url = f"{'https' if certificate else 'http'}://{Address(host, port)}"
    return _Parent(settings, sockets, table, work, say).run(url)


def _certificate(settings: Settings) -> Certificate | None:
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    try:
        return Certificate(settings.tls_cert, settings.tls_key)
    except CertificateError as exc:
        raise CannotServe(str(exc)) from exc


def _foundation(settings: Settings, say: Callable[[str], None]) -> Foundation:
    """Read before the fork: what is wrong is said once, and there is one signing key."""
    from moorage.auth.errors import ConfigurationError  # noqa: PLC0415  # 100 ms, for nothing without logins
    from moorage.registry.web.authority import lay_foundation  # noqa: PLC0415

    has_key = os.path.lexists(settings.signing_key_file)
    try:
        foundation = lay_foundation(settings)
    except ConfigurationError as exc:
        raise CannotServe(str(exc)) from exc
    if not has_key:
        say(f"made the signing key {settings.signing_key_file} (keep it: tokens and running uploads hang on it)")
    return foundation


def _listen(address: Address) -> list[socket.socket]:
    """Listening sockets on every address that the host name means and this machine has."""
    sockets: list[socket.socket] = []
    failed: OSError | None = None
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # One port for all: where any free one will do, only the first address gets it.
        for family, _, _, _, place in found if address.port else found[:1]:
            try:
                sockets.append(_bound(family, place))
            except OSError as exc:
                failed = exc
                if exc.errno not in _NO_SUCH_ADDRESS:
                    break
    except OSError as exc:
        failed = exc
    if failed is not None and not (sockets and failed.errno in _NO_SUCH_ADDRESS):
        for sock in sockets:
            sock.close()
        hint = (
            " (is another server running? --listen HOST:PORT takes another)" if failed.errno == errno.EADDRINUSE else ""
        )
        raise CannotServe(f"cannot listen on {address}: {failed.strerror}{hint}")
    return sockets


def _bound(family: int, place: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(place)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return sock


def _allow_files() -> None:
    """Takes as many descriptors as the system grants: the usual 1,024 are fewer than the connections of one worker."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@dataclass(slots=True)
class _Slot:
    """One worker's place: who fills it, since when, and when it is to be filled again. Times are monotonic."""

    pid: int | None = None
    since: float = 0.0
    deaths: int = 0  # in a row
    restart_at: float | None = None


@dataclass(slots=True)
class _Parent:
    settings: Settings
    sockets: list[socket.socket]
    table: Table
    work: Callable[[int], int]
    say: Callable[[str], None]
    slots: list[_Slot] = field(init=False)
    stopping: bool = False
    kill_at: float | None = None
    status: int = 0

    def __post_init__(self) -> None:
        self.slots = [_Slot() for _ in range(self.settings.workers)]

    def run(self, url: str) -> int:
        """Runs until every worker has ended; returns the exit status."""
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        # The first one alone: what is wrong with the root is then said once.
        if self._start(self.slots[:1]) and self._start(self.slots[1:]):
            self.say(_welcome(self.settings, url))
            while not self.stopping or any(slot.pid for slot in self.slots):
                self._wait(self._next_event())
        return self.status

    def _start(self, slots: list[_Slot]) -> bool:
        """Fills the slots; says whether all of them came to accept connections."""
        for slot in slots:
            self._fork(slot)
        while not all(self.table.meter(self.slots.index(slot)).ready for slot in slots):
            if self.stopping or not all(slot.pid for slot in slots):
                self._end_start()
                return False
            self._wait(_POLL)
        return True

    def _end_start(self) -> None:
        """Gives up before the server was up: whoever failed has said why."""
        status, self.stopping = 0 if self.stopping else 1, True
        self._signal_all(signal.SIGKILL)
        while any(slot.pid for slot in self.slots):
            self._wait(_POLL)
        self.status = status

    def _fork(self, slot: _Slot) -> None:
        index = self.slots.index(slot)
        self.table.meter(index).accepts(connections=False)
        slot.since, slot.restart_at = time.monotonic(), None
        sys.stdout.flush()
        sys.stderr.flush()
        slot.pid = os.fork()
        if slot.pid == 0:
            _become_worker(self.work, index)

    # -- events --------------------------------------------------------------------------------------------------------

    def _wait(self, seconds: float | None) -> None:
        received = signal.sigwait(_SIGNALS) if seconds is None else _timed_wait(seconds)
        if received in (signal.SIGTERM, signal.SIGINT):
            self._stop()
        self._reap()
        now = time.monotonic()
        if self.kill_at is not None and now >= self.kill_at:
            self.kill_at = None
            self._kill("the workers did not end in time, killing them")
        for slot in self.slots:
            if slot.restart_at is not None and now >= slot.restart_at and not self.stopping:
                self._fork(slot)

    def _next_event(self) -> float | None:
        times = [slot.restart_at for slot in self.slots] + [self.kill_at]
        due = [each for each in times if each is not None]
        return max(0.0, min(due) - time.monotonic()) if due else None

    def _stop(self) -> None:
        if self.stopping:
            self._kill("stopping at once, running requests are cut")
            return
        self.stopping = True
        delay, timeout = self.settings.drain_delay, self.settings.drain_timeout
        self.kill_at = time.monotonic() + delay + timeout + _GRACE
        for sock in self.sockets:
            sock.close()  # the workers have theirs; the port is closed when the last of them closes it
        if any(slot.pid for slot in self.slots):
            self.say(
                f"stopping: accepting connections for another {delay:g} s, then ending what runs within {timeout:g} s "
                "(a second signal stops at once)"
            )
        self._signal_all(signal.SIGTERM)

    def _kill(self, reason: str) -> None:
        self.say(reason)
        self.status = 1
        self._signal_all(signal.SIGKILL)

    def _signal_all(self, number: signal.Signals) -> None:
        for slot in self.slots:
            if slot.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(slot.pid, number)

    def _reap(self) -> None:
        for slot in self.slots:
            if slot.pid:
                pid, status = os.waitpid(slot.pid, os.WNOHANG)
                if pid:
                    self._bury(slot, os.waitstatus_to_exitcode(status))

    def _bury(self, slot: _Slot, exit_code: int) -> None:
        lived, pid, slot.pid = time.monotonic() - slot.since, slot.pid, None
        if self.stopping:
            if exit_code not in (0, -signal.SIGTERM):  # SIGTERM: it had not yet learnt to take it otherwise
                self.status = 1
            return
        if not self.table.meter(self.slots.index(slot)).ready and slot.deaths == 0 and exit_code > 0:
            return  # it could not start, and has said why
        slot.deaths = 1 if lived > _HEALTHY else slot.deaths + 1
        pause = min(_LONGEST_PAUSE, 0.1 * 2.0 ** (slot.deaths - 1))
        slot.restart_at = time.monotonic() + pause
        how = f"was killed by signal {-exit_code}" if exit_code < 0 else f"ended with status {exit_code}"
        self.say(f"worker {pid} {how} after {lived:.0f} s, starting another in {pause:g} s")


def _become_worker(work: Callable[[int], int], index: int) -> NoReturn:
    """In the child: never returns into the parent's code."""
    status = 1
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent speaks for it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        status = work(index)
    except BaseException:  # noqa: BLE001  # nothing may escape into a copy of the parent
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _timed_wait(seconds: float) -> int | None:
    info = signal.sigtimedwait(_SIGNALS, seconds)
    return info.si_signo if info is not None else None


def _welcome(settings: Settings, url: str) -> str:
    place = url.partition("://")[2].replace("0.0.0.0", "127.0.0.1").replace("[::]", "[::1]")  # noqa: S104  # as shown
    if settings.external_url is not None:
        place = settings.external_url.partition("://")[2]
    root = settings.root.partition("?")[0] if settings.root.startswith("s3:") else settings.root
    return (
        f"Moorage serves {root} on {url} (workers: {settings.workers}). "
        f"{f'Log in: moorage login {place}; then push' if settings.has_login else 'Push'} a first image: "
        f"moorage push DIRECTORY {place}/hello:latest"
    )
