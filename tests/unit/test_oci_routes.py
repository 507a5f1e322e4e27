"""Routes: a URL means exactly one endpoint or is refused (rule A8)."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from moorage.registry.oci import (
    BlobUploadUnknown,
    Digest,
    DigestInvalid,
    NameInvalid,
    NotFound,
    OciError,
    PaginationInvalid,
    RepositoryName,
    Tag,
    TagInvalid,
    TooManyTags,
    Unsupported,
)
from moorage.registry.oci.routes import (
    MAX_PAGE,
    MAX_TAGS,
    Endpoint,
    GetBlob,
    GetManifest,
    ListTags,
    Ping,
    PutManifest,
    StartUpload,
    parse,
    url,
)

from tests.strategies import endpoints, names

_HEX = "a" * 64
_DIGEST = Digest("sha256", _HEX)
_NAME = RepositoryName("team/app")


@given(endpoints)
def test_a_url_reads_back_as_its_endpoint(endpoint: Endpoint) -> None:
    """``parse`` undoes ``url`` for every kind of endpoint."""
    assert parse(*url(endpoint)) == endpoint


@given(endpoints)
def test_a_url_is_printable_ascii(endpoint: Endpoint) -> None:
    """Nothing that was parsed can split a header or a request line (rule A21)."""
    method, path, query = url(endpoint)
    assert all("!" <= sign <= "~" for sign in method + path + query)


@given(st.sampled_from(["GET", "HEAD", "PUT", "POST", "PATCH", "DELETE", "OPTIONS", "_HELPER", ""]), st.data())
def test_any_url_parses_or_is_refused(method: str, data: st.DataObject) -> None:
    """Mutilated URLs give an ``OciError``, never another exception."""
    _, path, query = url(data.draw(endpoints))
    escapes = st.sampled_from(["%", "%ff", "%2f", "%00", "//", "/../", "\\", "?", "#", "&", "=%ff&", "+"])
    junk = st.text(max_size=6) | escapes
    cut, cut_query = data.draw(st.integers(0, len(path))), data.draw(st.integers(0, len(query)))
    path = path[:cut] + data.draw(junk) + path[cut:]
    query = query[:cut_query] + data.draw(junk) + query[cut_query:]
    try:
        endpoint = parse(method, path, query)
    except OciError:
        return
    assert parse(*url(endpoint)) == endpoint


@given(names)
def test_paths_are_read_from_the_right(name: RepositoryName) -> None:
    """A repository may be called like a piece of the API."""
    inner = RepositoryName.parse(f"{name}/blobs/uploads/tags/manifests"[-255:].strip("/.-_"))
    assert parse("GET", f"/v2/{inner}/manifests/latest") == GetManifest(inner, Tag("latest"))
    assert parse("GET", f"/v2/{inner}/tags/list") == ListTags(inner)
    assert parse("POST", f"/v2/{inner}/blobs/uploads/") == StartUpload(inner)


@pytest.mark.parametrize("path", ["/v2", "/v2/"])
def test_the_ping_needs_no_trailing_slash(path: str) -> None:
    """Docker-era clients leave the slash out."""
    assert parse("GET", path) == Ping()


@pytest.mark.parametrize("separator", [":", "%3A", "%3a"])
def test_an_escaped_colon_of_a_digest_is_understood(separator: str) -> None:
    """SDKs and proxies escape it."""
    reference = f"sha256{separator}{_HEX}"
    assert parse("GET", f"/v2/{_NAME}/blobs/{reference}") == GetBlob(_NAME, _DIGEST)
    assert parse("GET", f"/v2/{_NAME}/manifests/{reference}") == GetManifest(_NAME, _DIGEST)


@pytest.mark.parametrize(
    "query",
    [
        pytest.param(f"mount=sha256:{_HEX}&from=a/b", id="containerd: unescaped"),
        pytest.param(f"from=a%2Fb&mount=sha256%3A{_HEX}", id="docker: escaped"),
        pytest.param(f"mount=sha256%3A{_HEX}&from=a%2Fb&origin=r.example", id="crane: with origin"),
        pytest.param(f"mount=sha256:{_HEX}&from=a/b&ns=docker.io", id="containerd mirror: with ns"),
    ],
)
def test_mounts_of_every_client_mean_the_same(query: str) -> None:
    """Escaping, order and foreign parameters do not matter."""
    expected = StartUpload(_NAME, mount=_DIGEST, source=RepositoryName("a/b"))
    assert parse("POST", f"/v2/{_NAME}/blobs/uploads/", query) == expected


def test_several_tags_keep_their_order_once_each() -> None:
    """end-7b: ``?tag=`` may be repeated."""
    endpoint = parse("PUT", f"/v2/{_NAME}/manifests/{_DIGEST}", "tag=b&tag=a&tag=b")
    assert endpoint == PutManifest(_NAME, _DIGEST, (Tag("b"), Tag("a")))


@pytest.mark.parametrize("count", [MAX_TAGS - 1, MAX_TAGS, MAX_TAGS + 1])
def test_tags_of_one_request_are_limited(count: int) -> None:
    """Beyond the limit the answer is 414, as the specification has it."""
    query = "&".join(f"tag=t{number}" for number in range(count))
    if count > MAX_TAGS:
        with pytest.raises(TooManyTags) as caught:
            parse("PUT", f"/v2/{_NAME}/manifests/{_DIGEST}", query)
        assert caught.value.status == 414
    else:
        endpoint = parse("PUT", f"/v2/{_NAME}/manifests/{_DIGEST}", query)
        assert isinstance(endpoint, PutManifest)
        assert len(endpoint.tags) == count


@pytest.mark.parametrize(
    ("raw", "limit"),
    [("0", 0), ("1", 1), ("007", 7), ("999", 999), ("1000", 1000), ("1001", MAX_PAGE), ("9" * 19, MAX_PAGE)],
)
def test_page_sizes_are_clamped(raw: str, limit: int) -> None:
    """Rule A2: nobody allocates by ``n``."""
    assert parse("GET", f"/v2/{_NAME}/tags/list", f"n={raw}") == ListTags(_NAME, limit)


@pytest.mark.parametrize("raw", ["", "-1", "+1", "1.5", "1e3", "%20 1", "1_0", "0x10", "٣", "%D9%A3", "9" * 20, "ten"])
@pytest.mark.parametrize("path", ["/v2/_catalog", f"/v2/{_NAME}/tags/list", f"/v2/{_NAME}/referrers/{_DIGEST}"])
def test_a_page_size_that_is_no_number_is_refused(path: str, raw: str) -> None:
    """Rule A2: ``int()`` alone would take several of these."""
    with pytest.raises(PaginationInvalid):
        parse("GET", path, f"n={raw}")


@pytest.mark.parametrize(
    ("method", "path", "query", "error"),
    [
        pytest.param("GET", f"/v2/{_NAME}/manifests/sha256:bad", "", DigestInvalid, id="bad digest reference"),
        pytest.param("GET", f"/v2/{_NAME}/manifests/", "", TagInvalid, id="no reference"),
        pytest.param("GET", f"/v2/{_NAME}/manifests/.x", "", TagInvalid, id="bad tag"),
        pytest.param("GET", "/v2/Team/manifests/x", "", NameInvalid, id="upper case name"),
        pytest.param("GET", "/v2/manifests/x", "", NameInvalid, id="no name at all"),
        pytest.param("GET", f"/v2/{_NAME}/blobs/latest", "", DigestInvalid, id="blob by tag"),
        pytest.param("GET", f"/v2/{_NAME}/blobs/uploads/", "", Unsupported, id="listing uploads"),
        pytest.param("GET", f"/v2/{_NAME}/blobs/uploads/a.b", "", BlobUploadUnknown, id="impossible upload id"),
        pytest.param("GET", f"/v2/{_NAME}/blobs/uploads/..", "", BlobUploadUnknown, id="parent as upload id"),
        pytest.param("PUT", f"/v2/{_NAME}/blobs/uploads/x", "", DigestInvalid, id="closing without digest"),
        pytest.param("PUT", f"/v2/{_NAME}/blobs/uploads/x", "digest=", DigestInvalid, id="closing with empty digest"),
        pytest.param("PUT", f"/v2/{_NAME}/blobs/uploads/x", "digest=x", DigestInvalid, id="closing with bad digest"),
        pytest.param("POST", f"/v2/{_NAME}/blobs/uploads/", "digest=x", DigestInvalid, id="opening with bad digest"),
        pytest.param("POST", f"/v2/{_NAME}/blobs/uploads/", "mount=x", DigestInvalid, id="mount of a bad digest"),
        pytest.param(
            "POST", f"/v2/{_NAME}/blobs/uploads/", f"mount={_DIGEST}&from=../x", NameInvalid, id="mount from a bad name"
        ),
        pytest.param(
            "POST", f"/v2/{_NAME}/blobs/uploads/", "digest-algorithm=md5", DigestInvalid, id="foreign algorithm"
        ),
        pytest.param("PUT", f"/v2/{_NAME}/manifests/x", "tag=a/b", TagInvalid, id="bad tag parameter"),
        pytest.param("GET", f"/v2/{_NAME}/tags/list", "last=a/b", TagInvalid, id="last that is no tag"),
        pytest.param("GET", "/v2/_catalog", "last=A", NameInvalid, id="last that is no name"),
        pytest.param("GET", f"/v2/{_NAME}/referrers/x", "", DigestInvalid, id="referrers of no digest"),
        pytest.param("GET", f"/v2/{_NAME}/referrers/{_DIGEST}", "last=x", DigestInvalid, id="last that is no digest"),
        pytest.param("GET", "/v3/", "", NotFound, id="another version"),
        pytest.param("GET", "/v2x/", "", NotFound, id="v2 as a prefix"),
        pytest.param("GET", "/x/v2/", "", NotFound, id="v2 below something"),
        pytest.param("GET", "http://evil.example/v2/", "", NotFound, id="absolute form"),
        pytest.param("GET", "", "", NotFound, id="empty path"),
        pytest.param("GET", f"/v2/{_NAME}/unknown/x", "", NotFound, id="unknown kind"),
    ],
)
def test_a_url_that_is_wrong_says_how(method: str, path: str, query: str, error: type[OciError]) -> None:
    """Each wrong part has its own code."""
    with pytest.raises(error):
        parse(method, path, query)


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        pytest.param("/v2/", ["GET", "HEAD"], id="ping"),
        pytest.param("/v2/_catalog", ["GET"], id="catalog"),
        pytest.param(f"/v2/{_NAME}/manifests/x", ["GET", "HEAD", "PUT", "DELETE"], id="manifest"),
        pytest.param(f"/v2/{_NAME}/blobs/{_DIGEST}", ["GET", "HEAD", "DELETE"], id="blob"),
        pytest.param(f"/v2/{_NAME}/blobs/uploads/", ["POST"], id="uploads"),
        pytest.param(f"/v2/{_NAME}/blobs/uploads/abc", ["GET", "PATCH", "PUT", "DELETE"], id="upload"),
        pytest.param(f"/v2/{_NAME}/tags/list", ["GET"], id="tags"),
        pytest.param(f"/v2/{_NAME}/referrers/{_DIGEST}", ["GET"], id="referrers"),
    ],
)
@pytest.mark.parametrize("method", ["OPTIONS", "TRACE", "_HELPER", "get", "__CLASS__", ""])
def test_a_method_that_does_not_exist_names_those_that_do(path: str, allowed: list[str], method: str) -> None:
    """Rule A9: methods are spelled out, never looked up by attribute."""
    with pytest.raises(Unsupported) as caught:
        parse(method, path)
    assert caught.value.detail == {"allow": allowed}


_TRAVERSALS = [
    "..", ".", "...", "%2e%2e", "%2E%2E", ".%2e", "%252e%252e", "..%2f", "..%5c", "..\\", "%00", "a%00", "\0",
    "%2F", "%2f", "%5C", "\\", "", "a%20b", "~", "..;", "%c0%ae%c0%ae", "%uff0e", "\uff0e\uff0e", "a\u2215b",
]  # fmt: skip
_PLACES = [
    "/v2/{}/manifests/latest",
    "/v2/team/{}/manifests/latest",
    "/v2/{}/team/manifests/latest",
    "/v2/team/app/manifests/{}",
    "/v2/team/app/blobs/{}",
    "/v2/team/app/blobs/sha256:{}",
    "/v2/team/app/blobs/uploads/{}/x",
    "/v2/team/app/referrers/{}",
    "/v2/{}/tags/list",
]
HOSTILE_PATHS = [place.format(bad) for place, bad in itertools.product(_PLACES, _TRAVERSALS)]


def test_the_corpus_is_as_large_as_the_rule_says() -> None:
    """Rule A8: 200 paths."""
    assert len(set(HOSTILE_PATHS)) >= 200


@pytest.mark.parametrize("path", HOSTILE_PATHS)
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_no_hostile_path_reaches_an_endpoint(method: str, path: str) -> None:
    """Rule A8: escapes, parents, backslashes, NULs and empty components are refused with a 4xx."""
    with pytest.raises(OciError) as caught:
        parse(method, path, f"digest={_DIGEST}")
    assert caught.value.status in {400, 404, 405}


@pytest.mark.parametrize(
    "query", ["%", "%zz", "last=%ff", "n=%ff", "tag=%c3", "\xff=1", "=", "&&&", ";", "n=1;n=2", "a" * 8000]
)
def test_no_hostile_query_breaks_the_parser(query: str) -> None:
    """Undecodable text is refused or ignored, never an exception of another kind."""
    try:
        parse("GET", f"/v2/{_NAME}/tags/list", query)
    except OciError as exc:
        assert exc.status == 400  # noqa: PT017  # either outcome is right; what matters is that nothing else escapes
