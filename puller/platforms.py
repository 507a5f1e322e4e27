"""Which image of an index runs here.

Rule: containerd's ordered vector. A platform stands for itself and for the older ones its machine runs, best first; of
several entries of one platform the first in the index wins. Entries of an unknown platform are not images to run
(attestations are filed so) and are skipped.
"""

from __future__ import annotations

import platform as machine
import sys
from collections.abc import Iterator, Sequence

from moorage.puller.errors import NoMatchingPlatform
from moorage.registry.oci import Descriptor, Platform

__all__ = ["acceptable", "choose", "host_platform", "normalise", "parse_platform"]

_ARCHITECTURES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "armv8l": ("arm", "v8"),
}
_SYSTEMS = {"macos": "darwin"}
_DEFAULT_VARIANTS = {"arm": "v7"}
_IMPLIED_VARIANTS = {("arm64", "v8"), ("amd64", "v1")}


def parse_platform(raw: str) -> Platform:
    """The platform written as ``os/architecture`` or ``os/architecture/variant``.

    Raises:
        ValueError: it is written otherwise.
    """
    parts = raw.lower().split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise ValueError(f"not a platform: {raw!r} (write os/architecture or os/architecture/variant)")
    return normalise(Platform(parts[0], parts[1], "".join(parts[2:])))


def host_platform() -> Platform:
    """The platform whose images run on this machine. Containers are Linux, also where the host is a Mac."""
    system = "windows" if sys.platform == "win32" else "linux"
    return normalise(Platform(system, machine.machine().lower()))


def normalise(platform: Platform) -> Platform:
    """The same platform by its common name: ``aarch64`` and ``arm64/v8`` are ``arm64``, ``arm`` is ``arm/v7``."""
    architecture, implied = _ARCHITECTURES.get(platform.architecture, (platform.architecture, ""))
    variant = platform.variant or implied or _DEFAULT_VARIANTS.get(architecture, "")
    if variant.isdigit():
        variant = f"v{variant}"
    if (architecture, variant) in _IMPLIED_VARIANTS:
        variant = ""
    system = _SYSTEMS.get(platform.os, platform.os)
    return Platform(system, architecture, variant, platform.os_version, platform.os_features)


def acceptable(platform: Platform) -> Iterator[Platform]:
    """The platforms that run on ``platform``, best first."""
    wanted = normalise(platform)
    for architecture, variant in _vector(wanted.architecture, wanted.variant):
        yield Platform(wanted.os, architecture, variant)


def choose(entries: Sequence[Descriptor], platform: Platform) -> Descriptor:
    """The entry of an index to use on ``platform``.

    Raises:
        NoMatchingPlatform: there is none; the message lists what there is.
    """
    known = [(normalise(entry.platform), entry) for entry in entries if entry.platform and _is_known(entry.platform)]
    for candidate in acceptable(platform):
        for offered, entry in known:
            if str(offered) == str(candidate):
                return entry
    offers = ", ".join(dict.fromkeys(str(offered) for offered, _ in known)) or "none"
    raise NoMatchingPlatform(f"no image for {platform} (the index has: {offers})")


def _is_known(platform: Platform) -> bool:
    return "unknown" not in (platform.os, platform.architecture) and bool(platform.os and platform.architecture)


def _vector(architecture: str, variant: str) -> Iterator[tuple[str, str]]:
    yield architecture, variant
    number = variant.removeprefix("v")
    if architecture == "amd64":
        older = range(int(number) - 1, 1, -1) if number.isdigit() else range(0)
        yield from (("amd64", f"v{level}") for level in older)
        yield from [("amd64", "")] if number.isdigit() else []
        yield "386", ""
    elif architecture == "arm64":
        yield from _older_arm64(number)
        yield from (("arm", f"v{level}") for level in (8, 7, 6, 5))
    elif architecture == "arm" and number.isdigit():
        yield from (("arm", f"v{level}") for level in range(int(number) - 1, 4, -1))


def _older_arm64(number: str) -> Iterator[tuple[str, str]]:
    """From Armv8.n and Armv9.n down to plain arm64; Armv9.n runs what Armv8.(n+5) does."""
    major, _, minor = number.partition(".")
    if not major.isdigit() or not (minor or "0").isdigit():
        return
    steps = int(minor or 0)
    if int(major) == 9:
        yield from (("arm64", f"v9.{level}" if level else "v9") for level in range(steps - 1, -1, -1))
        steps += 6
    yield from (("arm64", f"v8.{level}") for level in range(steps - 1, 0, -1))
    yield "arm64", ""
