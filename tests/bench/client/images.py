"""The images that are pulled: made once, the same bytes on every machine with the same Python, kept in a folder.

A file is text of the standard library mixed with random bytes, so that it compresses about three to one, like the file
systems that people ship; sizes are spread from bytes to megabytes. Upper layers replace and delete files of lower ones.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import sysconfig
import tarfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, cast

from tests.bench.images import MIB

__all__ = ["RECIPES", "Recipe", "prepare"]

_EPOCH = 1_700_000_000
_PIECE = 4096


@dataclass(frozen=True, slots=True)
class Recipe:
    """An image. ``layers``: files and uncompressed bytes of each; ``entropy``: how much of a file is random."""

    name: str
    layers: tuple[tuple[int, int], ...]
    entropy: float


RECIPES = (
    Recipe("1g-4layers", ((28_000, 1700 * MIB), (8_000, 700 * MIB), (3_500, 350 * MIB), (500, 150 * MIB)), 0.10),
    Recipe("100m-12layers", ((2_000, 120 * MIB), *((150, 15 * MIB),) * 11), 0.10),
    Recipe("2g-1layer", ((400, 2100 * MIB),), 0.90),
    Recipe("tiny", ((50, MIB), (5, MIB // 8)), 0.10),
)


def prepare(recipe: Recipe, folder: Path) -> Path:
    """The image as an OCI layout with the one tag ``latest``; made where it is missing."""
    layout = folder / recipe.name
    if not (layout / "index.json").exists():
        (layout / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor(2) as pool:  # zlib lets others run
            layers = list(pool.map(lambda number: _layer(recipe, number, layout), range(len(recipe.layers))))
        _write_image(layers, layout)
    return layout


def _layer(recipe: Recipe, number: int, layout: Path) -> tuple[dict[str, Any], str]:
    """Writes one layer; returns its descriptor and its diffID."""
    path, plain = layout / f"layer-{number}", hashlib.sha256()
    with (
        path.open("wb") as file,
        gzip.GzipFile("", "wb", 6, file, mtime=0) as packed,
        tarfile.open(fileobj=cast("BinaryIO", _Tee(packed, plain)), mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        for info, content in _entries(recipe, number):
            tar.addfile(info, io.BytesIO(content))
    with path.open("rb") as written:
        digest = hashlib.file_digest(written, "sha256").hexdigest()
    size = path.stat().st_size
    path.rename(layout / "blobs" / "sha256" / digest)
    kind = "application/vnd.oci.image.layer.v1.tar+gzip"
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": size}, f"sha256:{plain.hexdigest()}"


def _entries(recipe: Recipe, number: int) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    files, size = recipe.layers[number]
    rng, text = random.Random(f"{recipe.name}/{number}"), _text()
    weights = [rng.lognormvariate(0, 1.3) for _ in range(files)]
    scale = size / sum(weights)
    made: set[str] = set()
    for index, weight in enumerate(weights):
        # One file in ten of an upper layer replaces one of the lowest.
        owner = 0 if number and index % 10 == 0 else number
        folder = f"opt/app{owner}/{index // 400:03}/{index // 20 % 20:02}"
        yield from _folders(folder, made)
        yield _file(f"{folder}/file-{index:05}.py", rng, text, round(weight * scale), recipe.entropy)
    if number:
        info = tarfile.TarInfo(f"opt/app0/000/{number % 20:02}/.wh.file-{number % 20 * 20 + 1:05}.py")
        info.mtime = _EPOCH
        yield info, b""


def _folders(path: str, made: set[str]) -> Iterator[tuple[tarfile.TarInfo, bytes]]:
    parts = path.split("/")
    for depth in range(1, len(parts) + 1):
        name = "/".join(parts[:depth])
        if name not in made:
            made.add(name)
            info = tarfile.TarInfo(name)
            info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, _EPOCH
            yield info, b""


def _file(name: str, rng: random.Random, text: bytes, size: int, entropy: float) -> tuple[tarfile.TarInfo, bytes]:
    pieces = []
    for _ in range(0, size, _PIECE):
        start = rng.randrange(len(text) - _PIECE)
        pieces.append(rng.randbytes(_PIECE) if rng.random() < entropy else text[start : start + _PIECE])
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, _EPOCH
    return info, b"".join(pieces)[:size]


def _text() -> bytes:
    """Two megabytes or more of Python."""
    return b"".join(path.read_bytes() for path in sorted(Path(sysconfig.get_path("stdlib")).glob("*.py")))


class _Tee:
    """Writes to a file and into a hash."""

    def __init__(self, file: gzip.GzipFile, sum_: Any) -> None:
        self._file = file
        self._sum = sum_

    def write(self, data: bytes) -> int:
        """All of ``data``."""
        self._sum.update(data)
        return self._file.write(data)


def _write_image(layers: list[tuple[dict[str, Any], str]], layout: Path) -> None:
    config = {
        "architecture": "amd64", "os": "linux", "config": {"Cmd": ["/bin/true"]},
        "rootfs": {"type": "layers", "diff_ids": [diff_id for _, diff_id in layers]},
    }  # fmt: skip
    manifest = {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": _blob(config, "application/vnd.oci.image.config.v1+json", layout),
        "layers": [descriptor for descriptor, _ in layers],
    }
    entry = _blob(manifest, "application/vnd.oci.image.manifest.v1+json", layout)
    entry["annotations"] = {"org.opencontainers.image.ref.name": "latest"}
    (layout / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')
    (layout / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))


def _blob(document: dict[str, Any], kind: str, layout: Path) -> dict[str, Any]:
    content = json.dumps(document).encode()
    digest = hashlib.sha256(content).hexdigest()
    (layout / "blobs" / "sha256" / digest).write_bytes(content)
    return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(content)}
