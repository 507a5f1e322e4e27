"""Which image of an index runs here.

Rule: containerd's ordered vector. A platform stands for itself and for the older ones its machine runs, best first. Of
several entries of one platform those that need a feature of the system that is not there, or another build of Windows,
are out; then the most features win, and among equals the first in the index. Entries of an unknown platform are not
images to run (attestations are filed so) and are skipped.
"""

from __future__ import annotations

import platform as machine
import re
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
_WRITTEN = re.compile(
    r"(?P<os>[^/()+]+)(?:\((?P<details>[^/()]*)\))?/(?P<architecture>[^/()+]+)(?:/(?P<variant>[^/()+]+))?"
)
_BUILD = 3
"""Parts of a version of Windows that name its build: 10.0.17763 of 10.0.17763.5458."""

_SYSTEMS = {"macos": "darwin"}
_DEFAULT_VARIANTS = {"arm": "v7"}
_IMPLIED_VARIANTS = {("arm64", "v8"), ("amd64", "v1")}


def parse_platform(raw: str) -> Platform:
    """The platform written as ``os/architecture`` or ``os/architecture/variant``.

    After the system may stand, as containerd writes it, its version and features: ``windows(10.0.17763)/amd64``,
    ``linux(+erofs)/amd64``.

    Raises:
        ValueError: it is written otherwise.
    """
    match = _WRITTEN.fullmatch(raw.lower())
    if match is None:
        raise ValueError(f"not a platform: {raw!r} (write os/architecture or os/architecture/variant)")
    version, *features = (match["details"] or "").split("+")
    return normalise(Platform(match["os"], match["architecture"], match["variant"] or "", version, tuple(features)))


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
        fitting = [one for one in known if str(one[0]) == str(candidate) and _runs_on(one[0], platform)]
        if fitting:
            return max(fitting, key=lambda one: len(one[0].os_features))[1]  # of equals the first
    offers = ", ".join(dict.fromkeys(_described(offered) for offered, _ in known)) or "none"
    raise NoMatchingPlatform(f"no image for {_described(platform)} (the index has: {offers})")


def _runs_on(offered: Platform, wanted: Platform) -> bool:
    """Whether the system has every feature that is needed and, where both name one, the build of Windows."""
    if not set(offered.os_features) <= set(wanted.os_features):
        return False
    builds = [platform.os_version.split(".")[:_BUILD] for platform in (offered, wanted) if platform.os_version]
    return offered.os != "windows" or len(builds) < 2 or builds[0] == builds[1]


def _described(platform: Platform) -> str:
    details = "+".join([platform.os_version, *platform.os_features])
    system, slash, rest = str(platform).partition("/")
    return f"{system}({details}){slash}{rest}" if details else str(platform)


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
