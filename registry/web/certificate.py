"""The certificate that HTTPS shows, as it is in its files now: whoever renews it need not restart us.

Law: what was good stays in use until something good replaces it. Certificate and key are taken together, into a new
context, so no connection ever meets half of a change; what runs goes on with what it began with.
"""

from __future__ import annotations

import logging
import os
import ssl
from typing import NoReturn

__all__ = ["LOOK_INTERVAL", "Certificate", "CertificateError", "tls_context"]

LOOK_INTERVAL = 1.0
"""Seconds between two looks at the files."""

_log = logging.getLogger(__name__)


class CertificateError(Exception):
    """The certificate cannot be used; the message is one line for the operator."""


class Certificate:
    """A certificate chain and its key, both PEM files. ``context``: what a connection that begins now is to use.

    Raises:
        CertificateError: the files are missing, unreadable, or do not belong together.
    """

    def __init__(self, certificate: str, key: str) -> None:
        self._files = certificate, key
        self._seen = self._signature()
        self.context = tls_context(certificate, key)

    def look(self) -> bool:
        """Takes what the files hold, if they have changed; says whether it did. Blocks for a few system calls."""
        there = self._signature()
        if there == self._seen:
            return False
        self._seen = there  # also where it is refused: it is complained about once
        try:
            self.context = tls_context(*self._files)
        except CertificateError as exc:
            _log.error("the certificate from before stays in use: %s", exc)
            return False
        _log.info("the certificate %s has changed, and is in use", self._files[0])
        return True

    def _signature(self) -> list[tuple[int, ...]]:
        return [_signature(path) for path in self._files]


def tls_context(certificate: str, key: str) -> ssl.SSLContext:
    """A server's context: TLS 1.2 or later.

    Raises:
        CertificateError: the files are missing, unreadable, or do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as exc:
        raise CertificateError(f"cannot use the certificate {certificate} with the key {key}: {exc}") from None
    return context


def _no_password() -> NoReturn:
    raise ValueError("the key is encrypted")  # asking at a terminal would hang a service


def _signature(path: str) -> tuple[int, ...]:
    """What changes with the file, also where a link on the way to it is changed; nothing where it is not to be had."""
    try:
        status = os.stat(path)
    except OSError:
        return ()
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
