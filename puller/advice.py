"""What to do about a connection that failed, where its failure does not say so to people.

Law: advice names a setting or a fact to look at; nothing is tried out for it, and nothing is relaxed by itself.
"""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from http.client import BadStatusLine

from moorage.puller.origins import Origin

__all__ = ["advise"]

_FILE = "~/.config/moorage/hosts.toml"
_NO_TRUST = frozenset({18, 19, 20, 21})
"""OpenSSL's X509_V_ERR_* of a chain that ends at nobody we know."""
_WRONG_TIME = frozenset({9, 10})


def advise(url: str, cause: BaseException | None, *, was_sent: bool) -> str:
    """What to append to the message; empty where there is nothing to advise.

    Args:
        cause: what the connection failed with.
        was_sent: there was a connection, and the request went out.
    """
    origin = Origin.of(url)
    registry = str(origin).partition("://")[2]
    place = f'under ["{registry}"] in {_FILE}'
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _advise_on_certificate(cause, place)
    if isinstance(cause, ssl.SSLError) and not was_sent:
        return f" (if it speaks plain HTTP, write plain_http = true {place})"
    if isinstance(cause, ConnectionResetError | BadStatusLine) and was_sent and origin.scheme == "http":
        return f" (if it speaks HTTPS, write plain_http = false {place})"
    return ""


def _advise_on_certificate(cause: ssl.SSLCertVerificationError, place: str) -> str:
    if cause.verify_code in _NO_TRUST:
        return f' (if its authority is your own, write ca = "FILE" {place})'
    if cause.verify_code in _WRONG_TIME:
        return f" (the clock of this machine says {datetime.now(UTC):%Y-%m-%d %H:%M} UTC)"
    return ""
