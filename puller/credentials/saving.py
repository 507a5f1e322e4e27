"""Keeps logins where docker, podman and the others find them, and forgets them again.

Law: one entry changes, every other thing in the file stays what it was. The file is replaced whole, readable by its
owner only, or not at all; who changes it at the same time waits. Where the file names a helper, that keeps the secret.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from copy import deepcopy
from typing import Any

from moorage.puller.credentials.files import configured_helper, entries_of, read_document
from moorage.puller.credentials.helpers import erase_from_helper, store_in_helper
from moorage.puller.credentials.model import Credentials, Target
from moorage.puller.credentials.names import StoredName, key_of, servers_of
from moorage.puller.credentials.places import file_for_login, files_of
from moorage.puller.errors import CredentialsUnusable

__all__ = ["forget_login", "keep_login"]


def keep_login(credentials: Credentials, target: Target, environment: Mapping[str, str]) -> tuple[str, str]:
    """Keeps the credentials for a registry; returns the file, and the helper that it names or an empty text. Blocks.

    Raises:
        CredentialsUnusable: the file or the helper cannot be used; nothing has changed.
        OSError: the file cannot be written.
    """
    path = file_for_login(environment)
    with _editing(path) as document:
        helper, _ = configured_helper(document, target, path)
        if helper:
            store_in_helper(helper, key_of(target), credentials)
        entries = entries_of(document, path)
        entries[key_of(target)] = {} if helper else _entry_of(credentials)  # empty: as docker marks what a helper has
        document["auths"] = entries
    return path, helper


def forget_login(target: Target, environment: Mapping[str, str]) -> list[str]:
    """Forgets the credentials for a registry in every file in use and its helper; returns where that was. Blocks.

    Credentials for single namespaces of the registry stay.

    Raises:
        CredentialsUnusable: a file or a helper cannot be used.
        OSError: a file cannot be written.
    """
    cleared: list[str] = []
    for file in files_of(environment):
        if not file.instead and os.path.exists(file.path):
            cleared += _forget_in(file.path, target)
    return cleared


def _forget_in(path: str, target: Target) -> list[str]:
    with _editing(path) as document:
        helper, _ = configured_helper(document, target, path)
        entries = entries_of(document, path)
        names = [raw for raw in entries if _is_whole(StoredName.parse(raw), target)]
        for name in names:
            del entries[name]
        if helper:
            for server in servers_of(target):
                erase_from_helper(helper, server)
    if helper:
        return [f"{path} (helper {helper!r})"]
    return [path] if names else []


def _is_whole(name: StoredName | None, target: Target) -> bool:
    return name is not None and not name.namespace and name.matches(target)


def _entry_of(credentials: Credentials) -> dict[str, str]:
    entry = {}
    if credentials.username or credentials.password:
        entry["auth"] = base64.b64encode(f"{credentials.username}:{credentials.password}".encode()).decode()
    if credentials.identity_token:
        entry["identitytoken"] = credentials.identity_token
    return entry


@contextmanager
def _editing(path: str) -> Iterator[dict[str, Any]]:
    """The file's content, to be changed in the block; written afterwards, if it was changed and nothing failed."""
    path = os.path.realpath(path)  # what a link of a dotfiles' repository leads to is replaced, not the link
    folder = os.path.dirname(path)
    os.makedirs(folder, mode=0o700, exist_ok=True)
    lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        document = read_document(path) or {}
        before = deepcopy(document)
        yield document
        if document != before:
            _replace(path, document)
            os.fsync(lock)
    finally:
        os.close(lock)


def _replace(path: str, document: Mapping[str, Any]) -> None:
    try:
        content = json.dumps(document, indent="\t", allow_nan=False)
    except ValueError:
        raise CredentialsUnusable(f"{path}: holds a number that JSON cannot express; it is left as it is") from None
    handle, temporary = tempfile.mkstemp(prefix=".moorage-", dir=os.path.dirname(path))  # mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileNotFoundError, PermissionError):  # root keeps a user's file the user's
            status = os.stat(path)
            os.chown(temporary, status.st_uid, status.st_gid)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
