"""What both buckets hold before the clock starts: one image, and a repository of 10,000 tags.

The tags but the first are not pushed one by one, which takes minutes, but written into the bucket as the registry wrote
the first one: MinIO unpacks a tar archive of objects. The lists that are then measured are checked.
"""

from __future__ import annotations

import io
import json
import re
import tarfile
from typing import Any, Final

from tests.bench.engine import Address
from tests.bench.flows import push_image
from tests.bench.images import KIB, MIB, image
from tests.bench.s3.exchange import Client
from tests.bench.stage import READ, TAGGED, Content
from tests.s3.servers import S3Server

__all__ = ["TAGS", "Stage", "list_tags"]

TAGS: Final = 10_000
_FIRST: Final = "t00000"
_NEXT = re.compile(r"<([^>]+)>")


class Stage(Content):
    """One image with layers of 4 KiB, 1 MiB and 64 MiB, and the tags."""

    @classmethod
    def make(cls) -> Stage:
        """Makes and hashes it."""
        return cls(("4k", "1m", "64m"), image(4 * KIB, 1 * MIB, 64 * MIB), image(1 * KIB))

    def fill(self, address: Address, server: S3Server, bucket: str) -> None:
        """Pushes the images, writes the tags, and reads back what can be read quickly.

        Raises:
            UnexpectedAnswer: the registry refused something.
            ValueError: something that was read is not what was written.
        """
        with Client(address) as client:
            client.run(push_image(READ, "latest", self.image))
            client.run(push_image(TAGGED, _FIRST, self.small_image))
        _multiply_tags(server, bucket)
        with Client(address) as client:  # the first one's connection may have been idle for too long
            if client.get(f"/v2/{READ}/manifests/latest", keep=True).body != self.image.manifest:
                raise ValueError("another manifest came back")
            if (tags := list_tags(client)) != [f"t{number:05}" for number in range(TAGS)]:
                raise ValueError(f"{len(tags)} tags came back")


def list_tags(client: Client) -> list[str]:
    """All tags of ``TAGGED``, in as many pages as the registry makes of them."""
    tags: list[str] = []
    target = f"/v2/{TAGGED}/tags/list?n={TAGS}"
    while target:
        answer = client.get(target, keep=True)
        tags += json.loads(answer.body)["tags"]
        link = _NEXT.search(answer.fields.get("link", ""))
        target = link[1] if link else ""
    return tags


def _multiply_tags(server: S3Server, bucket: str) -> None:
    """Copies the objects of the first tag to as many tags as there are to be."""
    s3 = server.client()
    keys = [key for key in server.keys(bucket) if f"/{_FIRST}" in key and "history" not in key and "/index/" not in key]
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as packed:
        for key in keys:
            content = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
            for number in range(1, TAGS):
                _add(packed, key.replace(_FIRST, f"t{number:05}"), content)
    s3.put_object(Bucket=bucket, Key="tags.tar", Body=archive.getvalue(), Metadata={"snowball-auto-extract": "true"})


def _add(packed: tarfile.TarFile, key: str, content: bytes) -> Any:
    entry = tarfile.TarInfo(key)
    entry.size = len(content)
    packed.addfile(entry, io.BytesIO(content))
