"""The rules for the head of a request (rule A12), behind a parser that already refuses what is not HTTP.

llhttp, strict as httptools builds it, refuses: Content-Length beside Transfer-Encoding, either of them twice, signs and
lists in a length, bare line feeds, folded lines, control characters, unknown methods. What it lets through and HTTP or
we do not is refused here. Pure: bytes in, a target or ``Refused`` out.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import httptools

__all__ = [
    "CHUNK_OVERHEAD",
    "MAX_FIELDS",
    "MAX_HEAD",
    "MAX_REQUEST_LINE",
    "MAX_UNEXPLAINED",
    "REASONS",
    "Refused",
    "Target",
    "not_http",
    "parse_head",
    "too_much",
]

MAX_REQUEST_LINE = 8 * 1024
"""Bytes of the request line, without its line end: 40 of the longest tags as parameters fit."""

MAX_HEAD = 32 * 1024
"""Bytes of all header lines with their line ends."""

MAX_FIELDS = 100
"""Header lines of one request."""

CHUNK_OVERHEAD = 24
"""Bytes that frame one chunk of a body: a size of 16 digits and its line ends."""

MAX_UNEXPLAINED = 1024
"""Bytes per request that are neither head nor body nor framing: chunk extensions, trailers, stray white space."""

REASONS = (
    "bad_framing",
    "bad_host",
    "bad_http",
    "bad_target",
    "bad_version",
    "body_timeout",
    "head_timeout",
    "head_too_large",
    "line_too_long",
    "too_many_connections",
    "write_stall",
)
"""Every ``Refused.reason``: the fixed set that metrics may count by."""

_HOST = re.compile(rb"(?:[A-Za-z0-9_.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")


class Refused(Exception):
    """The request is refused below the app, and the connection closed.

    Attributes:
        status: the HTTP status.
        reason: a word of a fixed set, for metrics.
        message: a sentence for people.
    """

    def __init__(self, status: int, reason: str, message: str) -> None:
        self.status = status
        self.reason = reason
        self.message = message
        super().__init__(message)


class Target(NamedTuple):  # a tuple because one is made per request, and costs a third of a frozen dataclass
    """What a good head asks for: raw path, raw query, a body (in chunks), a 100; and the bytes of the whole head."""

    path: bytes
    query: bytes
    has_body: bool
    chunked: bool
    expects_continue: bool
    size: int


def parse_head(method: str, url: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> Target:
    """Checks a request line and its headers (names in lower case).

    Raises:
        Refused: the connection is to be closed.
    """
    line = len(method) + len(url) + 10  # 10: two spaces and HTTP/1.1
    if line > MAX_REQUEST_LINE:
        raise Refused(414, "line_too_long", "request line is longer than 8 KiB")
    if len(headers) > MAX_FIELDS:
        raise Refused(431, "head_too_large", "more than 100 header lines")
    host: bytes | None = None
    size = 0
    has_body = chunked = expects_continue = False
    for name, value in headers:
        size += len(name) + len(value) + 4
        if name == b"host":
            if host is not None:
                raise Refused(400, "bad_host", "more than one Host header")
            host = value
        elif name == b"content-length":
            has_body = value != b"0"
        elif name == b"transfer-encoding":
            has_body = chunked = True
            _check_encoding(value, version)
        elif name == b"expect":
            expects_continue = value.lower() == b"100-continue"
    if size > MAX_HEAD:
        raise Refused(431, "head_too_large", "headers are larger than 32 KiB")
    if version not in ("1.1", "1.0"):
        raise Refused(505, "bad_version", "only HTTP/1.1 and HTTP/1.0 are spoken here")
    _check_host(host, version)
    path, query = _parse_target(url, host or b"")
    return Target(path, query, has_body, chunked, expects_continue and version == "1.1", line + size + 4)


def _check_encoding(value: bytes, version: str) -> None:
    if value.lower() != b"chunked":
        raise Refused(501, "bad_framing", "the only transfer encoding known here is chunked")
    if version != "1.1":
        raise Refused(400, "bad_framing", "HTTP/1.0 has no transfer encodings")


def _check_host(host: bytes | None, version: str) -> None:
    if host is None:
        if version == "1.1":  # HTTP/1.0 has no such duty, and plain health checks of load balancers still speak it
            raise Refused(400, "bad_host", "no Host header")
        return
    match = _HOST.fullmatch(host)
    if match is None or int(match[1] or 0) > 65535:
        raise Refused(400, "bad_host", "the Host header is not a host")


def _parse_target(url: bytes, host: bytes) -> tuple[bytes, bytes]:
    if b"#" in url:
        raise Refused(400, "bad_target", "a request target has no fragment")
    if url.startswith(b"/"):
        path, _, query = url.partition(b"?")
        return path, query
    return _parse_absolute(url, host)


def _parse_absolute(url: bytes, host: bytes) -> tuple[bytes, bytes]:
    try:
        parsed = httptools.parse_url(url)
    except httptools.HttpParserInvalidURLError:
        raise Refused(400, "bad_target", "the request target is neither a path nor a URL") from None
    scheme, _, rest = url.partition(b"://")
    authority = re.split(rb"[/?#]", rest, maxsplit=1)[0]
    if scheme.lower() not in (b"http", b"https") or parsed.userinfo:
        raise Refused(400, "bad_target", "the request target is neither a path nor a plain URL")
    if authority.lower() != host.lower():
        raise Refused(400, "bad_target", "the request target names another host than the Host header")
    return parsed.path or b"/", parsed.query or b""


def not_http(error: httptools.HttpParserError) -> Refused:
    """The parser's refusal, in its own words, which are fixed texts; what could break out of our JSON is left out."""
    words = "".join(c for c in str(error) if c.isalnum() or c in " -_'`")
    return Refused(400, "bad_http", f"not HTTP as we speak it: {words}")


def too_much(unexplained: int, *, in_head: bool) -> Refused | None:
    """The refusal of bytes that no finished head, no body and no framing explains; None while they are few.

    Args:
        in_head: a head is coming just now, which may be what they are.
    """
    if in_head and unexplained > MAX_HEAD + MAX_REQUEST_LINE:
        return Refused(431, "head_too_large", "headers are larger than 32 KiB")
    if not in_head and unexplained > MAX_UNEXPLAINED:
        return Refused(400, "bad_framing", "more than 1 KiB of chunk extensions and trailers")
    return None
