"""A user namespace in which this process is root over the ids that /etc/subuid and /etc/subgid lend to its user.

Law: nothing is gained outside: files belong to the lent ids there. It is entered before the process has a second
thread, which the kernel demands, by unshare(2) here and newuidmap(1) and newgidmap(1) in a child that stayed outside.
"""

from __future__ import annotations

import ctypes
import errno
import os
import pwd
import shutil
import subprocess
import sys
from collections.abc import Iterator

from moorage.puller.errors import ImageError
from moorage.registry.oci.values import dataclass

__all__ = ["NoNamespace", "enter_namespace"]

_CLONE_NEWUSER = 0x10000000
_SUBIDS = {"newuidmap": "/etc/subuid", "newgidmap": "/etc/subgid"}


class NoNamespace(ImageError):
    """This user has no user namespace with lent ids here; ``str`` says what is missing."""


@dataclass(frozen=True, slots=True)
class _Range:
    """Ids of the namespace from ``inside``, which are those from ``outside`` on the machine."""

    inside: int
    outside: int
    count: int


def enter_namespace() -> None:
    """Makes this process root in a user namespace of its own; for good. Does nothing for root.

    Raises:
        NoNamespace: something is missing, the kernel refuses, or the process has threads; nothing has changed.
        ImageError: the ids were refused; the process must end, because it is nobody now.
    """
    if os.geteuid() == 0:
        return
    maps = {tool: _find_ranges(tool) for tool in _SUBIDS}
    ready, told = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(told)
        _map_parent(ready, maps)
    os.close(ready)
    try:
        _unshare()
        os.write(told, b"1")
    finally:
        os.close(told)
        _, status = os.waitpid(child, 0)
    if os.waitstatus_to_exitcode(status) != 0:
        raise ImageError("newuidmap or newgidmap refused to lend the ids of /etc/subuid and /etc/subgid")


def _find_ranges(tool: str) -> list[_Range]:
    """Our own id as 0, and the lent ones from 1 on."""
    if not sys.platform.startswith("linux"):
        raise NoNamespace("user namespaces are Linux's")
    if shutil.which(tool) is None:
        raise NoNamespace(f"{tool} is not installed (Debian: apt install uidmap)")
    own = os.geteuid() if tool == "newuidmap" else os.getegid()
    ranges = [_Range(0, own, 1)]
    for start, count in _read_lent(_SUBIDS[tool]):
        ranges.append(_Range(ranges[-1].inside + ranges[-1].count, start, count))
    if len(ranges) == 1:
        raise NoNamespace(f"{_SUBIDS[tool]} lends you no ids (usermod --add-subuids --add-subgids)")
    return ranges


def _read_lent(path: str) -> Iterator[tuple[int, int]]:
    names = {str(os.geteuid()), *_user_names()}
    try:
        with open(path, encoding="utf-8") as file:
            for line in file:
                name, start, count = (*line.strip().split(":"), "", "", "")[:3]
                if name in names and start.isdecimal() and count.isdecimal():
                    yield int(start), int(count)
    except FileNotFoundError:
        return


def _user_names() -> tuple[str, ...]:
    try:
        return (pwd.getpwuid(os.geteuid()).pw_name,)
    except KeyError:
        return ()


def _unshare() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWUSER) != 0:
        number = ctypes.get_errno()
        hint = "the process has threads" if number == errno.EINVAL else os.strerror(number)
        raise NoNamespace(f"no user namespace: {hint}")


def _map_parent(ready: int, maps: dict[str, list[_Range]]) -> None:
    """In the child, outside of the namespace: maps the parent once it is in one, and ends."""
    code = 1
    try:
        if os.read(ready, 1):
            for tool, ranges in maps.items():
                numbers = [str(n) for r in ranges for n in (r.inside, r.outside, r.count)]
                subprocess.run([tool, str(os.getppid()), *numbers], check=True, stdin=subprocess.DEVNULL)  # noqa: S603
        code = 0
    finally:
        os._exit(code)
