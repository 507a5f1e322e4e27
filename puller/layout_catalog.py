"""The manifests of a layout, seen as repositories. This module blocks; call it in a thread.

Law of membership: a manifest is in a repository if a name leads to it, directly or through indexes. A manifest that no
tag leads to is held by an entry of its own (``host/repository@digest``), so taking away one name, or moving it, never
takes content along; the entry goes when something else leads there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from moorage.puller.errors import LayoutInvalid
from moorage.puller.layout_files import Entry, LayoutFiles
from moorage.puller.layout_names import RefNames
from moorage.registry.oci import (
    MANIFEST_LIMIT,
    BlobReferenced,
    Descriptor,
    Digest,
    DigestInvalid,
    Manifest,
    ManifestBlobUnknown,
    ManifestUnknown,
    NameUnknown,
    PreconditionFailed,
    RepositoryName,
    Tag,
    TagCondition,
    TagOrDigest,
    Unsupported,
)
from moorage.registry.oci.media_types import IMAGE_TYPES, INDEX_TYPES

__all__ = ["Catalog", "is_parseable", "load_manifest"]

_MAX_MANIFESTS = 10_000
"""Most manifests that one walk visits, as in the copy engine (rule A17)."""


def load_manifest(files: LayoutFiles, descriptor: Descriptor) -> Manifest:
    """The manifest that ``descriptor`` points at, hashed.

    Raises:
        LayoutInvalid: its blob is damaged.
        BlobUnknown: the layout does not hold it.
    """
    with files.open_blob(descriptor.digest) as file:
        content = file.read(MANIFEST_LIMIT + 1)
    if Digest.of(content, descriptor.digest.algorithm) != descriptor.digest:
        raise LayoutInvalid(f"{files.root}: the blob {descriptor.digest} is damaged")
    return Manifest(descriptor.media_type, content, descriptor.digest)


class Catalog:
    """The manifests of a layout under one way of naming."""

    def __init__(self, files: LayoutFiles, names: RefNames) -> None:
        self._files = files
        self._names = names

    def resolve(self, repository: RepositoryName, reference: TagOrDigest) -> Descriptor:
        """See ``Reader.resolve_manifest``."""
        entries = self._entries_of(self._files.read_index(), repository)
        for entry, target in entries:
            if reference in (target, entry.descriptor.digest):
                return _bare(entry.descriptor)
        if isinstance(reference, Digest):
            for descriptor in self._walk(entry.descriptor for entry, _ in entries):
                if descriptor.digest == reference:
                    return descriptor
        detail = {"name": str(repository), "reference": str(reference)}
        raise ManifestUnknown(f"{self._files.root}: no such image", detail=detail)

    def load(self, descriptor: Descriptor) -> Manifest:
        """See ``load_manifest``."""
        return load_manifest(self._files, descriptor)

    def entry(self, repository: RepositoryName, tag: Tag) -> Descriptor | None:
        """What the tag points at, with the annotations of its entry; None if there is no such tag."""
        return self._tagged(self._files.read_index(), repository, tag)

    def entries(self, repository: RepositoryName) -> list[Descriptor]:
        """What the repository's entries point at, with their annotations."""
        return [entry.descriptor for entry, _ in self._entries_of(self._files.read_index(), repository)]

    def push(
        self,
        repository: RepositoryName,
        manifest: Manifest,
        tags: Sequence[Tag],
        condition: TagCondition,
        *,
        annotations: Mapping[str, str] | None = None,
    ) -> Descriptor:
        """See ``Writer.push_manifest``. ``annotations``: of the entries of the tags, or of the one of its digest."""
        if Digest.of(manifest.content, manifest.digest.algorithm) != manifest.digest:
            raise DigestInvalid("the manifest does not have its digest", detail={"digest": str(manifest.digest)})
        document = manifest.document
        for needed in (*document.blobs, *document.manifests):
            if not self._files.has_blob(needed.digest):
                raise ManifestBlobUnknown(detail={"digest": str(needed.digest)})
        self._files.place_blob(manifest.content, manifest.digest)
        self.name(repository, replace(manifest.descriptor, annotations=annotations), tags, condition)
        return manifest.descriptor

    def name(
        self, repository: RepositoryName, descriptor: Descriptor, tags: Sequence[Tag], condition: TagCondition
    ) -> None:
        """Makes a manifest that the layout holds one of the repository, under these tags.

        Annotations of the descriptor go with the tags, or where there are none with the entry of its digest.

        Raises:
            PreconditionFailed: a tag does not fulfil the condition.
        """
        with self._files.edit_index() as entries:
            for tag in tags:
                _check_condition(self._tagged(entries, repository, tag), condition)
            replaced = self._take_tags(entries, repository, tags)
            entries.extend(Entry(descriptor, self._names.write(repository, tag)) for tag in tags)
            self._hold(entries, repository, [*map(_bare, replaced), descriptor])

    def delete_tag(self, repository: RepositoryName, tag: Tag) -> None:
        """See ``Deleter.delete_tag``."""
        with self._files.edit_index() as entries:
            if self._tagged(entries, repository, tag) is None:
                raise ManifestUnknown(detail={"name": str(repository), "tag": str(tag)})
            self._hold(entries, repository, self._take_tags(entries, repository, [tag]))

    def delete_manifest(self, repository: RepositoryName, digest: Digest) -> None:
        """See ``Deleter.delete_manifest``.

        Raises:
            Unsupported: only an index leads to the manifest; it goes when the index goes.
        """
        manifest = self.load(self.resolve(repository, digest))
        with self._files.edit_index() as entries:
            mine = [e for e, _ in self._entries_of(entries, repository)]
            if digest in self._descendants(mine):
                raise Unsupported("an index of the repository needs this manifest", detail={"digest": str(digest)})
            entries[:] = [e for e in entries if e not in mine or e.descriptor.digest != digest]
            self._hold(entries, repository, [d for d in manifest.document.manifests if self._files.has_blob(d.digest)])

    def delete_blob(self, digest: Digest) -> None:
        """See ``Deleter.delete_blob``; every view's manifests count."""
        self._files.stat_blob(digest)
        with self._files.edit_index() as entries:
            for descriptor in self._walk(entry.descriptor for entry in entries):
                if digest == descriptor.digest or digest in self._blobs_of(descriptor):
                    raise BlobReferenced(detail={"digest": str(digest), "manifest": str(descriptor.digest)})
            self._files.delete_blob(digest)

    def repositories(self) -> list[RepositoryName]:
        """Every repository with a manifest, in order."""
        places = (self._names.read(entry.ref_name) for entry in self._files.read_index())
        return sorted({place[0] for place in places if place})

    def tags(self, repository: RepositoryName) -> list[Tag]:
        """Every tag of the repository, in order.

        Raises:
            NameUnknown: nothing has the repository's name.
        """
        entries = self._entries_of(self._files.read_index(), repository)
        if not entries:
            raise NameUnknown(detail={"name": str(repository)})
        return sorted({target for _, target in entries if isinstance(target, Tag)})

    def referrers(self, repository: RepositoryName, subject: Digest) -> list[Descriptor]:
        """The manifests of the repository whose subject is ``subject``, by digest."""
        roots = self._entries_of(self._files.read_index(), repository)
        manifests = [self.load(d) for d in self._walk(e.descriptor for e, _ in roots) if is_parseable(d)]
        found = [m.as_referrer() for m in manifests if m.document.subject and m.document.subject.digest == subject]
        return sorted(found, key=lambda referrer: str(referrer.digest))

    def _entries_of(
        self, entries: Iterable[Entry], repository: RepositoryName
    ) -> list[tuple[Entry, TagOrDigest | None]]:
        """The entries of one repository, each with the tag or digest that its name says."""
        places = ((entry, self._names.read(entry.ref_name)) for entry in entries)
        return [(entry, place[1]) for entry, place in places if place and place[0] == repository]

    def _tagged(self, entries: Iterable[Entry], repository: RepositoryName, tag: Tag) -> Descriptor | None:
        found = [entry.descriptor for entry, target in self._entries_of(entries, repository) if target == tag]
        return found[0] if found else None

    def _take_tags(self, entries: list[Entry], repository: RepositoryName, tags: Sequence[Tag]) -> list[Descriptor]:
        """Removes the tags' entries; returns what they pointed at."""
        taken = [entry for entry, target in self._entries_of(entries, repository) if target in tags]
        entries[:] = [entry for entry in entries if entry not in taken]
        return [entry.descriptor for entry in taken]

    def _hold(self, entries: list[Entry], repository: RepositoryName, candidates: Iterable[Descriptor]) -> None:
        """Makes the law of membership true again: adds entries for candidates, drops those no longer needed."""
        mine = self._entries_of(entries, repository)
        led_to = self._descendants(entry for entry, _ in mine)
        led_to |= {entry.descriptor.digest for entry, target in mine if isinstance(target, Tag)}
        holding = [entry for entry, target in mine if not isinstance(target, Tag)]
        entries[:] = [e for e in entries if e not in holding or e.descriptor.digest not in led_to]
        led_to |= {entry.descriptor.digest for entry in holding}
        for descriptor in candidates:
            if descriptor.digest not in led_to:
                led_to.add(descriptor.digest)
                entries.append(Entry(descriptor, self._names.write(repository, descriptor.digest)))

    def _descendants(self, entries: Iterable[Entry]) -> set[Digest]:
        """Everything strictly below the entries."""
        children: list[Descriptor] = []
        for entry in entries:
            if entry.descriptor.media_type in INDEX_TYPES and self._files.has_blob(entry.descriptor.digest):
                children.extend(self.load(entry.descriptor).document.manifests)
        return {descriptor.digest for descriptor in self._walk(children)}

    def _walk(self, roots: Iterable[Descriptor]) -> Iterator[Descriptor]:
        """The roots and every manifest below them that the layout holds, each once."""
        waiting, seen = [_bare(root) for root in roots], set[Digest]()
        while waiting:
            descriptor = waiting.pop()
            if descriptor.digest in seen or not self._files.has_blob(descriptor.digest):
                continue
            seen.add(descriptor.digest)
            if len(seen) > _MAX_MANIFESTS:
                raise LayoutInvalid(f"{self._files.root}: more than {_MAX_MANIFESTS} manifests below its names")
            yield descriptor
            if descriptor.media_type in INDEX_TYPES:
                waiting.extend(_bare(child) for child in self.load(descriptor).document.manifests)

    def _blobs_of(self, descriptor: Descriptor) -> set[Digest]:
        return {d.digest for d in self.load(descriptor).document.blobs} if is_parseable(descriptor) else set()


def _check_condition(current: Descriptor | None, condition: TagCondition) -> None:
    if condition.absent and current is not None:
        raise PreconditionFailed("the tag exists already", detail={"digest": str(current.digest)})
    if condition.digest is not None and (current is None or current.digest != condition.digest):
        raise PreconditionFailed(detail={"digest": str(current.digest) if current else None})


def _bare(descriptor: Descriptor) -> Descriptor:
    """Without what the place of the descriptor added: annotations and platform."""
    return Descriptor(descriptor.media_type, descriptor.digest, descriptor.size)


def is_parseable(descriptor: Descriptor) -> bool:
    """Whether it is a manifest of a type that we read."""
    return descriptor.media_type in IMAGE_TYPES | INDEX_TYPES
