"""Which image of an index runs here: containerd's ordered vector, first match wins."""

from __future__ import annotations

import pytest
from moorage.puller.errors import NoMatchingPlatform
from moorage.puller.platforms import acceptable, choose, host_platform, normalise, parse_platform
from moorage.registry.oci import Descriptor, Digest, Platform
from moorage.registry.oci.media_types import OCI_IMAGE


def _entry(platform: str | None, number: int = 0) -> Descriptor:
    os, architecture, variant = (platform or "").split("/") + [""] * (2 - (platform or "").count("/"))
    parsed = Platform(os, architecture, variant) if platform else None
    return Descriptor(OCI_IMAGE, Digest.of(f"{platform} {number}".encode()), 1, platform=parsed)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("linux/amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v3", "linux/amd64/v3"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("Linux/ARM64", "linux/arm64"),
        ("macos/arm64", "darwin/arm64"),
        ("linux/riscv64", "linux/riscv64"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_platforms_have_one_name(raw: str, expected: str) -> None:
    """Whatever people call them."""
    assert str(parse_platform(raw)) == expected


@pytest.mark.parametrize(
    "raw",
    ["", "linux", "linux/", "/amd64", "a/b/c/d", "linux//v7", "//", "linux(1/amd64", "linux()x/amd64", "(1)/amd64"],
)
def test_other_writings_are_refused(raw: str) -> None:
    """Rather than guessed at."""
    with pytest.raises(ValueError, match="not a platform"):
        parse_platform(raw)


@pytest.mark.parametrize(
    ("wanted", "vector"),
    [
        ("linux/amd64", "amd64 386"),
        ("linux/amd64/v3", "amd64/v3 amd64/v2 amd64 386"),
        ("linux/arm64", "arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm64/v8.2", "arm64/v8.2 arm64/v8.1 arm64 arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm64/v9", "arm64/v9 arm64/v8.5 arm64/v8.4 arm64/v8.3 arm64/v8.2 arm64/v8.1 arm64"
                           " arm/v8 arm/v7 arm/v6 arm/v5"),
        ("linux/arm", "arm/v7 arm/v6 arm/v5"),
        ("linux/arm/v6", "arm/v6 arm/v5"),
        ("linux/s390x", "s390x"),
        ("windows/amd64", "amd64 386"),
    ],
)  # fmt: skip
def test_a_machine_runs_what_older_ones_ran(wanted: str, vector: str) -> None:
    """Best first."""
    system = wanted.partition("/")[0]
    expected = [f"{system}/{entry}" for entry in vector.split()]
    assert [str(platform) for platform in acceptable(parse_platform(wanted))] == expected


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        pytest.param("linux/amd64", ["linux/arm64", "linux/amd64"], 1, id="exact"),
        pytest.param("linux/amd64", ["linux/amd64", "linux/amd64"], 0, id="the first of two"),
        pytest.param("linux/amd64", ["linux/386", "linux/amd64"], 1, id="better before first"),
        pytest.param("linux/amd64", ["linux/386"], 0, id="an older one where there is no better"),
        pytest.param("linux/arm64", ["linux/arm64/v8"], 0, id="implied variant"),
        pytest.param("linux/arm/v7", ["linux/arm/v6", "linux/arm/v5"], 0, id="next variant down"),
        pytest.param("linux/arm/v7", ["linux/arm"], 0, id="arm means v7"),
        pytest.param("linux/amd64", ["unknown/unknown", "linux/amd64"], 1, id="attestations are skipped"),
        pytest.param("linux/amd64", [None, "linux/amd64"], 1, id="entries without platform are skipped"),
        pytest.param("linux/amd64/v2", ["linux/amd64/v3", "linux/amd64/v1"], 1, id="never a newer one"),
    ],
)
def test_the_best_entry_is_chosen(wanted: str, offered: list[str | None], expected: int) -> None:
    """By the vector, then by the order of the index."""
    entries = [_entry(platform, number) for number, platform in enumerate(offered)]
    assert choose(entries, parse_platform(wanted)) is entries[expected]


@pytest.mark.parametrize(
    ("wanted", "offered", "expected"),
    [
        pytest.param("linux/amd64", ["linux(+erofs)/amd64", "linux/amd64"], 1, id="a feature that is not there"),
        pytest.param("linux(+erofs)/amd64", ["linux/amd64", "linux(+erofs)/amd64"], 1, id="more features first"),
        pytest.param("linux(+a+b)/amd64", ["linux(+a)/amd64", "linux(+b)/amd64"], 0, id="of equals the first"),
        pytest.param("linux(+erofs)/amd64", ["linux/amd64"], 0, id="a feature too many"),
        pytest.param("linux(+erofs)/amd64", ["linux(+erofs)/386", "linux/amd64"], 1, id="architecture before features"),
        pytest.param("linux(5.1)/amd64", ["linux(6.1)/amd64"], 0, id="versions count on Windows only"),
        pytest.param(
            "windows(10.0.20348.1)/amd64", ["windows(10.0.17763.5458)/amd64", "windows(10.0.20348.2322)/amd64"], 1,
            id="the build of Windows",
        ),
        pytest.param("windows(10.0.20348)/amd64", ["windows/amd64"], 0, id="any build"),
        pytest.param("windows/amd64", ["windows(10.0.17763.1)/amd64", "windows(10.0.20348.1)/amd64"], 0, id="no wish"),
    ],
)  # fmt: skip
def test_versions_and_features_decide(wanted: str, offered: list[str], expected: int) -> None:
    """As containerd has it."""
    entries = [
        Descriptor(OCI_IMAGE, Digest.of(f"{number}".encode()), 1, platform=parse_platform(text))
        for number, text in enumerate(offered)
    ]
    assert choose(entries, parse_platform(wanted)) is entries[expected]


def test_a_build_of_windows_that_is_not_there() -> None:
    """Is named, with those that are."""
    entry = Descriptor(OCI_IMAGE, Digest.of(b""), 1, platform=parse_platform("windows(10.0.17763.1)/amd64"))
    with pytest.raises(NoMatchingPlatform, match=r"windows\(10\.0\.20348\)/amd64 .*windows\(10\.0\.17763\.1\)/amd64"):
        choose([entry], parse_platform("windows(10.0.20348)/amd64"))


@pytest.mark.parametrize(
    "offered", [[], ["unknown/unknown"], [None], ["linux/arm64", "windows/amd64"], ["linux/amd64/v2"]]
)
def test_without_a_match_there_is_no_choice(offered: list[str | None]) -> None:
    """The message says what there is."""
    with pytest.raises(NoMatchingPlatform, match="the index has: ") as caught:
        choose([_entry(platform) for platform in offered], Platform("linux", "amd64"))
    assert "unknown/unknown" not in str(caught.value)


def test_this_machine_has_a_platform() -> None:
    """A normal one, of Linux."""
    assert host_platform().os in ("linux", "windows")
    assert normalise(host_platform()) == host_platform()
    assert next(acceptable(host_platform())) == host_platform()
