"""The certificates that go along with tokens: the key's own, then those above it, never the root."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import trustme
from cryptography import x509
from moorage.auth.certificates import Certificates
from moorage.auth.trust import is_usable, thumbprint


def _kid(pem: bytes) -> str:
    public = x509.load_pem_x509_certificate(pem).public_key()
    assert is_usable(public)
    return thumbprint(public)


def _subjects(chain: list[str]) -> list[x509.Name]:
    return [x509.load_der_x509_certificate(base64.b64decode(one)).subject for one in chain]


def _parse(tmp_path: Path, *pems: bytes) -> Certificates:
    (tmp_path / "bundle.pem").write_bytes(b"".join(pems))
    path = str(tmp_path / "bundle.pem")
    return Certificates.parse(path, (tmp_path / "bundle.pem").read_bytes(), os.stat(path))


def test_a_chain(tmp_path: Path) -> None:
    """Leaf first, in whatever order the bundle has them; a certificate of somebody else stays at home."""
    root, stranger = trustme.CA(), trustme.CA()
    middle = root.create_child_ca()
    leaf = middle.issue_cert("tokens", key_type=trustme.KeyType.ECDSA)
    first = leaf.cert_chain_pems[0].bytes()
    pems = (root.cert_pem.bytes(), stranger.cert_pem.bytes(), middle.cert_pem.bytes(), first)
    chain = _parse(tmp_path, *pems).chain_of(_kid(first))
    wanted = [x509.load_pem_x509_certificate(pem).subject for pem in (first, middle.cert_pem.bytes())]
    assert _subjects(chain) == wanted
    assert _parse(tmp_path, *pems).chain_of("another key") == []


def test_a_long_chain_is_cut(tmp_path: Path) -> None:
    """Three at most: a token has 8 KiB for everything."""
    above = [trustme.CA()]
    for _ in range(5):
        above.append(above[-1].create_child_ca())
    leaf = above[-1].issue_cert("tokens", key_type=trustme.KeyType.ECDSA).cert_chain_pems[0].bytes()
    assert len(_parse(tmp_path, leaf, *(ca.cert_pem.bytes() for ca in above)).chain_of(_kid(leaf))) == 3
