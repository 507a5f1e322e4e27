"""An upload straight into the store, to be killed at any moment: ``python -m tests.s3.pusher LOCATION KEY CUT``."""

from __future__ import annotations

import asyncio
import sys

from moorage.storage_backends.s3 import Location, S3Store

from tests.s3.uploaded import CONTENT
from tests.suites.store_content import chunks, noted


async def main(location: str, key: str, cut: int) -> None:
    """Opens, appends up to ``cut`` and then the rest, commits."""
    store = S3Store(Location.parse(location))
    upload = await store.create_upload(key, b"")
    await store.append_upload(upload, 0, chunks(CONTENT[:cut]), noted())
    if cut < len(CONTENT):
        await store.append_upload(upload, cut, chunks(CONTENT[cut:]), noted())
    await store.commit_upload(upload, len(CONTENT))
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
