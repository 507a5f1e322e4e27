"""The certificates that vouch for our signing keys, for registries that know keys by certificate only.

Law: a certificate goes with the key that it is for, followed by those that issued it; a root is known to whoever
checks, and is not sent along.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Iterator
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from moorage.auth.errors import ConfigurationError
from moorage.auth.principal import printable
from moorage.auth.trust import is_usable, thumbprint
from moorage.auth.watched import WatchedFile

__all__ = ["Certificates"]

_LONGEST_CHAIN = 3
"""Certificates that are sent: each is half a kilobyte of every token."""


class Certificates:
    """A bundle of certificates."""

    def __init__(self, bundle: list[x509.Certificate]) -> None:
        self._bundle = bundle

    @classmethod
    def parse(cls, path: str, content: bytes, _status: os.stat_result) -> Certificates:
        """The bundle in a PEM file.

        Raises:
            ConfigurationError: there is no certificate in it, or a damaged one.
        """
        try:
            return cls(x509.load_pem_x509_certificates(content))
        except ValueError:
            raise ConfigurationError(f"{path}: there is no certificate in it, or a damaged one (PEM)") from None

    @classmethod
    def load(cls, path: str) -> Certificates:
        """The bundle in the PEM file at ``path``.

        Raises:
            ConfigurationError: it cannot be read, or holds no certificate.
        """
        return WatchedFile(path, cls.parse).current()

    def ends(self) -> dict[str, datetime]:
        """Each subject, and the end of its last certificate: one that has a successor may end."""
        found = sorted(self._bundle, key=lambda one: one.not_valid_after_utc)
        return {printable(one.subject.rfc4514_string()): one.not_valid_after_utc for one in found}

    def chain_of(self, kid: str) -> list[str]:
        """The chain for the key with this thumbprint, as ``x5c`` has it (RFC 7515, 4.1.6); empty: there is none."""
        ours = [one for one in self._bundle if _name_of(one) == kid]
        leaf = max(ours, key=lambda one: one.not_valid_after_utc, default=None)
        chain = [] if leaf is None else [leaf, *self._issuers_of(leaf)]
        return [base64.b64encode(one.public_bytes(Encoding.DER)).decode() for one in chain[:_LONGEST_CHAIN]]

    def _issuers_of(self, certificate: x509.Certificate) -> Iterator[x509.Certificate]:
        """The intermediates between a certificate and its root."""
        seen = [certificate]
        while certificate.issuer != certificate.subject:
            above = (one for one in self._bundle if one.subject == certificate.issuer and one not in seen)
            if (issuer := next(above, None)) is None or issuer.issuer == issuer.subject:
                return
            yield issuer
            seen.append(issuer)
            certificate = issuer


def _name_of(certificate: x509.Certificate) -> str:
    public = certificate.public_key()
    return thumbprint(public) if is_usable(public) else ""
