"""The content that every registry holds before the clock starts, and the check that it answers with it.

Law: a server is measured only after it has given back what it was given, byte for byte.
"""

from __future__ import annotations

import hashlib
import json
import urllib.request
from dataclasses import dataclass

from tests.bench.engine import Address, Flow, drive
from tests.bench.flows import ACCEPT, push_image, tag_manifest
from tests.bench.images import KIB, MIB, Blob, Image, image

__all__ = ["READ", "TAGGED", "TAGS", "Content", "Stage"]

READ = "bench/read"
"""The repository whose manifest ``latest`` and blobs are read."""

TAGGED = "bench/tagged"
"""The repository with many tags."""

TAGS = 1000


@dataclass(frozen=True, slots=True)
class Content:
    """The same for every registry. ``names``: what the cases call the layers of ``image``."""

    names: tuple[str, ...]
    image: Image
    small_image: Image

    @property
    def blobs(self) -> dict[str, Blob]:
        """The layers by name."""
        return dict(zip(self.names, self.image.layers, strict=True))


class Stage(Content):
    """One image with layers of 4 KiB, 10 MiB and 256 MiB, and ``TAGS`` tags of a small one."""

    @classmethod
    def make(cls) -> Stage:
        """Makes the content and hashes it."""
        return cls(("4k", "10m", "256m"), image(4 * KIB, 10 * MIB, 256 * MIB), image(1 * KIB))

    def fill(self, address: Address) -> None:
        """Pushes it all.

        Raises:
            UnexpectedAnswer: the registry refused something.
        """
        drive(address, iter([push_image(READ, "latest", self.image)]), concurrency=1)
        drive(address, iter([push_image(TAGGED, "t0000", self.small_image)]), concurrency=1)
        tags: list[Flow] = [tag_manifest(TAGGED, f"t{n:04}", self.small_image.manifest) for n in range(1, TAGS)]
        drive(address, iter(tags), concurrency=4)

    def check(self, address: Address) -> None:
        """Reads it all back.

        Raises:
            ValueError: something that was read is not what was pushed.
        """
        manifest = _read(address, f"/v2/{READ}/manifests/latest")
        if manifest != self.image.manifest:
            raise ValueError(f"{address}: another manifest came back")
        for name, blob in self.blobs.items():
            if f"sha256:{hashlib.sha256(_read(address, f'/v2/{READ}/blobs/{blob.digest}')).hexdigest()}" != blob.digest:
                raise ValueError(f"{address}: another blob of {name} came back")
        listed = json.loads(_read(address, f"/v2/{TAGGED}/tags/list?n={TAGS}"))
        if sorted(listed["tags"]) != [f"t{n:04}" for n in range(TAGS)]:  # 2.8 lists in no order
            raise ValueError(f"{address}: {len(listed['tags'])} tags came back")


def _read(address: Address, target: str) -> bytes:
    url = f"http://{address[0]}:{address[1]}{target}"
    request = urllib.request.Request(url, headers={"Accept": ACCEPT})
    with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
        content = answer.read()
        assert isinstance(content, bytes)
        return content
