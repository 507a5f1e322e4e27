"""Stores are opened by what people type."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from moorage.storage_backends.errors import StorageError
from moorage.storage_backends.filesystem import FilesystemStore
from moorage.storage_backends.memory import MemoryStore
from moorage.storage_backends.s3 import Location
from moorage.storage_backends.urls import open_store


@pytest.mark.parametrize("form", ["{}", "file://{}", "file:{}", "file://localhost{}"])
@pytest.mark.parametrize("name", ["root", "with space", "per%cent", "a:b", "s3:x"])
async def test_a_directory(tmp_path: Path, form: str, name: str) -> None:
    """A path, or a ``file:`` URL, where a per cent sign has to be escaped."""
    path = f"{tmp_path}/{name}"
    store = await open_store(form.format(path.replace("%", "%25") if form != "{}" else path))
    await store.put("a", b"")
    await store.close()
    assert isinstance(store, FilesystemStore)
    assert os.listdir(path).count("a") == 1


async def test_a_relative_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path counts from where the program was started, also when it goes elsewhere later."""
    monkeypatch.chdir(tmp_path)
    store = await open_store("data")
    monkeypatch.chdir("/")
    await store.put("a", b"")
    await store.close()
    assert (tmp_path / "data" / "a").is_file()


async def test_memory() -> None:
    """``memory:`` is a store that forgets."""
    store = await open_store("memory:")
    assert isinstance(store, MemoryStore)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("s3:///prefix", "write s3://BUCKET/PREFIX"),
        ("s3://user:secret@bucket/prefix", "without user or password"),
        ("s3://bucket/a//b", "components of letters"),
        ("s3://bucket/a b", "components of letters"),
        ("s3://bucket?endpiont=http://x", "unknown or empty option 'endpiont'"),
        ("s3://bucket?region=", "unknown or empty option 'region'"),
        ("s3://bucket?addressing=host", "addressing is one of auto, path, virtual"),
        ("s3://bucket?endpoint=ftp://x", "endpoint is an http or https URL"),
        ("s3://bucket?endpoint=http://", "endpoint is an http or https URL"),
        ("s3://bucket?public_endpoint=minio:9000", "public_endpoint is an http or https URL"),
        ("s3://bucket?sse=rot13", "sse is one of"),
        ("s3://bucket?kms_key=x", "kms_key goes with sse=aws:kms"),
        ("http://host/x", "no store is called http"),
        ("gs://bucket", "no store is called gs"),
        ("file://elsewhere/x", "no other host"),
        ("", "names no directory"),
        ("file:", "names no directory"),
    ],
)
async def test_what_is_no_store_is_refused(url: str, words: str) -> None:
    """With a sentence that says what to do; nothing is made."""
    with pytest.raises(StorageError, match=words):
        await open_store(url)


def test_naming_a_store_loads_no_other() -> None:
    """Importing the names loads neither a backend nor boto3."""
    program = (
        "import sys, moorage.storage_backends.urls\n"
        "print(*[m for m in sys.modules if m.startswith(('boto', 'moorage.storage_backends.'))])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert {name.rpartition(".")[2] for name in found.split()} == {"base", "errors", "urls"}


def test_secrets_in_a_url_are_not_repeated() -> None:
    """What somebody typed into a URL by mistake does not end in a log."""
    with pytest.raises(StorageError) as caught:
        Location.parse("s3://user:secret@bucket/prefix")
    assert "secret" not in str(caught.value)


def test_a_bucket_with_everything() -> None:
    """Every option has its place."""
    url = "s3://images/team/a?endpoint=http://127.0.0.1:9000&region=eu-1&addressing=path&sse=aws:kms&kms_key=k1"
    location = Location.parse(url)
    assert (location.bucket, location.prefix, location.endpoint) == ("images", "team/a/", "http://127.0.0.1:9000")
    assert (location.region, location.addressing) == ("eu-1", "path")
    assert location.encryption == {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": "k1"}
