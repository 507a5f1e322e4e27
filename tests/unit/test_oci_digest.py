"""Digests: parsed whole or refused (rule A7)."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.registry.oci import ALGORITHMS, Digest, DigestInvalid

from tests.strategies import digests

_HEX = "a" * 64

WRONG = [
    pytest.param("", id="nothing"),
    pytest.param("sha256", id="no colon"),
    pytest.param("sha256:", id="no hex"),
    pytest.param(":" + _HEX, id="no algorithm"),
    pytest.param("sha256:" + "a" * 63, id="one digit short"),
    pytest.param("sha256:" + "a" * 65, id="one digit long"),
    pytest.param("sha512:" + "a" * 127, id="sha512 one digit short"),
    pytest.param("sha512:" + "a" * 129, id="sha512 one digit long"),
    pytest.param("sha512:" + _HEX, id="sha512 of sha256 length"),
    pytest.param("sha256:" + "A" * 64, id="upper case hex"),
    pytest.param("SHA256:" + _HEX, id="upper case algorithm"),
    pytest.param("sha256:" + "g" * 64, id="not hex"),
    pytest.param(f"sha256:{_HEX}\n", id="trailing newline"),
    pytest.param(f" sha256:{_HEX}", id="leading space"),
    pytest.param(f"sha256:{_HEX}\0", id="trailing nul"),
    pytest.param("sha256:../../x", id="parent escape"),
    pytest.param("sha256:" + "../" * 21 + "a", id="parent escape of the right length"),
    pytest.param("sha256:" + "٣" * 64, id="arabic digits"),
    pytest.param("sha256:" + "\uff41" * 64, id="full width letters"),
    pytest.param("md5:" + "a" * 32, id="unknown algorithm"),
    pytest.param("sha384:" + "a" * 96, id="real but unsupported algorithm"),
    pytest.param("sha256+b64:" + "a" * 43, id="composed algorithm"),
    pytest.param("sha256:baddigeststring", id="not a digest"),
    pytest.param("sha256::" + _HEX, id="two colons"),
    pytest.param(f"sha256:{_HEX}:{_HEX}", id="a second digest"),
]


@pytest.mark.parametrize("raw", WRONG)
def test_what_is_not_a_digest_is_refused(raw: str) -> None:
    """Only the exact grammar of a supported algorithm becomes a value."""
    with pytest.raises(DigestInvalid):
        Digest.parse(raw)


@pytest.mark.parametrize("name", sorted(ALGORITHMS))
def test_a_digest_is_the_hash_of_its_content(name: str) -> None:
    """Parsed and computed digests are the same value."""
    expected = f"{name}:{hashlib.new(name, b'content').hexdigest()}"
    assert str(Digest.of(b"content", name)) == expected
    assert Digest.parse(expected) == Digest.of(b"content", name)


def test_an_unsupported_algorithm_is_called_by_its_name() -> None:
    """The message tells a well-formed foreign digest from a malformed one."""
    with pytest.raises(DigestInvalid, match="unsupported algorithm"):
        Digest.parse("blake3:" + _HEX)
    with pytest.raises(DigestInvalid, match="malformed"):
        Digest.parse("sha256:short")


@given(digests)
def test_text_and_value_are_the_same(digest: Digest) -> None:
    """``parse`` undoes ``str``."""
    assert Digest.parse(str(digest)) == digest


@given(st.text(max_size=200))
def test_any_text_parses_or_is_refused(raw: str) -> None:
    """Nothing but ``DigestInvalid`` leaves the parser, and what parses reads back unchanged."""
    try:
        assert str(Digest.parse(raw)) == raw
    except DigestInvalid as exc:
        assert exc.detail == {"digest": raw[:256]}  # noqa: PT017  # both outcomes are right; each has its own rule


@given(digests, st.lists(st.binary(max_size=64), max_size=8))
def test_a_running_hash_equals_the_hash_of_the_whole(digest: Digest, chunks: list[bytes]) -> None:
    """How the bytes are cut does not matter."""
    hasher = digest.hasher()
    for chunk in chunks:
        hasher.update(chunk)
    assert hasher.hexdigest() == Digest.of(b"".join(chunks), digest.algorithm).hex
