"""The server's verbs: ``moorage serve`` and ``moorage config check``.

Law: nothing here decides anything; it turns flags into settings, and errors into one line on stderr and an exit status
(0 well, 1 failed, 2 wrong usage). What a verb needs is imported when it runs.
"""

from __future__ import annotations

import ipaddress
import logging
import os
import sys
from collections.abc import Callable
from typing import Any, NoReturn, TypeVar

import click

__all__ = ["config", "serve"]

_F = TypeVar("_F", bound=Callable[..., Any])
_PINNED = ("asyncio", "botocore", "boto3", "urllib3", "uvicorn", "uvicorn.error")
"""Loggers of others: at their wordy levels they would print headers and secrets."""

_OPTIONS = (
    click.option(
        "--root", metavar="DIR|URL", help="A directory, or s3://BUCKET/PREFIX?endpoint=...  [default: ./moorage-data]"
    ),
    click.option("--listen", metavar="HOST:PORT", help="Where to listen; port 0: any.  [default: 127.0.0.1:5000]"),
    click.option("--workers", metavar="N", help="Worker processes.  [default: 2]"),
    click.option("--config", metavar="FILE", help="A YAML file with settings; flags and MOORAGE_* go before it."),
    click.option("--allow-sparse", flag_value=True, default=None, help="Take manifests whose content is not all here."),
    click.option("--read-only", flag_value=True, default=None, help="Refuse every change with 405."),
    click.option("--no-delete", flag_value=True, default=None, help="Refuse every delete with 405."),
    click.option(
        "--redirect/--no-redirect",
        default=None,
        help="Send clients to the S3 server for blobs, by URLs that hold 10 min.  [default: on]",
    ),
    click.option("--upload-ttl", metavar="TIME", help="Drop uploads without progress for this long.  [default: 24h]"),
    click.option("--drain-delay", metavar="TIME", help="On SIGTERM, go on accepting for this long.  [default: 5s]"),
    click.option("--drain-timeout", metavar="TIME", help="Then, let running requests end.  [default: 30s]"),
    click.option(
        "--tls-cert", metavar="FILE", help="Serve HTTPS with this certificate chain (PEM), read again when it changes."
    ),
    click.option("--tls-key", metavar="FILE", help="The key of the certificate (PEM)."),
    click.option("--htpasswd", metavar="FILE", help="Ask for a login: its accounts may do everything, others nothing."),
    click.option("--auth", metavar="FILE", help="Ask for a login: a YAML file says who may do what."),
    click.option(
        "--signing-key",
        metavar="FILE",
        help="Keys that sign tokens, made if it is not there; the same for all replicas.  [default: ROOT.key]",
    ),
    click.option("--external-url", metavar="URL", help="Where clients reach this registry, behind a reverse proxy."),
    click.option(
        "--trusted-proxies", metavar="CIDR[,CIDR]", help="Reverse proxies whose X-Forwarded-For, -Proto, -Host hold."
    ),
    click.option("--audit-log", metavar="FILE", help="One JSON line per login and decision; - is stdout."),
    click.option(
        "--access-log/--no-access-log", default=None, help="One JSON line per request on stdout.  [default: on]"
    ),
    click.option("--log-level", metavar="LEVEL", help="debug, info, warning or error, on stderr.  [default: info]"),
)


def _with_options(command: _F) -> _F:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@_with_options
def serve(**flags: Any) -> None:
    """Serve a registry.

    Every flag can also be a variable (MOORAGE_UPLOAD_TTL=12h) or a line of the --config file (upload_ttl: 12h).
    """
    from moorage.registry.web import serve as web  # noqa: PLC0415  # see the law

    settings = _load(flags).settings
    _start_logging(settings.log_level)
    for warning in _warnings(settings):
        _say(f"warning: {warning}")
    try:
        status = web.serve(settings, say=_say)
    except web.CannotServe as exc:
        _fail(str(exc), 1)
    sys.exit(status)


@click.group()
def config() -> None:
    """Look at the server's settings."""


@config.command()
@_with_options
def check(**flags: Any) -> None:
    """Say whether `serve` with the same flags would take the settings, and where each comes from."""
    loaded = _load(flags)
    settings = loaded.settings
    for name, source in loaded.sources.items():
        click.echo(f"{name}: {getattr(settings, name)}  ({source})")
    if settings.tls_cert and settings.tls_key:
        from moorage.registry.web.certificate import CertificateError, tls_context  # noqa: PLC0415  # see the law

        try:
            tls_context(settings.tls_cert, settings.tls_key)
        except CertificateError as exc:
            _fail(str(exc), 1)
    if settings.has_login:
        _check_login(settings)
    if settings.root.startswith("s3:"):
        _check_bucket(settings.root)
    for warning in _warnings(settings):
        _say(f"warning: {warning}")


def _check_login(settings: Any) -> None:
    from moorage.auth.errors import ConfigurationError  # noqa: PLC0415  # see the law
    from moorage.registry.advice import check_login  # noqa: PLC0415

    try:
        check_login(settings)
    except ConfigurationError as exc:
        _fail(str(exc), 1)


def _check_bucket(root: str) -> None:
    """Tries what the server of a bucket promises, and says it."""
    import asyncio  # noqa: PLC0415  # see the law

    from moorage.storage_backends.errors import StorageError  # noqa: PLC0415
    from moorage.storage_backends.s3 import Location, S3Store  # noqa: PLC0415

    async def examine() -> None:
        location = Location.parse(root)
        store = S3Store(location)
        try:
            found = await store.probe()
        finally:
            await store.close()
        for holds, promise, is_needed in found.lines():
            click.echo(f"store: {'yes' if holds else 'NO ' if is_needed else 'no '}  {promise}")
        found.require(location)

    try:
        asyncio.run(examine())
    except StorageError as exc:
        _fail(str(exc), 1)


def _load(flags: dict[str, Any]) -> Any:
    from moorage.registry.settings import SettingsError, load_settings  # noqa: PLC0415  # see the law

    file = flags.pop("config")
    try:
        return load_settings({k: v for k, v in flags.items() if v is not None}, os.environ, config=file)
    except SettingsError as exc:
        _fail(str(exc), 2)


def _warnings(settings: Any) -> list[str]:
    found = []
    if not _is_loopback(settings.listen.host):
        if not settings.has_login:
            found.append(f"whoever reaches {settings.listen} may push and delete: --htpasswd FILE asks for a login")
        if settings.tls_cert is None:
            what = "read passwords, and read and change" if settings.has_login else "read and change"
            found.append(f"without --tls-cert and --tls-key others on the network can {what} what passes")
    if settings.tls_key and os.path.exists(settings.tls_key) and os.stat(settings.tls_key).st_mode & 0o077:
        found.append(f"others may read the key {settings.tls_key}: chmod 600 it")
    if settings.redirect and settings.root.startswith("s3:"):
        found += _redirect_warnings(settings)
    if settings.has_login:
        from moorage.registry.advice import login_warnings  # noqa: PLC0415  # see the law

        found += login_warnings(settings)
    return found


def _redirect_warnings(settings: Any) -> list[str]:
    """What keeps clients from following our redirects to the S3 server, as far as its name shows it."""
    from urllib.parse import urlsplit  # noqa: PLC0415  # see the law

    from moorage.storage_backends.errors import StorageError  # noqa: PLC0415
    from moorage.storage_backends.s3 import Location  # noqa: PLC0415

    try:
        location = Location.parse(settings.root)
    except StorageError:
        return []  # told by whoever opens it
    place = urlsplit(location.public_endpoint or location.endpoint or "https://s3.amazonaws.com")
    shown, host = f"{place.scheme}://{place.netloc.rpartition('@')[2]}", place.hostname or ""
    found = []
    is_near = _is_loopback(host) or not any(mark in host for mark in ".:")
    if is_near and not _is_loopback(settings.listen.host):
        found.append(
            f"blobs are fetched from {shown}: if clients know the S3 server by another name, "
            "add public_endpoint=https://NAME to --root; if they cannot reach it, use --no-redirect"
        )
    if settings.tls_key and place.scheme == "http":
        found.append(
            f"clients that came by HTTPS are sent on to {shown}: others can read what they fetch, "
            "and some clients refuse; use an https endpoint or --no-redirect"
        )
    return found


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


class _OneLine(logging.Formatter):
    """Keeps what a client can smuggle into a message from looking like a line of ours."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802  # the name is logging's
        line = super().formatMessage(record)
        return line if line.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _start_logging(level: str) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(_OneLine("%(asctime)s %(levelname)s %(name)s [%(process)d] %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in _PINNED:
        logging.getLogger(name).setLevel(logging.WARNING)


def _say(line: str) -> None:
    click.echo(line, err=True)


def _fail(line: str, status: int) -> NoReturn:
    click.echo(f"moorage: {line}", err=True)
    sys.exit(status)
