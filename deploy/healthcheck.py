#!/opt/moorage/bin/python3
"""Whether the registry of this container answers: exit status 0 or 1, for HEALTHCHECK.

It asks ``/healthz`` at the port of ``MOORAGE_LISTEN``, over TLS where ``MOORAGE_TLS_CERT`` is set. Whose certificate
that is does not matter here: the question never leaves the container.
"""

from __future__ import annotations

import os
import ssl
import sys
from http.client import HTTPConnection, HTTPException, HTTPSConnection


def is_healthy(listen: str, *, tls: bool) -> bool:
    """Whether ``/healthz`` answers 200 within 3 s."""
    host, _, port = listen.rpartition(":")
    host = {"0.0.0.0": "127.0.0.1", "[::]": "::1"}.get(host, host.strip("[]"))  # noqa: S104  # what it listens on
    context = ssl._create_unverified_context() if tls else None  # noqa: S323  # see above
    connection = (
        HTTPSConnection(host, int(port), timeout=3, context=context)
        if tls
        else HTTPConnection(host, int(port), timeout=3)
    )
    try:
        connection.request("GET", "/healthz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(not is_healthy(os.environ["MOORAGE_LISTEN"], tls="MOORAGE_TLS_CERT" in os.environ))
