"""What a registry holds, read by none of the programs under test, every byte checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import httpx

from tests.interop.images import Document, sha256

__all__ = ["Stored"]

_ACCEPT = ", ".join(
    [
        "application/vnd.oci.image.index.v1+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.docker.distribution.manifest.v2+json",
    ]
)


class Stored:
    """A registry as a set of bytes. ``generations``: says how many blobs are stored, each copy counted."""

    def __init__(self, url: str, generations: Callable[[], int] | None = None) -> None:
        self.url = url
        self.host = url.removeprefix("http://")
        self._generations = generations
        self._http = httpx.Client(base_url=f"{url}/v2/", trust_env=False, timeout=60, follow_redirects=True)

    def close(self) -> None:
        """Closes the connections."""
        self._http.close()

    def ref(self, repository: str, tag: str = "latest") -> str:
        """The reference as people type it: ``127.0.0.1:5000/repository:tag``."""
        return f"{self.host}/{repository}:{tag}"

    def uploads(self) -> int:
        """How many blobs were ever uploaded: each upload leaves an object of its own, a mount or a skipped one none."""
        assert self._generations is not None, "nobody counts in this registry"
        return self._generations()

    def status(self, path: str) -> int:
        """The status of a GET below ``/v2/``."""
        return self._http.get(path, headers={"Accept": _ACCEPT}).status_code

    def tags(self, repository: str) -> list[str]:
        """The repository's tags."""
        tags: list[str] = self._http.get(f"{repository}/tags/list").raise_for_status().json()["tags"]
        return tags

    def manifest(self, repository: str, reference: str) -> bytes:
        """The bytes of a manifest; header, name and content agree."""
        answer = self._http.get(f"{repository}/manifests/{reference}", headers={"Accept": _ACCEPT}).raise_for_status()
        assert answer.headers["Docker-Content-Digest"] == sha256(answer.content)
        assert reference in {sha256(answer.content), *self.tags(repository)}
        return answer.content

    def digest(self, repository: str, tag: str) -> str:
        """The digest of what the tag names."""
        return sha256(self.manifest(repository, tag))

    def blob(self, repository: str, digest: str) -> bytes:
        """The bytes of a blob, checked."""
        content = self._http.get(f"{repository}/blobs/{digest}").raise_for_status().content
        assert sha256(content) == digest
        return content

    def document(self, repository: str, reference: str) -> Document:
        """The manifest, parsed."""
        document: Document = json.loads(self.manifest(repository, reference))
        return document

    def referrers(self, repository: str, subject: str) -> list[Document]:
        """The descriptors of what refers to ``subject``."""
        answer = self._http.get(f"{repository}/referrers/{subject}").raise_for_status()
        manifests: list[Document] = answer.json()["manifests"]
        return manifests

    def graph(self, repository: str, reference: str) -> dict[str, bytes]:
        """Everything below a manifest by digest, the manifest itself included."""
        content = self.manifest(repository, reference)
        found = {sha256(content): content}
        document = json.loads(content)
        for child in document.get("manifests", ()):
            found |= self.graph(repository, child["digest"])
        for descriptor in _blobs(document):
            found[descriptor["digest"]] = self.blob(repository, descriptor["digest"])
            assert len(found[descriptor["digest"]]) == descriptor["size"]
        return found


def _blobs(document: Document) -> Iterator[Document]:
    if "config" in document:
        yield document["config"]
    yield from document.get("layers", ())
