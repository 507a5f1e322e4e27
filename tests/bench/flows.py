"""What clients send: each flow is one client's requests, in the order of docker, containerd and skopeo."""

from __future__ import annotations

from collections.abc import Generator
from urllib.parse import quote, urlsplit

from tests.bench.engine import Flow, Request, Response
from tests.bench.images import Blob, Image

__all__ = ["ACCEPT", "fetch", "push_blob", "push_image", "request_head", "tag_manifest"]

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"

ACCEPT = ", ".join(
    (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        MANIFEST_TYPE,
        "application/vnd.oci.image.index.v1+json",
        "*/*",
    )
)
"""What every request accepts: distribution answers 404 for an OCI manifest that was not asked for by type."""


def request_head(method: str, target: str, **fields: str | int) -> bytes:
    """A request head with the fields that clients send; ``content_type=…`` adds ``Content-Type: …``."""
    lines = [f"{method} {target} HTTP/1.1", "Host: 127.0.0.1", "User-Agent: bench", f"Accept: {ACCEPT}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in fields.items()]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


def fetch(request: Request) -> Flow:
    """One request that was built beforehand."""
    yield request


def push_blob(repository: str, blob: Blob) -> Generator[Request, Response, None]:
    """Asks for the blob, opens a session, streams the bytes in one PATCH and closes it."""
    yield Request(request_head("HEAD", f"/v2/{repository}/blobs/{blob.digest}"), expect=(404,), bodiless=True)
    opened = yield Request(
        request_head("POST", f"/v2/{repository}/blobs/uploads/", content_length=0),
        expect=(202,),
    )
    fields: dict[str, str | int] = {"content_type": "application/octet-stream", "content_length": blob.size}
    patched = yield Request(request_head("PATCH", _target(opened), **fields), blob.parts, expect=(202,))
    target = _target(patched)
    closing = f"{target}{'&' if '?' in target else '?'}digest={quote(blob.digest, safe='')}"
    yield Request(request_head("PUT", closing, content_length=0), expect=(201,))


def tag_manifest(repository: str, tag: str, manifest: bytes) -> Generator[Request, Response, None]:
    """Puts a manifest under a tag."""
    head = request_head(
        "PUT",
        f"/v2/{repository}/manifests/{tag}",
        content_type=MANIFEST_TYPE,
        content_length=len(manifest),
    )
    yield Request(head, (memoryview(manifest),), expect=(201,))


def push_image(repository: str, tag: str, image: Image) -> Flow:
    """Layers, config, manifest: nine requests for an image of one layer."""
    for layer in image.layers:
        yield from push_blob(repository, layer)
    yield from push_blob(repository, image.config)
    yield from tag_manifest(repository, tag, image.manifest)


def _target(response: Response) -> str:
    location = urlsplit(response.location)
    return f"{location.path}?{location.query}" if location.query else location.path
