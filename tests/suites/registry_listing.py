"""What every ``Lister`` keeps (interface.py). A suite is a base class: subclass it with a ``registry`` fixture."""

from __future__ import annotations

import pytest
from moorage.registry.oci import Digest, NameUnknown, Registry, RepositoryName, Tag
from moorage.registry.oci.media_types import OCI_CONFIG

from tests.content import EXAMPLE_TYPE, artifact, blob, image, index, push, push_blobs, repository

__all__ = ["ListerSuite"]

_HERE, _NOWHERE = repository("team/app"), repository("no/where")
# Each of these is a prefix or a neighbour of another (rule A23: lists go by exact keys).
_TAGS = ["a", "a-b", "a.b", "aa", "A", "A1", "_", "1", "10", "2", "a_b", "ab", "z" * 128]
_NAMES = ["a", "a/b", "a-b", "a.b", "a/b/c", "a0", "ab", "a__b", "b/a"]


async def _tags(registry: Registry, after: str = "") -> list[str]:
    return [str(tag) async for tag in registry.list_tags(_HERE, after=after)]


class ListerSuite:
    """Listing names."""

    async def test_tags_come_in_byte_order(self, registry: Registry) -> None:
        """Complete, each once."""
        content = image()
        for tag in _TAGS:
            await push(registry, _HERE, content, tag)
        assert await _tags(registry) == sorted(_TAGS)

    @pytest.mark.parametrize("after", ["", "0", "1", "A", "Z", "a", "a-", "a-b", "a.b", "aa", "b", "z" * 128])
    async def test_tags_continue_from_behind_any_tag(self, registry: Registry, after: str) -> None:
        """Whether or not it exists; no tag is dropped because another is its prefix (rule A23)."""
        await push(registry, _HERE, image(), *_TAGS)
        assert await _tags(registry, after) == [tag for tag in sorted(_TAGS) if tag > after]

    async def test_a_repository_that_does_not_exist_has_no_list(self, registry: Registry) -> None:
        """The first step says so."""
        with pytest.raises(NameUnknown):
            _ = [tag async for tag in registry.list_tags(_NOWHERE)]

    async def test_a_repository_without_tags_has_an_empty_list(self, registry: Registry) -> None:
        """It exists: it has a manifest."""
        await push(registry, _HERE, image())
        assert await _tags(registry) == []

    async def test_a_repository_exists_though_its_last_tag_is_gone(self, registry: Registry) -> None:
        """The manifest is still there."""
        await push(registry, _HERE, image(), "a")
        await registry.delete_tag(_HERE, Tag("a"))
        assert await _tags(registry) == []

    async def test_more_tags_than_a_page_are_listed_whole(self, registry: Registry) -> None:
        """However many requests that takes."""
        names = [f"t{number:04}" for number in range(1100)]
        content = image()
        for start in range(0, len(names), 20):
            await push(registry, _HERE, content, *names[start : start + 20])
        assert await _tags(registry) == names
        assert await _tags(registry, "t0999") == names[1000:]

    async def test_repositories_are_listed_once_each(self, registry: Registry) -> None:
        """Those that have a manifest."""
        for name in _NAMES:
            await push(registry, repository(name), image(), "a", "b")
        await push_blobs(registry, repository("only/blobs"), [blob("x")])
        listed = [str(name) async for name in registry.list_repositories()]
        assert sorted(listed) == sorted(_NAMES)

    async def test_repositories_continue_from_behind_each(self, registry: Registry) -> None:
        """The order is stable: every continuation is the rest of the list."""
        for name in _NAMES:
            await push(registry, repository(name), image())
        whole = [name async for name in registry.list_repositories()]
        for position, place in enumerate(whole):
            rest = [found async for found in registry.list_repositories(after=place)]
            assert rest == whole[position + 1 :]

    async def test_repositories_continue_from_behind_one_that_is_not_there(self, registry: Registry) -> None:
        """Deleted meanwhile, for example: the rest is what would follow it."""
        for name in _NAMES:
            await push(registry, repository(name), image())
        whole = [name async for name in registry.list_repositories()]
        gone = whole.pop(4)
        await registry.delete_manifest(gone, image().digest)
        assert [found async for found in registry.list_repositories(after=gone)] == whole[4:]

    async def test_an_empty_registry_lists_nothing(self, registry: Registry) -> None:
        """And it is no error."""
        assert [name async for name in registry.list_repositories()] == []

    async def test_referrers_are_listed_by_digest(self, registry: Registry) -> None:
        """With type, size, artifact type and annotations, so that nobody needs to fetch them."""
        subject = image("subject").descriptor
        contents = [
            artifact("one", subject=subject),
            artifact("two", subject=subject, annotations={"org.example.a": "ü"}),
            artifact("three", subject=subject, artifact_type=None),
            image("four", subject=subject),
            index(subject=subject),
            index(subject=subject, artifact_type=EXAMPLE_TYPE),
        ]
        for content in contents:
            await push(registry, _HERE, content)
        expected = sorted((content.manifest.as_referrer() for content in contents), key=lambda entry: entry.digest)
        assert [entry async for entry in registry.list_referrers(_HERE, subject.digest)] == expected

    @pytest.mark.parametrize(
        ("artifact_type", "count"), [(EXAMPLE_TYPE, 2), (OCI_CONFIG, 1), ("application/x", 0), (None, 4)]
    )
    async def test_referrers_are_filtered_by_artifact_type(
        self, registry: Registry, artifact_type: str | None, count: int
    ) -> None:
        """The fallback to the config's media type counts; an index without a type matches nothing."""
        subject = image("subject").descriptor
        for content in (
            artifact("one", subject=subject),
            artifact("two", subject=subject),
            image("three", subject=subject),
            index(subject=subject),
        ):
            await push(registry, _HERE, content)
        found = [entry async for entry in registry.list_referrers(_HERE, subject.digest, artifact_type=artifact_type)]
        assert len(found) == count
        assert artifact_type is None or {entry.artifact_type for entry in found} <= {artifact_type}

    async def test_referrers_continue_from_behind_each(self, registry: Registry) -> None:
        """By digest."""
        subject = image("subject").descriptor
        for number in range(5):
            await push(registry, _HERE, artifact(number, subject=subject))
        whole = [entry.digest async for entry in registry.list_referrers(_HERE, subject.digest)]
        for position, digest in enumerate(whole):
            after = [e.digest async for e in registry.list_referrers(_HERE, subject.digest, after=str(digest))]
            assert after == whole[position + 1 :]

    async def test_a_referrer_pushed_twice_is_listed_once(self, registry: Registry) -> None:
        """Every push writes anew; the list is by digest."""
        content = artifact(subject=image("subject").descriptor)
        for tag in ("a", "b"):
            await push(registry, _HERE, content, tag)
        assert len([entry async for entry in registry.list_referrers(_HERE, image("subject").digest)]) == 1

    @pytest.mark.parametrize("name", [_HERE, _NOWHERE])
    async def test_what_nobody_refers_to_has_no_referrers(self, registry: Registry, name: RepositoryName) -> None:
        """Never an error, whether subject and repository exist or not."""
        await push(registry, _HERE, image())
        for digest in (image().digest, Digest.of(b"no"), Digest.of(b"no", "sha512")):
            assert [entry async for entry in registry.list_referrers(name, digest)] == []

    async def test_referrers_stay_in_their_repository(self, registry: Registry) -> None:
        """Another repository's signatures are not shown."""
        await push(registry, repository("team/other"), artifact(subject=image().descriptor))
        await push(registry, _HERE, image())
        assert [entry async for entry in registry.list_referrers(_HERE, image().digest)] == []
