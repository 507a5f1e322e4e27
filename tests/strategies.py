"""Hypothesis strategies for the values of ``moorage.registry.oci``.

Law: what a strategy draws is valid by the grammar of the specification, built independently of the parser under test.
"""

from __future__ import annotations

import string

from hypothesis import strategies as st
from moorage.registry.oci import MAX_NAME, Digest, Reference, RepositoryName, Tag
from moorage.registry.oci import routes as r

__all__ = ["digests", "endpoints", "json_values", "names", "references", "tags"]

_ALNUM = string.ascii_lowercase + string.digits
_words = st.text(_ALNUM, min_size=1, max_size=8)
_separators = st.sampled_from([".", "_", "__", "-", "--", "---"])


@st.composite
def _components(draw: st.DrawFn) -> str:
    text = draw(_words)
    for separator, word in draw(st.lists(st.tuples(_separators, _words), max_size=3)):
        text += separator + word
    return text


names = (
    st.lists(_components() | st.sampled_from(["blobs", "manifests", "tags", "uploads", "list"]), min_size=1, max_size=6)
    .map("/".join)
    .filter(lambda text: len(text) <= MAX_NAME)
    .map(RepositoryName)
)
tags = st.builds(
    lambda first, rest: Tag(first + rest),
    st.sampled_from(string.ascii_letters + string.digits + "_"),
    st.text(string.ascii_letters + string.digits + "._-", max_size=127),
)
digests = st.builds(Digest.of, st.binary(max_size=8), st.sampled_from(["sha256", "sha512"]))
_either = tags | digests
_uploads = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=64)
_limits = st.none() | st.integers(0, r.MAX_PAGE)
_types = st.none() | st.text(string.ascii_letters + string.digits + "/+.-&=% ü", min_size=1, max_size=40)


@st.composite
def _starts(draw: st.DrawFn) -> r.StartUpload:
    mount = draw(st.none() | digests)
    source = draw(st.none() | names) if mount else None
    algorithm = draw(st.sampled_from([None, "sha256", "sha512"]))
    return r.StartUpload(draw(names), draw(st.none() | digests), mount, source, algorithm)


endpoints: st.SearchStrategy[r.Endpoint] = st.one_of(
    st.just(r.Ping()),
    st.builds(r.ListRepositories, _limits, st.none() | names),
    *(st.builds(kind, names, digests) for kind in (r.GetBlob, r.HeadBlob, r.DeleteBlob)),
    *(st.builds(kind, names, _either) for kind in (r.GetManifest, r.HeadManifest, r.DeleteManifest)),
    st.builds(r.PutManifest, names, _either, st.lists(tags, unique=True, max_size=r.MAX_TAGS).map(tuple)),
    _starts(),
    *(st.builds(kind, names, _uploads) for kind in (r.GetUpload, r.AppendUpload, r.CancelUpload)),
    st.builds(r.FinishUpload, names, _uploads, digests),
    st.builds(r.ListTags, names, _limits, st.just("") | tags.map(str)),
    st.builds(r.ListReferrers, names, digests, _types, _limits, st.just("") | digests.map(str)),
)

references = st.builds(
    Reference,
    st.sampled_from(["localhost:5000", "registry.example", "10.0.0.1:80", "[::1]:5000", "registry-1.docker.io"]),
    names.filter(lambda name: "/" in name.value),
    tags,
    st.none() | digests,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
