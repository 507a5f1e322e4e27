"""What the tests of the gate share: an image to fill repositories with, every endpoint about it, and its challenges."""

from __future__ import annotations

import httpx
from moorage.auth.challenge import Challenge, parse_challenges
from moorage.registry.oci import Registry, RepositoryName

from tests.content import image, push

__all__ = ["IMAGE", "LAYER", "MINE", "challenge_of", "fill", "requests_of", "spoken"]

IMAGE = image("a locked image")
LAYER = IMAGE.blobs[-1].digest


def challenge_of(answer: httpx.Response) -> Challenge:
    """The one challenge of a 401."""
    assert answer.status_code == 401, answer.text
    (line,) = answer.headers.get_list("www-authenticate")
    (challenge,) = parse_challenges([line])
    return challenge


async def fill(local: Registry, *names: str) -> None:
    """Puts the image into repositories."""
    for name in names:
        await push(local, RepositoryName(name), IMAGE, "latest")


def requests_of(name: str) -> list[tuple[str, str, str]]:
    """Every endpoint, about content that ``fill`` makes; and the scope that it needs."""
    base, upload, pull = f"/v2/{name}", "x" * 80, f"repository:{name}:pull"
    return [
        ("GET", f"{base}/manifests/latest", pull),
        ("HEAD", f"{base}/manifests/{IMAGE.digest}", pull),
        ("GET", f"{base}/blobs/{LAYER}", pull),
        ("HEAD", f"{base}/blobs/{LAYER}", f"{pull},push"),
        ("GET", f"{base}/tags/list", pull),
        ("GET", f"{base}/referrers/{IMAGE.digest}", pull),
        ("PUT", f"{base}/manifests/latest", f"{pull},push"),
        ("POST", f"{base}/blobs/uploads/", f"{pull},push"),
        ("POST", f"{base}/blobs/uploads/?digest={LAYER}", f"{pull},push"),
        ("POST", f"{base}/blobs/uploads/?mount={LAYER}&from=a/b", f"repository:a/b:pull {pull},push"),
        ("GET", f"{base}/blobs/uploads/{upload}", f"{pull},push"),
        ("PATCH", f"{base}/blobs/uploads/{upload}", f"{pull},push"),
        ("PUT", f"{base}/blobs/uploads/{upload}?digest={LAYER}", f"{pull},push"),
        ("DELETE", f"{base}/blobs/uploads/{upload}", f"{pull},push"),
        ("DELETE", f"{base}/manifests/latest", f"repository:{name}:delete"),
        ("DELETE", f"{base}/manifests/{IMAGE.digest}", f"repository:{name}:delete"),
        ("DELETE", f"{base}/blobs/{LAYER}", f"repository:{name}:delete"),
    ]


def spoken(requests: list[tuple[str, str, str]]) -> list[str]:
    return [f"{method} {path.removeprefix('/v2/')[:40]}" for method, path, _ in requests]


MINE = requests_of("mine/boat")
