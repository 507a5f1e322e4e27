"""How much there may be to parse in a manifest: 4 MiB of brackets would hold up everybody else (rule A19)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from moorage.registry.oci import MANIFEST_LIMIT, Manifest, ManifestInvalid, parse_manifest
from moorage.registry.oci.media_types import OCI_IMAGE, OCI_INDEX

_LIMIT = 200_000
_ENTRY: Mapping[str, Any] = {"mediaType": OCI_IMAGE, "digest": f"sha256:{'a' * 64}", "size": 2}
_HEAD, _TAIL = b'{"schemaVersion":2,"manifests":[],"x":[', b"]}"
_REST = 11
"""Texts, commas and brackets of head and tail."""


def _repeated(unit: bytes, times: int) -> bytes:
    return _HEAD + b",".join([unit] * times) + _TAIL


@pytest.mark.parametrize("unit", [b"[]", b"{}", b'""', b"1", b'{"a":1}', b'"\\""', b"[" * 20 + b"]" * 20, b'",[{"'])
def test_a19_more_to_parse_than_any_manifest_has_is_refused(unit: bytes) -> None:
    """Whatever it is that there is so much of; with or without a Content-Type."""
    bomb = _repeated(unit, (MANIFEST_LIMIT - 100) // (len(unit) + 1))
    with pytest.raises(ManifestInvalid, match="more than 200000 texts, commas and brackets"):
        parse_manifest(bomb, OCI_INDEX)
    with pytest.raises(ManifestInvalid, match="more than 200000 texts, commas and brackets"):
        Manifest.of(bomb)


def test_a19_up_to_the_limit_it_is_read() -> None:
    """To the last one: a number and its comma count one, for numbers themselves are not counted."""
    times = _LIMIT - _REST + 1
    assert parse_manifest(_repeated(b"1", times), OCI_INDEX).manifests == ()
    with pytest.raises(ManifestInvalid, match="more than 200000"):
        parse_manifest(_repeated(b"1", times + 1), OCI_INDEX)


@pytest.mark.parametrize(
    "text", [",[{}]" * 780_000, '\\",[' * 780_000, "\\" * 2_000_000], ids=["marks", "quotes", "\\"]
)
def test_a19_what_stands_in_a_text_counts_one(text: str) -> None:
    """An annotation may hold another document."""
    document = {"schemaVersion": 2, "manifests": [_ENTRY], "annotations": {"text": text}}
    assert parse_manifest(json.dumps(document).encode(), OCI_INDEX).annotations == {"text": text}


def test_a19_a_full_index_is_read() -> None:
    """A thousand descriptors with platform and twenty annotations each."""
    annotations = {f"org.example.annotation.{i}": "value" * 10 for i in range(20)}
    entry = {**_ENTRY, "platform": {"os": "linux", "architecture": "amd64"}, "annotations": annotations}
    content = json.dumps({"schemaVersion": 2, "manifests": [entry] * 1000}).encode()
    assert len(parse_manifest(content, OCI_INDEX).manifests) == 1000


@pytest.mark.parametrize("end", [b"", b"\\", b'"'])
def test_a19_texts_without_an_end_are_looked_at_once(end: bytes) -> None:
    """Each byte once: from every quotation mark to the end again would take hours."""
    with pytest.raises(ManifestInvalid, match=r"not (a )?JSON"):
        parse_manifest(b'"' + b'\\"' * 2_000_000 + end, OCI_INDEX)
