"""The Python package oras: artifacts made of files."""

from __future__ import annotations

from pathlib import Path

import pytest

oras_client = pytest.importorskip("oras.client")
oras_oci = pytest.importorskip("oras.oci")

from tests.interop.stored import Stored  # noqa: E402  # after the check that oras is there


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Two files: one small, one of several chunks."""
    small, large = tmp_path / "small.txt", tmp_path / "large.bin"
    small.write_text("small\n")
    large.write_bytes(bytes(range(256)) * 40_000)
    return [small, large]


@pytest.mark.parametrize("chunked", [pytest.param(False, id="one request"), pytest.param(True, id="in chunks")])
def test_push_and_pull(registry: Stored, files: list[Path], chunked: bool, tmp_path: Path) -> None:
    """The files of an artifact come back as they were, whatever way they were uploaded."""
    client = oras_client.OrasClient(hostname=registry.host, insecure=True)
    target = registry.ref("oras/files", f"chunked-{chunked}".lower())
    paths = [f"{path}:application/octet-stream" for path in files]
    answer = client.push(
        target=target, files=paths, disable_path_validation=True, do_chunked=chunked, chunk_size=1_000_000, quiet=True
    )
    assert answer.status_code == 201
    pulled = client.pull(target=target, outdir=str(tmp_path / "out"))
    assert {Path(path).name: Path(path).read_bytes() for path in pulled} == {f.name: f.read_bytes() for f in files}
    assert target.rpartition(":")[2] in client.get_tags(target)
    assert registry.graph("oras/files", target.rpartition(":")[2])


def test_push_again_sends_nothing(registry: Stored, files: list[Path]) -> None:
    """A second push of the same files finds every blob there and gives the same digest."""
    client = oras_client.OrasClient(hostname=registry.host, insecure=True)
    uploads = []
    for tag in ("one", "two"):
        target = registry.ref("oras/again", tag)
        client.push(target=target, files=[str(path) for path in files], disable_path_validation=True, quiet=True)
        uploads.append(registry.uploads())
    assert uploads[0] == uploads[1]
    assert registry.digest("oras/again", "one") == registry.digest("oras/again", "two")


def test_subject_and_deletion(registry: Stored, files: list[Path]) -> None:
    """An artifact with a subject is a referrer of it; a deleted tag is gone."""
    client = oras_client.OrasClient(hostname=registry.host, insecure=True)
    options = {"disable_path_validation": True, "quiet": True}
    main, note = registry.ref("oras/subject", "main"), registry.ref("oras/subject", "note")
    client.push(target=main, files=[str(files[0])], **options)
    content = registry.manifest("oras/subject", "main")
    digest = registry.digest("oras/subject", "main")
    subject = oras_oci.Subject("application/vnd.oci.image.manifest.v1+json", digest, len(content))
    client.push(target=note, files=[str(files[1])], subject=subject, **options)
    assert [d["digest"] for d in registry.referrers("oras/subject", digest)] == [
        registry.digest("oras/subject", "note")
    ]
    client.delete_tags(f"{registry.host}/oras/subject", ["note"])
    assert registry.tags("oras/subject") == ["main"]
    assert registry.referrers("oras/subject", digest) == []
