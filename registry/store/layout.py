"""Keys of everything a registry stores. Law: no other module joins a key.

    data/<2>/<gen>                                the bytes of one stored blob, written once
    blobs/<alg>/<2>/<hex>/<gen>.<size>            marker: data/…/<gen> was verified to have this digest and size
    doom/<gen>                                    condemned by garbage collection; the last thing removed
    links/<n>/<alg>/<hex>/u-<nonce>               the repository may read this blob: pushed, mounted or asked for
    links/<n>/<alg>/<hex>/m-<gen>.<alg>-<hex>     … because the manifest <alg>-<hex> of this generation needs it
    manifests/<n>/<alg>/<hex>/<gen>               a manifest record; until it is published, only what it references
    tags/<n>/<tag>                                what the tag names, or a tombstone
    tagged/<n>/<alg>/<hex>/<tag>.<gen>            this tag may name this manifest
    history/<n>/<tag>/<seq>.<alg>-<hex>           what the tag named before
    referrers/<n>/<alg>/<hex>/<alg>-<hex>.<gen>   a referrer's descriptor
    format                                        which layout this is
    uploads/<id>                                  open uploads (the storage port's own records)

``<n>``: the repository name as one component, ``/`` written ``!``. ``<gen>``: a generation, new for every write, so a
late delete hits only what it was decided for. ``<2>``: first two characters of a hash, last two of a generation.
"""

from __future__ import annotations

import re
import secrets
import time
from typing import Final

from moorage.registry.oci import Digest, NameInvalid, RepositoryName, Tag

__all__ = [
    "FORMAT",
    "REPOSITORIES",
    "blob_marker",
    "blob_markers",
    "data",
    "digest_after",
    "digest_at",
    "doom",
    "history",
    "is_upload_link",
    "links",
    "manifest_link",
    "manifest_record",
    "manifest_records",
    "new_generation",
    "parse_manifest_link",
    "parse_marker",
    "parse_tagged",
    "referrer",
    "referrers",
    "repository_at",
    "repository_manifests",
    "repository_prefixes",
    "tag",
    "tagged",
    "tags",
    "tags_of_manifest",
    "upload_link",
]

FORMAT: Final = "format"
REPOSITORIES: Final = "manifests/"
"""Listed with the delimiter, its common prefixes are the catalog."""

_MARKER = re.compile(r"([0-9a-f]{32})\.([0-9]{1,16})")
_MANIFEST_LINK = re.compile(r"m-([0-9a-f]{32})\.([a-z0-9]+)-([0-9a-f]+)")


def new_generation() -> str:
    """A name that was never used before: 48 bits of time in milliseconds, so that names sort by age, then 80 random."""
    return f"{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def data(generation: str) -> str:
    """The bytes of a stored blob."""
    return f"data/{generation[-2:]}/{generation}"


def doom(generation: str) -> str:
    """The condemnation of a generation, of a blob or of a manifest."""
    return f"doom/{generation}"


def blob_markers(digest: Digest) -> str:
    """Prefix of the markers of every generation of a blob."""
    return f"blobs/{digest.algorithm}/{digest.hex[:2]}/{digest.hex}/"


def blob_marker(digest: Digest, generation: str, size: int) -> str:
    """The marker of one generation."""
    return f"{blob_markers(digest)}{generation}.{size}"


def parse_marker(key: str) -> tuple[str, int] | None:
    """Generation and size in a marker's key; None for a key that is no marker (sweepers skip what they do not know)."""
    match = _MARKER.fullmatch(key.rpartition("/")[2])
    return (match[1], int(match[2])) if match else None


def links(repository: RepositoryName, digest: Digest) -> str:
    """Prefix of the links that let a repository read a blob."""
    return f"links/{_component(repository)}/{digest.algorithm}/{digest.hex}/"


def upload_link(repository: RepositoryName, digest: Digest) -> str:
    """A fresh link for a blob that was pushed, mounted or asked for by a writer."""
    return f"{links(repository, digest)}u-{secrets.token_hex(12)}"


def is_upload_link(key: str) -> bool:
    """Whether a link was made by a push, a mount or a question, not by a manifest."""
    return key.rpartition("/")[2].startswith("u-")


def manifest_link(repository: RepositoryName, blob: Digest, manifest: Digest, generation: str) -> str:
    """The link that a manifest holds on a blob."""
    return f"{links(repository, blob)}m-{generation}.{_digest_component(manifest)}"


def parse_manifest_link(key: str) -> tuple[Digest, str] | None:
    """Digest and generation of the manifest that holds a link; None for a link that is no manifest's."""
    match = _MANIFEST_LINK.fullmatch(key.rpartition("/")[2])
    return (Digest.parse(f"{match[2]}:{match[3]}"), match[1]) if match else None


def repository_manifests(repository: RepositoryName) -> str:
    """Prefix of every manifest record of a repository."""
    return f"{REPOSITORIES}{_component(repository)}/"


def manifest_records(repository: RepositoryName, digest: Digest) -> str:
    """Prefix of the records of one manifest, one for each time it was put."""
    return f"{repository_manifests(repository)}{digest.algorithm}/{digest.hex}/"


def manifest_record(repository: RepositoryName, digest: Digest, generation: str) -> str:
    """One manifest record."""
    return f"{manifest_records(repository, digest)}{generation}"


def tags(repository: RepositoryName) -> str:
    """Prefix of the tags of a repository."""
    return f"tags/{_component(repository)}/"


def tag(repository: RepositoryName, name: Tag) -> str:
    """What a tag names."""
    return f"{tags(repository)}{name}"


def tags_of_manifest(repository: RepositoryName, digest: Digest) -> str:
    """Prefix of the markers of tags that may name a manifest."""
    return f"tagged/{_component(repository)}/{digest.algorithm}/{digest.hex}/"


def tagged(repository: RepositoryName, digest: Digest, name: Tag, generation: str) -> str:
    """The marker that a tag may name a manifest; it dies with that generation of the manifest."""
    return f"{tags_of_manifest(repository, digest)}{name}.{generation}"


def parse_tagged(key: str) -> tuple[Tag, str]:
    """Tag and generation in the key of such a marker."""
    name, _, generation = key.rpartition("/")[2].rpartition(".")
    return Tag(name), generation


def history(repository: RepositoryName, name: Tag, seq: int, digest: Digest) -> str:
    """An earlier value of a tag."""
    return f"history/{_component(repository)}/{name}/{seq:012d}.{_digest_component(digest)}"


def referrers(repository: RepositoryName, subject: Digest) -> str:
    """Prefix of the referrers of a subject."""
    return f"referrers/{_component(repository)}/{subject.algorithm}/{subject.hex}/"


def referrer(repository: RepositoryName, subject: Digest, digest: Digest, generation: str) -> str:
    """The descriptor of one referrer."""
    return f"{referrers(repository, subject)}{_digest_component(digest)}.{generation}"


def digest_after(prefix: str, digest: str) -> str:
    """A place in the listing of ``prefix`` behind every entry of ``digest`` (generations are hex, so below ``g``)."""
    return f"{prefix}{digest.replace(':', '-')}.g"


def digest_at(key: str) -> Digest:
    """The digest in the last component of a referrer's key.

    Raises:
        DigestInvalid: the key is none of ours.
    """
    return Digest.parse(key.rpartition("/")[2].partition(".")[0].replace("-", ":", 1))


def repository_at(prefix: str) -> RepositoryName | None:
    """The repository in a common prefix of ``REPOSITORIES``; None for one that is none of ours."""
    try:
        return RepositoryName.parse(prefix.split("/")[1].replace("!", "/"))
    except NameInvalid:
        return None


def repository_prefixes(repository: RepositoryName) -> tuple[str, ...]:
    """Where a repository that exists has at least one key."""
    name = _component(repository)
    return f"{REPOSITORIES}{name}/", f"links/{name}/", f"tags/{name}/"


def _component(repository: RepositoryName) -> str:
    return repository.value.replace("/", "!")


def _digest_component(digest: Digest) -> str:
    return f"{digest.algorithm}-{digest.hex}"
