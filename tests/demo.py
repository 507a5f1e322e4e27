"""The demonstration behind ``make demo``: real files go into a registry and come back, and every one is compared.

Law: it runs the program that users run, shows each command so that it can be typed again, touches nothing but a
temporary directory and a loopback port, and exits 0 only if not one file differs.
"""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from tests.servers import MoorageProcess

__all__ = ["Tree", "compare", "main"]

_MOORAGE = str(Path(sys.executable).with_name("moorage"))
_SHOWN_DIFFERENCES = 10
_LEFT_OUT = shutil.ignore_patterns("site-packages", "dist-packages", "__pycache__")


class DemoFailed(Exception):
    """A command failed, or what came back is not what went in."""


@dataclass(frozen=True)
class Tree:
    """A directory as far as it can be compared: by name what each file is, and which names are one file."""

    root: Path
    entries: dict[str, tuple[str, *tuple[object, ...]]]
    twins: frozenset[frozenset[str]]
    size: int

    @classmethod
    def read(cls, root: Path) -> Tree:
        """Everything below ``root``."""
        entries: dict[str, tuple[str, *tuple[object, ...]]] = {}
        names: dict[int, set[str]] = defaultdict(set)
        size = 0
        for path in _walk(root):
            info, name = path.lstat(), str(path.relative_to(root))
            is_file = stat.S_ISREG(info.st_mode)
            content: object = os.readlink(path) if path.is_symlink() else info.st_size if is_file else None
            entries[name] = (stat.filemode(info.st_mode), info.st_mtime_ns, info.st_uid, info.st_gid, content)
            if is_file:
                size += info.st_size
                names[info.st_ino].add(name)
        twins = frozenset(frozenset(group) for group in names.values() if len(group) > 1)
        return cls(root, entries, twins, size)


def compare(one: Tree, two: Tree) -> Iterator[str]:
    """Every difference: names, kinds, modes, times, owners, link targets, hard links, and each byte of each file."""
    for name in sorted(one.entries.keys() ^ two.entries.keys()):
        yield f"{name}: only in {(one if name in one.entries else two).root}"
    for name in sorted(one.entries.keys() & two.entries.keys()):
        if one.entries[name] != two.entries[name]:
            yield f"{name}: {one.entries[name]} became {two.entries[name]}"
        elif one.entries[name][0][0] == "-" and (one.root / name).read_bytes() != (two.root / name).read_bytes():
            yield f"{name}: other content"
    for group in one.twins ^ two.twins:
        yield f"{', '.join(sorted(group))}: one file on one side only"


def _walk(root: Path) -> Iterator[Path]:
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder, name)


def _prepare(target: Path) -> None:
    """The libraries of this Python, and a few files that careless tools lose."""
    library = target / "standard library"
    shutil.copytree(sysconfig.get_path("stdlib"), library, symlinks=True, ignore=_LEFT_OUT)
    shutil.copytree(sysconfig.get_path("purelib"), target / "site-packages", symlinks=True, ignore=_LEFT_OUT)
    special = target / "special"
    special.mkdir()
    (special / "empty directory").mkdir(mode=0o1777)
    (special / "Ναύτης ⚓").write_text("a name that is not ASCII\n")
    (special / "setuid").write_text("#!/bin/sh\n")
    (special / "setuid").chmod(0o4755)
    (special / "secret").write_text("for its owner only\n")
    (special / "secret").chmod(0o400)
    (special / "hard link").hardlink_to(library / "os.py")
    (special / "symbolic link").symlink_to("../standard library/os.py")
    (special / "dangling").symlink_to("/nowhere/at/all")
    (special / ("long name " * 20).strip()).write_text("longer than the archive format's 100 bytes\n")
    os.utime(special / "setuid", ns=(0, 1))


class Stage:
    """Shows what happens, and runs the commands."""

    def __init__(self) -> None:
        self.console = Console(highlight=False, soft_wrap=True)
        self.took: dict[str, float] = {}

    def say(self, text: str) -> None:
        """A sentence about what comes next."""
        self.console.print(f"\n[bold]{text}[/bold]")

    def show_command(self, *words: str) -> None:
        """A command as one would type it."""
        self.console.print(Text("  $ moorage " + " ".join(words), style="cyan"))

    def run(self, step: str, *words: str) -> str:
        """Runs ``moorage`` with ``words``, shows what it says, returns its stdout."""
        self.show_command(*words)
        started = time.monotonic()
        done = subprocess.run([_MOORAGE, *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=600)
        self.took[step] = time.monotonic() - started
        for line in (*done.stderr.splitlines(), *done.stdout.splitlines()):
            self.console.print(Text(f"    {line}", style="dim"))
        if done.returncode != 0:
            raise DemoFailed(f"moorage {words[0]} ended with status {done.returncode}")
        return done.stdout


def _play(stage: Stage, folder: Path) -> None:
    source, store, result = folder / "files", folder / "store", folder / "result"
    stage.say("1. Files to pack: the libraries of this Python, and a few odd ones")
    _prepare(source)
    before = Tree.read(source)
    stage.console.print(f"    {len(before.entries):,} entries, {before.size / 1e6:.1f} MB in {source}")

    stage.say("2. A registry over a directory. No database, nothing to configure")
    with MoorageProcess(folder / "registry", "--drain-delay", "0s") as server:
        host = server.url.removeprefix("http://")
        image = f"{host}/demo/python"
        stage.show_command("serve", "--root", str(folder / "registry"), "--listen", host)
        stage.console.print(Text(f"    ready at {server.url}", style="dim"))

        stage.say("3. Pack the directory into an image and push it; the same files always give the same digest")
        pushed = stage.run("pack and push", "push", str(source), f"{image}:latest")
        stage.say("4. A second tag moves no bytes, and the registry lists both")
        stage.run("second tag", "copy", f"{image}:latest", f"{image}:1.0")
        stage.run("list", "tags", image)
        stage.say("5. Pull it into a store of its own, verify every byte, unpack it")
        pulled = stage.run("pull and unpack", "pull", image, "--store", str(store), "--unpack", str(result))
        if pulled.rpartition("@")[2] != pushed.rpartition("@")[2]:
            raise DemoFailed(f"pushed {pushed} and pulled {pulled}")
        status = server.stop()
        if status != 0:
            raise DemoFailed(f"the registry ended with status {status}: {server.errors}")
    _judge(stage, before, result)


def _judge(stage: Stage, before: Tree, result: Path) -> None:
    stage.say("6. Compare everything with the originals")
    started = time.monotonic()
    differences = list(compare(before, Tree.read(result)))
    stage.took["compare"] = time.monotonic() - started
    for line in differences[:_SHOWN_DIFFERENCES]:
        stage.console.print(Text(f"    {line}", style="red"))
    if differences:
        raise DemoFailed(f"{len(differences)} differences")
    kinds = "names, content, modes, owners, times to the nanosecond, symbolic and hard links"
    stage.console.print(f"    {len(before.entries):,} of {len(before.entries):,} entries are the same: {kinds}")
    table = Table(box=None, padding=(0, 2))
    for title in ("step", "seconds", "MB/s", "entries/s"):
        table.add_column(title, justify="left" if title == "step" else "right")
    for step, seconds in stage.took.items():
        is_bulk = step in ("pack and push", "pull and unpack", "compare")
        speed = (
            (f"{before.size / 1e6 / seconds:,.0f}", f"{len(before.entries) / seconds:,.0f}") if is_bulk else ("", "")
        )
        table.add_row(step, f"{seconds:.2f}", *speed)
    stage.console.print()
    stage.console.print(table)


def main() -> int:
    """Plays the demonstration; the exit status."""
    stage = Stage()
    stage.console.print(Panel("Moorage: from files to a registry, and back", expand=False, border_style="cyan"))
    try:
        with tempfile.TemporaryDirectory(prefix="moorage-demo-") as folder:
            _play(stage, Path(folder))
    except DemoFailed as exc:
        stage.console.print(Text(f"\nFAILED: {exc}", style="bold red"))
        return 1
    stage.console.print("\n[bold green]Not one file differs.[/bold green] The registry is stopped, its files are gone.")
    stage.console.print("Now your own:  [cyan]make serve[/cyan]   and in another terminal")
    stage.console.print("               [cyan].venv/bin/moorage push ./some/directory 127.0.0.1:5000/me/files[/cyan]\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
