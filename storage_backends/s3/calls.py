"""Requests to an S3 server: the one place that knows boto3.

Law of time: a request and its repetitions end within ``DEADLINE``; then the store is unavailable, and whoever waits is
told so rather than hanging (promise F7). What moves many bytes may take longer, as long as the server answers besides;
and who was just told of an outage is not kept waiting as long again by what he cleans up.
Law of threads: boto3 blocks, so every call runs in a pool of our own, as large as the connection pool.
Law of repetition: only calls that mean the same twice are repeated here; ``Uncertain`` says that an answer was lost.
"""

from __future__ import annotations

import asyncio
import itertools
import math
import random
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any, Final, NoReturn, TypeVar

import boto3
import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    PartialCredentialsError,
)
from botocore.loaders import Loader
from moorage.storage_backends.errors import StorageError, StorageFull, StorageUnavailable
from moorage.storage_backends.s3.direct import Direct
from moorage.storage_backends.s3.location import Location

__all__ = ["DEADLINE", "Calls", "Doubtful", "Nested", "Passing", "Refused", "Uncertain", "Unsent"]

DEADLINE: Final = 7.0
"""Seconds for one call with all its repetitions, so that a request is answered within 10 (promise F7)."""

_AFTER_OUTAGE: Final = 1.0
_OUTAGE: Final = 2.0
"""For so many seconds after a call that waited ``DEADLINE`` in vain, the others wait ``_AFTER_OUTAGE`` seconds only."""

_PULSE: Final = 1.0
"""Seconds after which the server is asked for a sign of life while it takes long over a call."""

_CONNECTIONS: Final = 64
_CONNECT_TIMEOUT: Final = 2.0
_READ_TIMEOUT: Final = 5.0
_LONG_STALL: Final = 10.0
_LONG_THOUGHT: Final = 300.0
"""Seconds without a sign on one connection, while others show that the server lives: versitygw copies all the parts of
an upload before it answers, 6 GB in a minute on a busy disk."""

_FIRST_DELAY: Final = 0.1
_LAST_DELAY: Final = 1.6
_FULL = frozenset({"InsufficientStorage", "XMinioStorageFull", "QuotaExceeded", "XMinioStorageFullDisk"})
_LATER = frozenset({"SlowDown", "RequestTimeout", "OperationAborted"})
_FORBIDDEN = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "AllAccessDisabled", "403"})
_NESTED = frozenset({"ExistingObjectIsDirectory", "ObjectParentIsFile", "XMinioParentIsObject"})
_REFUSALS: Final = 3
"""Times that we ask again where a refusal may pass."""

_Result = TypeVar("_Result")


class Refused(StorageError):
    """The server understood and said no. ``status``: of HTTP; ``code``: S3's own word for it."""

    def __init__(self, operation: str, status: int, code: str) -> None:
        self.status = status
        self.code = code
        super().__init__(f"S3 refused {operation}: {status} {code}")


class Uncertain(StorageUnavailable):
    """No answer, or none that tells whether the request was carried out."""


class Unsent(Uncertain):
    """The request was not carried out, for want of a connection for example."""


class Passing(Uncertain):
    """The server refuses. Over a file system it does so for a moment where a put makes a directory that a delete just
    removed: MinIO denies access then, versitygw says that a directory is in the way."""


class Denied(Passing):
    """Access is forbidden."""


class Nested(Passing, Unsent):
    """The key is a directory of other keys, or lies in another one, says the server. ``code``: its own word for it."""

    def __init__(self, operation: str, code: str) -> None:
        self.code = code
        super().__init__(f"S3 {operation}: {code}")


class Doubtful(StorageUnavailable):
    """A conditional put whose first answer was lost, and a later one was refused: it may have won, or lost."""


class Calls:
    """A client for one bucket; its methods are named as in boto3 and take its arguments."""

    def __init__(self, location: Location) -> None:
        self.bucket = location.bucket
        self._pool = ThreadPoolExecutor(_CONNECTIONS, thread_name_prefix="s3")
        self._outage = -math.inf
        try:
            self._client = _connect(location, location.endpoint)
            self._patient = _connect(location, location.endpoint, connect=_LONG_STALL, read=_LONG_THOUGHT)
            public = location.public_endpoint
            self._signer = _connect(location, public) if public else self._client
            self._direct = Direct(self._client, location.bucket)
            self._direct_patient = Direct(self._patient, location.bucket)
        except (BotoCoreError, ValueError) as exc:
            raise StorageError(f"{location}: {exc}") from exc

    def close(self) -> None:
        """Lets go of threads and connections."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        for client in (self._client, self._patient, self._signer):
            client.close()

    async def repeat(self, operation: str, **arguments: Any) -> Any:
        """The answer to a call that means the same twice.

        Raises:
            Refused: the server said no.
            StorageUnavailable: it did not answer in time.
        """
        return await self.persist(lambda: self.once(operation, **arguments))

    async def carry(self, operation: str, **arguments: Any) -> Any:
        """As ``repeat``, for a call that moves many bytes: it may take long while the server shows signs of life."""
        return await self.endure(lambda: self.once(operation, is_long=True, **arguments))

    async def persist(self, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """Awaits ``attempt()`` until its outcome is certain, with growing pauses, for at most ``DEADLINE``.

        Raises:
            StorageUnavailable: it never was.
        """
        is_full = time.monotonic() - self._outage > _OUTAGE
        deadline = DEADLINE if is_full else min(DEADLINE, _AFTER_OUTAGE)
        failures: list[Uncertain] = []
        try:
            async with asyncio.timeout(deadline):
                return await _until_certain(attempt, failures)
        except TimeoutError:
            if is_full:
                self._outage = time.monotonic()
            failure = failures[-1] if failures else None
            raise StorageUnavailable(str(failure or f"S3 did not answer within {deadline:.0f} s")) from failure

    async def endure(self, attempt: Callable[[], Awaitable[_Result]]) -> _Result:
        """As ``persist``, as long as the server shows signs of life."""
        work = asyncio.ensure_future(_until_certain(attempt, []))
        pulse = asyncio.ensure_future(self._feel_pulse())
        try:
            await asyncio.wait([work, pulse], return_when=asyncio.FIRST_COMPLETED)
            return work.result() if work.done() else await pulse
        finally:
            work.cancel()
            pulse.cancel()
            await asyncio.gather(work, pulse, return_exceptions=True)

    async def _feel_pulse(self) -> NoReturn:
        """Ends when the server does not answer."""
        while True:
            await asyncio.sleep(_PULSE)
            await self.repeat("head_bucket")

    async def once(self, operation: str, *, is_long: bool = False, **arguments: Any) -> Any:
        """The answer to a call that is sent once.

        Raises:
            Refused: the server said no.
            Uncertain: it may or may not have been carried out.
        """
        direct = self._direct_patient if is_long else self._direct
        return await self.run(operation, lambda: direct.call(operation, arguments))

    async def run(self, operation: str, work: Callable[[], _Result]) -> _Result:
        """Runs blocking ``work`` in the pool, its failures told as ours."""
        try:
            answer = await asyncio.get_running_loop().run_in_executor(self._pool, work)
        except ClientError as exc:
            raise _judge(operation, exc) from exc
        except (NoCredentialsError, PartialCredentialsError) as exc:
            raise StorageUnavailable(f"no credentials for S3: {exc}") from exc
        except (EndpointConnectionError, ConnectTimeoutError) as exc:
            raise Unsent(f"S3 {operation}: {exc}") from exc
        except (BotoCoreError, OSError) as exc:
            # What else lies idle is as dead as this one, behind a router that forgot it: each would cost a timeout.
            for client in (self._client, self._patient):
                client.close()  # closes idle connections only; the client goes on
            raise Uncertain(f"S3 {operation}: {exc}") from exc
        self._outage = -math.inf
        return answer

    async def presign(self, arguments: dict[str, str], ttl: int) -> str:
        """A URL that anyone may GET for ``ttl`` seconds, or less where our own credentials end before."""
        parameters = {"Bucket": self.bucket, **arguments}
        sign = self._signer.generate_presigned_url
        # Nothing is sent, but credentials that are about to end are fetched anew, and that may block.
        return await self.run("presign", lambda: str(sign("get_object", Params=parameters, ExpiresIn=ttl)))


async def _until_certain(attempt: Callable[[], Awaitable[_Result]], failures: list[Uncertain]) -> _Result:
    """Awaits ``attempt()`` again and again, with growing pauses; what was uncertain goes to ``failures``."""
    for number in itertools.count():
        try:
            return await attempt()
        except Uncertain as exc:
            if isinstance(exc, Passing) and number >= _REFUSALS:
                raise
            failures.append(exc)
        pause = min(_LAST_DELAY, _FIRST_DELAY * 2 ** min(number, 10))
        await asyncio.sleep(random.uniform(0.5, 1.0) * pause)  # noqa: S311 (no secret)
    raise AssertionError("a count has no end")


def _connect(
    location: Location, endpoint: str | None, *, connect: float = _CONNECT_TIMEOUT, read: float = _READ_TIMEOUT
) -> BaseClient:
    config = Config(
        signature_version="s3v4",  # presigned URLs too: several servers refuse the older form
        # TLS keeps what it carries whole; without it the signature covers the bytes, a second hash of every one.
        s3={"addressing_style": location.addressing, "payload_signing_enabled": (endpoint or "").startswith("http:")},
        max_pool_connections=_CONNECTIONS,
        connect_timeout=connect,  # and for every block that is sent
        read_timeout=read,
        retries={"total_max_attempts": 1, "mode": "standard"},  # we repeat, because we know what may be repeated
        # boto3's trailing checksums are unknown to many servers; digests are ours to check.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    # Servers other than AWS mostly do not care for the region, but a signature names one.
    region = location.region or ("us-east-1" if location.endpoint else None)
    session = botocore.session.Session()
    session.register_component("data_loader", _descriptions())
    return boto3.session.Session(botocore_session=session).client(
        "s3", endpoint_url=endpoint, region_name=region, config=config
    )


@cache
def _descriptions() -> Loader:
    """boto3's description of S3, which takes 0.2 s to read and is the same for every client."""
    return Loader()


def _judge(operation: str, error: ClientError) -> StorageError:
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    code = str(error.response.get("Error", {}).get("Code", ""))
    if code in _FULL or status == 507:
        return StorageFull(f"S3 has no room: {code}")
    if code in _NESTED:
        return Nested(operation, code)
    if (status >= 500 and status != 501) or status in (408, 429) or code in _LATER:
        return Uncertain(f"S3 {operation}: {status} {code}")
    if code == "AccessDenied":
        return Denied(f"S3 forbids {operation}: {code}")
    if code in _FORBIDDEN:
        return StorageUnavailable(f"S3 forbids {operation}: {code}")
    return Refused(operation, status, code)
