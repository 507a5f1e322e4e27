"""Whether an image that no index offered is for the platform that was asked for.

Law: who names a platform gets that or an error; who names none gets what there is.
"""

from __future__ import annotations

from functools import partial

from moorage.puller.errors import NoMatchingPlatform
from moorage.puller.image import read_platform
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.platforms import acceptable, normalise
from moorage.puller.threads import in_thread
from moorage.registry.oci import (
    MANIFEST_LIMIT,
    Descriptor,
    ImageManifest,
    Platform,
    Reader,
    RepositoryName,
    read_limited,
)

__all__ = ["check_platform"]


async def check_platform(
    source: Reader, repository: RepositoryName, files: LayoutFiles, image: ImageManifest, wanted: Platform
) -> None:
    """Brings the image's config here, and compares; a config that names no platform fits every one.

    Raises:
        NoMatchingPlatform: the image is for another one.
        OciError: the config cannot be had.
        ImageError: it is none.
    """
    if not await in_thread(partial(files.has_blob, image.config.digest)):
        await _bring(source, repository, files, image.config)
    found = await in_thread(partial(read_platform, files, image))
    if found is not None and str(normalise(found)) not in map(str, acceptable(wanted)):
        raise NoMatchingPlatform(f"no image for {wanted} (there is one only, for {found})")


async def _bring(source: Reader, repository: RepositoryName, files: LayoutFiles, config: Descriptor) -> None:
    async with source.read_blob(repository, config.digest) as stream:
        content = await read_limited(stream, MANIFEST_LIMIT)
    await in_thread(partial(files.place_blob, content, config.digest))
