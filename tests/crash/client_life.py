"""What clients do with a store and a registry until they are killed, and how the two are judged afterwards.

Law: several processes share the store. Nothing that one does may make another fail, but for what it says itself: what
was removed is not there. After a death the store verifies, and the next pull completes and leaves nothing unfinished.

    python -m tests.crash.client_life HOST STORE FOLDER SEED SECONDS      prints what went wrong
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import io
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
from moorage.puller.cli import root as moorage
from moorage.puller.store import Store
from moorage.registry.oci import Digest, ImageManifest, Reference

from tests.crash.scene import IMAGES, Scene, layer_files

__all__ = ["Clients", "judge", "run"]

_EXPECTED: Final = ("not in the store", "is using the store", "there is no store")
"""What a verb may fail with, because another process removed the image, or uses the store, or nobody made it yet."""


def run(*words: str) -> str:
    """Runs a verb in this process; returns what it failed with, empty if it did not."""
    said = io.StringIO()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(said):
        try:
            moorage(list(words), standalone_mode=False)
        except SystemExit as exc:
            return said.getvalue() if exc.code else ""
        except click.ClickException as exc:
            return exc.message
    return ""


class Clients:
    """Forked processes that work with one store. Their parent has no thread and no running event loop.

    Args:
        seeds: one for each process.
        only: they do nothing but pull this reference.
    """

    def __init__(self, scene: Scene, store: Path, folder: Path, seeds: Sequence[str], *, only: str = "") -> None:
        self._log = folder / "log"
        self._log.write_bytes(b"")
        self._pids = [
            self._fork(partial(_live, scene.host, store, folder, seed, self._say, only=only)) for seed in seeds
        ]

    def kill(self) -> list[str]:
        """Kills them at whatever they are; returns what went wrong before."""
        for pid in self._pids:
            os.kill(pid, signal.SIGKILL)
        for pid in self._pids:
            os.waitpid(pid, 0)
        return self._log.read_text().splitlines()

    def _fork(self, work: Callable[[], None]) -> int:
        pid = os.fork()
        if pid:
            return pid
        try:
            work()
        except BaseException as exc:  # noqa: BLE001  # whatever it is, the parent has to hear of it
            self._say(f"{type(exc).__name__}: {exc}")
        finally:
            os._exit(0)

    def _say(self, complaint: str) -> None:
        with open(self._log, "a") as log:
            log.write(json.dumps(complaint) + "\n")


def _live(
    host: str,
    store: Path,
    folder: Path,
    seed: str,
    say: Callable[[str], None],
    *,
    only: str = "",
    seconds: float = float("inf"),
) -> None:
    os.environ["MOORAGE_STORE"] = str(store)
    source, end = random.Random(seed), time.monotonic() + seconds
    while time.monotonic() < end:
        words = ["pull", only] if only else _choose(host, source, folder)
        failure = run(*words)
        if failure and not any(text in failure for text in _EXPECTED):
            say(f"{' '.join(words)}: {failure}")


def _choose(host: str, source: random.Random, folder: Path) -> list[str]:
    kind = source.choices(
        ("pull", "push", "pack", "prune", "shrink", "rm", "tag", "verify"), (12, 3, 2, 2, 2, 2, 2, 1)
    )[0]
    stored = f"{host}/{source.choice([*IMAGES, 'copy/of:one', 'copy/of:two'])}"
    match kind:
        case "pull":
            return _pull(host, source)
        case "push":
            return ["push", stored, f"{host}/pushed/store:{source.randrange(3)}"]
        case "pack":
            return ["push", str(_directory(folder, source)), f"{host}/pushed/packed:{source.randrange(3)}"]
        case "prune":
            return ["prune", *source.choice([(), ("--older-than", "1s")])]
        case "shrink":
            return ["prune", "--max-size", f"{source.randrange(1, 6)}MB"]
        case "tag":
            return ["tag", stored, f"{host}/copy/of:{source.choice(('one', 'two'))}"]
        case _:
            return ["rm", stored] if kind == "rm" else ["verify"]


def _pull(host: str, source: random.Random) -> list[str]:
    return ["pull", f"{host}/{source.choice(list(IMAGES))}", *source.choice([(), (), ("--no-unpack",)])]


def _directory(folder: Path, source: random.Random) -> Path:
    """One of a few directories to pack."""
    path = folder / f"directory{source.randrange(3)}"
    if not path.exists():
        made = Path(tempfile.mkdtemp(prefix="making", dir=folder))  # who was killed or too slow has left some behind
        for number in range(8):
            (made / str(number)).write_bytes(random.Random(f"{path.name}{number}").randbytes(200_000))
        with contextlib.suppress(OSError):  # another process was faster
            os.rename(made, path)
    return path


def judge(host: str, root: Path, seed: str) -> list[str]:
    """Complaints about store and registry as they are now; pulls an image."""
    os.environ["MOORAGE_STORE"] = str(root)
    store, source = Store(str(root)), random.Random(seed)
    complaints = [f"after the death: {defect}" for defect in store.verify().defects]
    name, layers = source.choice(list(IMAGES.items()))
    if failure := run("pull", f"{host}/{name}"):
        return [*complaints, f"the next pull: {failure}"]
    store = Store(str(root))
    complaints += [f"after the next pull: {defect}" for defect in store.verify().defects]
    complaints += _judge_image(store, Reference.parse(f"{host}/{name}"), layers)
    complaints += [f"left in staging: {left}" for left in os.listdir(root / "staging")]
    return complaints + list(_judge_registry(host))


def _judge_image(store: Store, reference: Reference, layers: Sequence[str]) -> Iterator[str]:
    """The trees are the layers, and nothing of the image is unfinished."""
    stored = store.view(reference.registry).catalog
    image = stored.load(stored.resolve(reference.repository, reference.target)).document
    assert isinstance(image, ImageManifest)
    unfinished = os.listdir(os.path.join(store.root, "ingests"))
    yield from (f"left in ingests: {name}" for name in unfinished if any(b.digest.hex in name for b in image.blobs))
    for name, step in zip(layers, store.history(reference).steps, strict=True):
        assert step.diff_id is not None
        if _read(Path(store.tree_path(step.diff_id))) != {
            path: hashlib.sha256(content).hexdigest() for path, content in layer_files(name).items()
        }:
            yield f"the tree of {name} is not what it should be"


def _read(tree: Path) -> dict[str, str]:
    return {
        str(path.relative_to(tree)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in tree.rglob("*")
        if path.is_file() and not path.name.startswith(".wh.")
    }


def _judge_registry(host: str) -> Iterator[str]:
    """What has a name there is whole."""
    connection = http.client.HTTPConnection(host, timeout=60)
    for repository in ("pushed/store", "pushed/packed"):
        listed = _get(connection, f"/v2/{repository}/tags/list")
        for tag in json.loads(listed)["tags"] if listed else ():
            manifest = _get(connection, f"/v2/{repository}/manifests/{tag}")
            document: dict[str, Any] = json.loads(manifest) if manifest else {"config": {}, "layers": []}
            for blob in (document["config"], *document["layers"]):
                content = _get(connection, f"/v2/{repository}/blobs/{blob['digest']}")
                if content is None or str(Digest.of(content)) != blob["digest"]:
                    yield f"{repository}:{tag} lacks {blob['digest']}"
    connection.close()


def _get(connection: http.client.HTTPConnection, path: str) -> bytes | None:
    connection.request("GET", path)
    answer = connection.getresponse()
    content = answer.read()
    return content if answer.status == 200 else None


if __name__ == "__main__":
    _host, _store, _folder, _seed, _seconds = sys.argv[1:]
    _live(_host, Path(_store), Path(_folder), _seed, print, seconds=float(_seconds))
