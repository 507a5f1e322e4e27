"""Manifests: one reading only, or ``ManifestInvalid`` (rules A5, A6, A17, A19)."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.registry.oci import (
    MAX_SIZE,
    Descriptor,
    Digest,
    ImageIndex,
    ImageManifest,
    Manifest,
    ManifestInvalid,
    Platform,
    parse_json,
    parse_manifest,
)
from moorage.registry.oci.media_types import (
    DOCKER_IMAGE,
    DOCKER_INDEX,
    EMPTY_JSON,
    OCI_CONFIG,
    OCI_IMAGE,
    OCI_INDEX,
    SCHEMA1_TYPES,
)

from tests.content import EXAMPLE_TYPE, Content, artifact, gallery, image, index, nondistributable
from tests.strategies import json_values

_HEX = "a" * 64
_ENTRY: Mapping[str, Any] = {"mediaType": OCI_CONFIG, "digest": f"sha256:{_HEX}", "size": 2}
_IMAGE: Mapping[str, Any] = {"schemaVersion": 2, "mediaType": OCI_IMAGE, "config": _ENTRY, "layers": [_ENTRY]}
_INDEX: Mapping[str, Any] = {
    "schemaVersion": 2,
    "mediaType": OCI_INDEX,
    "manifests": [{**_ENTRY, "mediaType": OCI_IMAGE}],
}


def _refused(document: object, media_type: str = OCI_IMAGE) -> ManifestInvalid:
    content = document if isinstance(document, bytes) else json.dumps(document).encode()
    with pytest.raises(ManifestInvalid) as caught:
        parse_manifest(content, media_type)
    return caught.value


@pytest.mark.parametrize("content", [pytest.param(value, id=key) for key, value in gallery().items()])
def test_every_kind_of_manifest_is_understood(content: Content) -> None:
    """The parsed document names exactly the blobs and children it was built from."""
    document = content.manifest.document
    assert document.media_type == content.manifest.media_type
    assert [blob.digest for blob in document.blobs] == [blob.digest for blob in content.blobs]
    assert [child.digest for child in document.manifests] == [child.digest for child in content.children]


def test_the_bytes_stay_as_they_came() -> None:
    """Whitespace, order and unknown members belong to the digest."""
    content = b' {"layers": [],\n"config":' + json.dumps(_ENTRY).encode() + b',"schemaVersion":2, "x": 1.50 }\n'
    manifest = Manifest.of(content)
    assert manifest.content == content
    assert manifest.digest == Digest.of(content)
    assert isinstance(manifest.document, ImageManifest)


@pytest.mark.parametrize(
    ("document", "media_type"),
    [
        pytest.param(_IMAGE, OCI_IMAGE, id="declared image"),
        pytest.param({**_IMAGE, "mediaType": DOCKER_IMAGE}, DOCKER_IMAGE, id="declared docker image"),
        pytest.param({k: v for k, v in _IMAGE.items() if k != "mediaType"}, OCI_IMAGE, id="bare image"),
        pytest.param({k: v for k, v in _INDEX.items() if k != "mediaType"}, OCI_INDEX, id="bare index"),
        pytest.param({**_INDEX, "mediaType": DOCKER_INDEX}, DOCKER_INDEX, id="declared docker index"),
    ],
)
def test_an_absent_content_type_is_told_from_the_document(document: Mapping[str, Any], media_type: str) -> None:
    """OCI documents may leave ``mediaType`` out."""
    assert Manifest.of(json.dumps(document).encode()).media_type == media_type


@pytest.mark.parametrize("content", [b"{}", b"[]", b"", b"x", b'{"mediaType": 7}', b'{"mediaType": "text"}'])
def test_a_document_of_unknown_type_is_refused(content: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(ManifestInvalid):
        Manifest.of(content)


A5_POLYGLOTS = [
    pytest.param({**_IMAGE, "manifests": []}, OCI_IMAGE, id="image with manifests"),
    pytest.param({**_INDEX, "layers": []}, OCI_INDEX, id="index with layers"),
    pytest.param({**_INDEX, "config": _ENTRY}, OCI_INDEX, id="index with config"),
    pytest.param({**_INDEX, "config": None}, OCI_INDEX, id="index with null config"),
    pytest.param(_IMAGE, OCI_INDEX, id="image pushed as index"),
    pytest.param(_INDEX, OCI_IMAGE, id="index pushed as image"),
    pytest.param(_IMAGE, DOCKER_IMAGE, id="OCI pushed as docker"),
    pytest.param({**_IMAGE, "mediaType": OCI_INDEX}, OCI_IMAGE, id="mediaType of an index"),
    pytest.param({**_IMAGE, "mediaType": ""}, OCI_IMAGE, id="empty mediaType"),
    pytest.param({**_IMAGE, "mediaType": [OCI_IMAGE]}, OCI_IMAGE, id="mediaType in a list"),
    pytest.param(_IMAGE, "application/json", id="foreign Content-Type"),
    pytest.param(_IMAGE, OCI_IMAGE.upper(), id="upper case Content-Type"),
    *(pytest.param({"schemaVersion": 1}, kind, id=kind.rpartition(".")[2]) for kind in sorted(SCHEMA1_TYPES)),
    *(
        pytest.param({**_IMAGE, "schemaVersion": value}, OCI_IMAGE, id=f"schemaVersion {value!r}")
        for value in (1, 3, "2", None, True, [2])
    ),
]


@pytest.mark.parametrize(("document", "media_type"), A5_POLYGLOTS)
def test_a5_a_document_that_could_be_read_as_two_things_is_refused(document: object, media_type: str) -> None:
    """Rule A5: type confusion (CVE-2021-41190)."""
    _refused(document, media_type)


A5_TEXTS = [
    pytest.param(b'{"a": 1, "a": 1}', id="duplicate key"),
    pytest.param(b'{"x": {"a": 1, "a": 2}}', id="duplicate key inside"),
    pytest.param(b'{"layers": [], "\\u006cayers": []}', id="duplicate key by escape"),
    pytest.param(b'{"x": NaN}', id="NaN"),
    pytest.param(b'{"x": Infinity}', id="Infinity"),
    pytest.param(b'{"x": -Infinity}', id="minus Infinity"),
    pytest.param(b"\xef\xbb\xbf{}", id="byte-order mark"),
    pytest.param("{}".encode("utf-16"), id="UTF-16"),
    pytest.param("{}".encode("utf-16-le"), id="UTF-16 without mark"),
    pytest.param("{}".encode("utf-32"), id="UTF-32"),
    pytest.param(b'{"x": "\xff"}', id="not UTF-8"),
    pytest.param(b'{"x": "\xc0\xaf"}', id="overlong UTF-8"),
    pytest.param(b'{"x": "\xed\xa0\x80"}', id="surrogate in UTF-8"),
    pytest.param(b"{} {}", id="two documents"),
    pytest.param(b"{}x", id="trailing text"),
    pytest.param(b"{}\0", id="trailing nul"),
    pytest.param(b'{"a": 1,}', id="trailing comma"),
    pytest.param(b"{'a': 1}", id="single quotes"),
    pytest.param(b'{"a": 01}', id="leading zero"),
    pytest.param(b'{"a": "\n"}', id="raw newline in text"),
    pytest.param(b'{"a": 1 /* */}', id="comment"),
    pytest.param(b'{"a": ' + b"9" * 5000 + b"}", id="number of 5,000 digits"),
    pytest.param(b'{"x": "\\ud800"}', id="half a surrogate pair"),
    pytest.param(b'{"\\ud800": 1, "\\ud800": 2}', id="half a surrogate pair as a key, twice"),
    pytest.param(b"", id="nothing"),
    pytest.param(b"\xff\xfe", id="mark only"),
]


@pytest.mark.parametrize("content", A5_TEXTS)
def test_a5_json_with_two_readings_is_refused(content: bytes) -> None:
    """Rule A5: what parsers disagree on is not stored."""
    with pytest.raises(ManifestInvalid):
        parse_json(content)


def _nested(depth: int, opener: str = "[", closer: str = "]") -> bytes:
    return (opener * depth + ("1" if "{" in opener else "") + closer * depth).encode()


@pytest.mark.parametrize("depth", [1, 31, 32])
@pytest.mark.parametrize(("opener", "closer"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_a19_json_up_to_the_depth_is_read(depth: int, opener: str, closer: str) -> None:
    """Rule A19: 32 levels are fine."""
    parse_json(_nested(depth, opener, closer))


@pytest.mark.parametrize("depth", [33, 34, 1000, 100_000])
@pytest.mark.parametrize(("opener", "closer"), [("[", "]"), ('{"a":', "}")], ids=["lists", "objects"])
def test_a19_deeper_json_is_refused(depth: int, opener: str, closer: str) -> None:
    """Rule A19: neither a crash nor a ``RecursionError``."""
    with pytest.raises(ManifestInvalid):
        parse_json(_nested(depth, opener, closer))


@pytest.mark.parametrize("bomb", [b"[" * 2**20, b'{"a":' * 2**18, b"[[]," * 2**18, b"[" + b"[]," * 2**18 + b"[]]"])
def test_a19_a_json_bomb_is_refused_quickly(bomb: bytes) -> None:
    """Rule A19: a mebibyte of brackets costs less than two seconds, whatever becomes of it."""
    started = time.process_time()
    with contextlib.suppress(ManifestInvalid):
        parse_json(bomb)
    assert time.process_time() - started < 2


@pytest.mark.parametrize("count", [0, 1, 999, 1000])
@pytest.mark.parametrize(
    ("base", "field", "media_type"), [(_IMAGE, "layers", OCI_IMAGE), (_INDEX, "manifests", OCI_INDEX)]
)
def test_a17_descriptors_up_to_the_limit_are_read(
    base: Mapping[str, Any], field: str, media_type: str, count: int
) -> None:
    """Rule A17: a thousand per document."""
    document = parse_manifest(json.dumps({**base, field: [_ENTRY] * count}).encode(), media_type)
    entries = document.manifests if isinstance(document, ImageIndex) else document.layers
    assert len(entries) == count


@pytest.mark.parametrize("count", [1001, 2000])
@pytest.mark.parametrize(
    ("base", "field", "media_type"), [(_IMAGE, "layers", OCI_IMAGE), (_INDEX, "manifests", OCI_INDEX)]
)
def test_a17_more_descriptors_are_refused(base: Mapping[str, Any], field: str, media_type: str, count: int) -> None:
    """Rule A17: a graph cannot grow by its width."""
    _refused({**base, field: [_ENTRY] * count}, media_type)


def _values(*values: Any) -> tuple[Any, ...]:
    return values


A6_DESCRIPTORS = [
    *(pytest.param(value, id=f"not an object: {value!r}") for value in _values(None, 1, "x", [], True)),
    pytest.param({}, id="empty"),
    *(
        pytest.param({**_ENTRY, "size": value}, id=f"size {value!r}")
        for value in _values(None, -1, 1.5, 2.0, 1e3, "2", True, [], MAX_SIZE + 1, 10**30)
    ),
    pytest.param({k: v for k, v in _ENTRY.items() if k != "size"}, id="no size"),
    pytest.param({k: v for k, v in _ENTRY.items() if k != "digest"}, id="no digest"),
    pytest.param({k: v for k, v in _ENTRY.items() if k != "mediaType"}, id="no mediaType"),
    *(
        pytest.param({**_ENTRY, "digest": value}, id=f"digest {str(value)[:24]!r}")
        for value in _values(
            None,
            1,
            [],
            "",
            "x",
            "sha256:",
            "sha256:../../x",
            f"sha256:{_HEX}\n",
            "sha256:" + "A" * 64,
            f"md5:{'a' * 32}",
            "sha256:\ud800",
            {"a": 1},
        )
    ),
    *(
        pytest.param({**_ENTRY, "mediaType": value}, id=f"mediaType {str(value)[:24]!r}")
        for value in _values(
            None,
            1,
            [],
            "",
            "x",
            "a/b/c",
            "text/html; charset=x",
            "a/b\r\nx: y",
            "a /b",
            "a/\u00e9",
            "a" * 128 + "/b",
        )
    ),
    pytest.param({**_ENTRY, "artifactType": 1}, id="artifactType number"),
    pytest.param({**_ENTRY, "artifactType": "x\r\ny"}, id="artifactType with line end"),
    pytest.param({**_ENTRY, "annotations": []}, id="annotations list"),
    pytest.param({**_ENTRY, "annotations": {"a": 1}}, id="annotation number"),
    pytest.param({**_ENTRY, "annotations": {"a": None}}, id="annotation null"),
    pytest.param({**_ENTRY, "platform": "linux"}, id="platform text"),
    pytest.param({**_ENTRY, "platform": {"os": 1}}, id="platform number"),
    pytest.param({**_ENTRY, "platform": {"os": "linux", "os.features": "x"}}, id="features text"),
]
_POSITIONS = [
    pytest.param(lambda bad: ({**_IMAGE, "config": bad}, OCI_IMAGE), id="config"),
    pytest.param(lambda bad: ({**_IMAGE, "layers": [_ENTRY, bad]}, OCI_IMAGE), id="layer"),
    pytest.param(lambda bad: ({**_INDEX, "manifests": [bad]}, OCI_INDEX), id="child"),
    pytest.param(lambda bad: ({**_IMAGE, "subject": bad}, OCI_IMAGE), id="subject of an image"),
    pytest.param(lambda bad: ({**_INDEX, "subject": bad}, OCI_INDEX), id="subject of an index"),
]


@pytest.mark.parametrize("bad", A6_DESCRIPTORS)
@pytest.mark.parametrize("place", _POSITIONS)
def test_a6_one_validator_guards_every_descriptor(place: Any, bad: object) -> None:
    """Rule A6: the same shapes are refused wherever a descriptor may stand (an absent subject is no subject)."""
    document, media_type = place(bad)
    if bad is None and "subject" in document:
        assert parse_manifest(json.dumps(document).encode(), media_type).subject is None
    else:
        _refused(document, media_type)


@pytest.mark.parametrize("size", [0, 1, MAX_SIZE - 1, MAX_SIZE])
def test_a6_sizes_up_to_the_limit_are_read(size: int) -> None:
    """Rule A6: 0 to 2**53."""
    document = parse_manifest(json.dumps({**_IMAGE, "layers": [{**_ENTRY, "size": size}]}).encode(), OCI_IMAGE)
    assert document.blobs[-1].size == size


@pytest.mark.parametrize("value", [None, 1, "x", {}, {"a": _ENTRY}])
@pytest.mark.parametrize(
    ("base", "field", "media_type"), [(_IMAGE, "layers", OCI_IMAGE), (_INDEX, "manifests", OCI_INDEX)]
)
def test_a6_a_list_of_descriptors_is_a_list(
    base: Mapping[str, Any], field: str, media_type: str, value: object
) -> None:
    """Rule A6: neither absent nor of another shape."""
    _refused({**base, field: value}, media_type)


@given(st.sampled_from([_IMAGE, _INDEX]), st.data())
def test_a6_mutated_documents_are_read_or_refused(base: Mapping[str, Any], data: st.DataObject) -> None:
    """Rule A6: any value at any place gives a document or ``ManifestInvalid``, never another exception."""
    document = json.loads(json.dumps(base))
    holder, key = document, data.draw(st.sampled_from(sorted(document)))
    for _ in range(data.draw(st.integers(0, 3))):
        if not isinstance(holder[key], (dict, list)) or not holder[key]:
            break
        holder = holder[key]
        key = data.draw(st.sampled_from(sorted(holder) if isinstance(holder, dict) else [0]))
    holder[key] = data.draw(json_values)
    try:
        parse_manifest(json.dumps(document).encode("utf-8", "surrogatepass"), base["mediaType"])
    except ManifestInvalid as exc:
        json.dumps(exc.to_json())


@given(st.binary(max_size=300), st.sampled_from([OCI_IMAGE, OCI_INDEX, DOCKER_IMAGE, DOCKER_INDEX]))
def test_a6_any_bytes_are_read_or_refused(content: bytes, media_type: str) -> None:
    """Rule A6: whatever arrives, only ``ManifestInvalid`` leaves."""
    with pytest.raises(ManifestInvalid):
        parse_manifest(content, media_type)


def test_a_refusal_names_the_place() -> None:
    """The detail tells which descriptor, and its text is JSON."""
    refusal = _refused({**_IMAGE, "layers": [_ENTRY, {**_ENTRY, "size": -1}]})
    assert refusal.detail == {"field": "layers[1].size"}


def test_foreign_layers_are_not_asked_for() -> None:
    """A registry must take a manifest whose non-distributable layers it does not hold."""
    document = nondistributable().manifest.document
    assert isinstance(document, ImageManifest)
    assert len(document.layers) == 2
    assert len(document.blobs) == 2  # the config and the one layer of its own


@pytest.mark.parametrize(
    ("content", "artifact_type"),
    [
        pytest.param(artifact("x", artifact_type=EXAMPLE_TYPE), EXAMPLE_TYPE, id="its own"),
        pytest.param(artifact("x", artifact_type=None, config_type=EXAMPLE_TYPE), EXAMPLE_TYPE, id="the config's"),
        pytest.param(artifact("x", artifact_type=None), EMPTY_JSON, id="the empty config's"),
        pytest.param(image("x"), OCI_CONFIG, id="an image's config"),
        pytest.param(index(), None, id="an index has none"),
        pytest.param(index(artifact_type=EXAMPLE_TYPE), EXAMPLE_TYPE, id="an index's own"),
    ],
)
def test_a_referrer_carries_its_artifact_type(content: Content, artifact_type: str | None) -> None:
    """Spec "Listing Referrers": the fallback is the config's media type; annotations are copied."""
    entry = content.manifest.as_referrer()
    assert entry.artifact_type == artifact_type
    assert (entry.digest, entry.size) == (content.digest, len(content.manifest.content))
    assert entry.annotations == content.manifest.document.annotations


@given(
    st.builds(
        Descriptor,
        st.just(OCI_IMAGE),
        st.builds(Digest.of, st.binary(max_size=4)),
        st.integers(0, MAX_SIZE),
        st.none() | st.just(EXAMPLE_TYPE),
        st.none() | st.dictionaries(st.text(max_size=4), st.text(max_size=4), min_size=1, max_size=3),
        st.none() | st.builds(Platform, st.just("linux"), st.just("arm64"), st.sampled_from(["", "v8"])),
    )
)
def test_a_descriptor_reads_back_as_itself(descriptor: Descriptor) -> None:
    """``from_json`` undoes ``to_json``."""
    assert Descriptor.from_json(descriptor.to_json(), field="x") == descriptor


@pytest.mark.parametrize("content", A5_TEXTS)
def test_a5_a_refusal_can_be_put_into_words(content: bytes) -> None:
    """Whatever the document holds, the error that names it is UTF-8."""
    with pytest.raises(ManifestInvalid) as caught:
        parse_json(content)
    json.dumps(caught.value.to_json(), ensure_ascii=False).encode()


def test_a_whole_surrogate_pair_is_text() -> None:
    """Escaped as JSON escapes it, and escaped backslashes that only look like one."""
    assert parse_json(b'{"x": "\\ud83d\\ude00", "y": "\\\\ud800"}') == {"x": "\U0001f600", "y": "\\ud800"}
