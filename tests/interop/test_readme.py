"""The README's examples for docker, podman, skopeo, crane and our client, line by line as they stand there."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

from tests.interop.programs import Program
from tests.interop.stored import Stored

README = Path(__file__).parents[2] / "README.md"


def examples(program: str) -> list[list[str]]:
    """The README's command lines that call ``program``, without its name."""
    blocks = re.findall(r"^```sh\n(.*?)^```", README.read_text(), re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).splitlines()
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith(f"{program} ")]


def test_every_example_works(
    docker: Program,
    podman: Program,
    skopeo: Program,
    crane: Program,
    moorage: Program,
    registry: Stored,
    layout: Path,
    tmp_path: Path,
) -> None:
    """What a newcomer types works, in the order in which it stands."""
    work = tmp_path / "work"
    work.mkdir()
    (work / "my-layout").symlink_to(layout)
    skopeo("copy", f"oci:{layout}:app", f"docker-archive:{work}/alpine.tar:alpine:latest")
    docker("load", "--input", work / "alpine.tar")
    podman("load", "--input", work / "alpine.tar")
    (work / "some-directory").mkdir()
    (work / "some-directory" / "file").write_text("file\n")
    programs = {"docker": docker, "podman": podman, "skopeo": skopeo, "crane": crane, "moorage": moorage}
    for name, program in programs.items():
        assert examples(name)
        for command in examples(name):
            program(*(word.replace("127.0.0.1:5000", registry.host) for word in command), cwd=work)
    assert registry.tags("demo/alpine") == ["latest", "podman"]
    assert registry.status("demo/copy/manifests/v1") == 404
    assert (work / "copy" / "file").read_text() == "file\n"
    assert registry.digest("mirror/files", "v1") == registry.digest("demo/files", "v1")
