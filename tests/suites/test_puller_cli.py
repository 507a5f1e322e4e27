"""The program that users run, as a process: what it prints, where, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from moorage.puller.errors import BadReference
from moorage.puller.layout import ImageLayout
from moorage.puller.layout_files import LayoutFiles
from moorage.puller.references import parse_reference
from moorage.registry.oci import Descriptor, Digest, Manifest, RepositoryName, Tag
from moorage.registry.oci.media_types import OCI_CONFIG, OCI_IMAGE, OCI_LAYER

from tests.demo import Tree, compare
from tests.layers import archive, file, symlink
from tests.scripted import Reply, scripted
from tests.servers import MoorageProcess

_MAIN = [sys.executable, "-c", "from moorage.puller.cli import main; main()"]


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A registry for all tests of this file."""
    with MoorageProcess(tmp_path_factory.mktemp("registry") / "root", "--drain-delay", "0s") as server:
        yield server.url.removeprefix("http://")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """A directory to push."""
    root = tmp_path / "files"
    (root / "folder").mkdir(parents=True)
    (root / "folder" / "program").write_text("#!/bin/sh\n")
    (root / "folder" / "program").chmod(0o4755)
    (root / "link").symlink_to("folder/program")
    (root / "Ναύτης").write_text("name")
    return root


@pytest.fixture
def moorage(tmp_path: Path) -> Moorage:
    return Moorage(tmp_path / "store")


class Moorage:
    """Runs the program with a store of its own."""

    def __init__(self, store: Path) -> None:
        self.store = store

    def __call__(self, *words: str | Path, status: int = 0) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "MOORAGE_STORE": str(self.store), "DOCKER_CONFIG": str(self.store / "docker")}
        done = subprocess.run(
            [*_MAIN, *map(str, words)], env=environment, capture_output=True, text=True, check=False, timeout=60,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip
        assert done.returncode == status, done.stderr
        assert "Traceback" not in done.stderr
        return done

    def lines(self, *words: str | Path) -> list[str]:
        """The lines of stdout."""
        return self(*words).stdout.splitlines()

    def documents(self, *words: str | Path) -> list[dict[str, object]]:
        """The JSON documents of stdout."""
        return [json.loads(line) for line in self.lines(*words)]


def test_a_directory_goes_round(moorage: Moorage, host: str, files: Path, tmp_path: Path) -> None:
    """push, tags, pull, unpack: the same files, the same digest, one line on stdout each."""
    pushed = moorage.lines("push", files, f"{host}/round/trip:v1")
    assert len(pushed) == 1
    assert moorage.lines("tags", f"{host}/round/trip") == ["v1"]
    pulled = moorage.lines("pull", f"{host}/round/trip:v1", "--unpack", tmp_path / "out")
    assert pulled[0].rpartition("@")[2] == pushed[0].rpartition("@")[2]
    assert list(compare(Tree.read(files), Tree.read(tmp_path / "out"))) == []


def test_pull_unpacks_each_layer_into_the_store(moorage: Moorage, host: str, files: Path) -> None:
    """By its diffID, for its owner only."""
    moorage("push", files, f"{host}/layers:v1")
    done = moorage.documents("pull", f"{host}/layers:v1", "--json")[-1]
    paths = done["paths"]
    assert isinstance(paths, list)
    tree = Path(paths[0])
    (tree / ".wh..wh.moorage").unlink()  # what a directory cannot say of a layer alone: here, that its root is implied
    assert list(compare(Tree.read(files), Tree.read(tree))) == []
    assert moorage.store.stat().st_mode & 0o777 == 0o700
    assert Path(paths[0]).parent == moorage.store / "unpacked"
    again = moorage.documents("pull", f"{host}/layers:v1", "--json")
    assert "LayerUnpacked" not in {document["event"] for document in again}


def test_no_unpack_only_fetches(moorage: Moorage, host: str, files: Path) -> None:
    """The store is then a plain layout."""
    moorage("push", files, f"{host}/fetch:v1")
    moorage("pull", f"{host}/fetch:v1", "--no-unpack")
    assert not (moorage.store / "unpacked").exists()
    assert [image["reference"] for image in moorage.documents("images", "--json")] == [f"{host}/fetch:v1"]


def test_json_is_one_document_per_line(moorage: Moorage, host: str, files: Path) -> None:
    """Events first, the result last; nothing else on stdout."""
    pushed = moorage.documents("push", files, f"{host}/json:v1", "--json")
    assert [document["event"] for document in pushed[:2]] == ["Packed", "Resolved"]
    assert pushed[-1]["event"] == "Pushed"
    assert pushed[1]["reference"] == str(files)
    pulled = moorage.documents("pull", f"{host}/json:v1", "--json")
    assert {"Resolved", "BlobStarted", "BlobDone", "ManifestDone", "LayerUnpacked", "Finished", "Pulled"} == {
        document["event"] for document in pulled
    }
    assert pulled[-1]["digest"] == pushed[-1]["digest"]


def test_a_plan_tells_and_does_nothing(moorage: Moorage, host: str, files: Path) -> None:
    """Of a pull, a push and a copy."""
    planned = moorage.lines("push", files, f"{host}/plan:v1", "--plan")
    assert planned[-1] == "would write 1 manifest, set the tag v1"
    assert planned[-2].startswith("would send ")
    moorage("tags", f"{host}/plan", status=1)
    moorage("push", files, f"{host}/plan:v1")
    fetching = moorage.lines("pull", f"{host}/plan:v1", "--plan")
    assert [line.split()[-1] for line in fetching[:-2]] == ["fetch", "fetch"]
    (document,) = moorage.documents("pull", f"{host}/plan:v1", "--plan", "--json")
    assert (document["event"], document["moved"]) == ("Planned", document["size"])
    moorage("pull", f"{host}/plan:v1")
    assert moorage.lines("pull", f"{host}/plan:v1", "--plan")[-2].startswith("would fetch 0 B of ")
    assert moorage.lines("copy", f"{host}/plan:v1", f"{host}/planned:v1", "--plan")[0].endswith(" mount from plan")


def test_images_are_copied_in_all_directions(moorage: Moorage, host: str, files: Path, tmp_path: Path) -> None:
    """Registry to registry, to a layout, from a layout, from the store: one digest."""
    first = moorage.lines("push", files, f"{host}/copy/a:v1")[0].rpartition("@")[2]
    for words in (
        ("copy", f"{host}/copy/a:v1", f"{host}/copy/b:v1"),
        ("copy", f"{host}/copy/b:v1", f"oci:{tmp_path / 'layout'}:v1", "--all-platforms"),
        ("copy", f"oci:{tmp_path / 'layout'}:v1", f"{host}/copy/c:v1"),
        ("push", tmp_path / "layout", f"{host}/copy/d:v1"),
        ("pull", f"{host}/copy/d:v1", "--no-unpack"),
        ("push", f"{host}/copy/d:v1", f"{host}/copy/e:v1"),
        ("push", f"oci:{moorage.store}:{host}/copy/d:v1", f"{host}/copy/f:v1"),
    ):
        assert moorage.lines(*words)[0].rpartition("@")[2] == first
    assert moorage.documents("inspect", f"{host}/copy/f:v1", "--json")[0]["digest"] == first


def test_inspect_tells_what_it_is(moorage: Moorage, host: str, files: Path) -> None:
    """For people and for programs."""
    moorage("push", files, f"{host}/inspect:v1", "--platform", "linux/arm64")
    document = moorage.documents("inspect", f"{host}/inspect:v1", "--json")[0]
    config = document["config"]
    assert isinstance(config, dict)
    assert (config["os"], config["architecture"]) == ("linux", "arm64")
    assert "linux/arm64" in moorage("inspect", f"{host}/inspect:v1").stdout


def test_tags_and_manifests_are_deleted(moorage: Moorage, host: str, files: Path) -> None:
    """One tag, or a digest with all that name it."""
    digest = moorage.lines("push", files, f"{host}/delete:a")[0].rpartition("@")[2]
    for tag in ("b", "c"):
        moorage("copy", f"{host}/delete:a", f"{host}/delete:{tag}")
    moorage("delete", f"{host}/delete:a")
    assert moorage.lines("tags", f"{host}/delete") == ["b", "c"]
    moorage("delete", f"{host}/delete@{digest}")
    assert "MANIFEST" not in moorage("inspect", f"{host}/delete:b", status=1).stdout


def test_unpack_takes_an_image_of_the_store(moorage: Moorage, host: str, files: Path, tmp_path: Path) -> None:
    """Without the registry."""
    moorage("push", files, f"{host}/unpack:v1")
    moorage("pull", f"{host}/unpack:v1", "--no-unpack")
    assert moorage.lines("unpack", f"{host}/unpack:v1", tmp_path / "out") == [str(tmp_path / "out")]
    assert list(compare(Tree.read(files), Tree.read(tmp_path / "out"))) == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        pytest.param(("pull", "{host}/no/such:thing"), "/no/such/manifests/thing: manifest unknown", id="no image"),
        pytest.param(
            ("tags", "{host}/no/such"), "/v2/no/such/tags/list?…: repository name not known", id="no repository"
        ),
        pytest.param(("delete", "{host}/no/such:thing"), "unknown", id="nothing to delete"),
        pytest.param(("pull", "127.0.0.1:1/a"), "127.0.0.1:1", id="no registry"),
        pytest.param(("push", "./no/such/dir", "{host}/x:1"), "neither", id="no directory"),
        pytest.param(
            ("push", "{host}/never/pulled:1", "{host}/x:1"), "pulled:1: not in the store\n", id="not in the store"
        ),
        pytest.param(("push", "nodir", "{host}/x:1"), "there is no directory nodir", id="no directory by that name"),
        pytest.param(("push", __file__, "{host}/x:1"), "is a file; an archive is written", id="a file"),
        pytest.param(("unpack", "never/pulled:1", "x"), "never/pulled:1: not in the store", id="nothing to unpack"),
        pytest.param(("verify", "--store", "/no/such"), "/no/such: there is no store", id="nothing to verify"),
        pytest.param(("rm", "a", "--store", "/"), "there is no store", id="no store there"),
        pytest.param(("copy", "oci:./nowhere:x", "{host}/x:1"), "not an image layout", id="no layout"),
        pytest.param(("images", "--store", "/dev/null/x"), "elsewhere): '/dev/null/x'", id="no store can be made"),
    ],
)
def test_a_failure_is_one_line_and_status_1(moorage: Moorage, host: str, words: tuple[str, ...], said: str) -> None:
    """On stderr, nothing on stdout."""
    done = moorage(*(word.format(host=host) for word in words), status=1)
    assert done.stdout == ""
    assert said in done.stderr
    assert (done.stderr.count("\n"), done.stderr.startswith("moorage: ")) == (1, True)


@pytest.mark.parametrize(
    "words",
    [
        pytest.param((), id="nothing"),
        pytest.param(("frobnicate",), id="no such verb"),
        pytest.param(("pull",), id="argument missing"),
        pytest.param(("pull", "UPPER/case"), id="bad name"),
        pytest.param(("pull", "a:b:c"), id="bad tag"),
        pytest.param(("pull", "a@sha256:short"), id="bad digest"),
        pytest.param(("pull", "a", "--platform", "amd64"), id="bad platform"),
        pytest.param(("pull", "a", "--unpack", "x", "--no-unpack"), id="contradiction"),
        pytest.param(("pull", "a", "--unpack", ""), id="nowhere to unpack to"),
        pytest.param(("unpack", "a", ""), id="nowhere to unpack an image of the store to"),
        pytest.param(("pull", "a", "--store", ""), id="no store, perhaps of an unset variable"),
        pytest.param(("copy", "a", "oci:"), id="no layout's directory"),
        pytest.param(("copy", "a", "b", "--platform", "linux/amd64", "--all-platforms"), id="contradiction of copy"),
        pytest.param(("delete", "localhost/a"), id="delete without a tag"),
        pytest.param(("pull", "a", "--bogus"), id="no such option"),
    ],
)
def test_wrong_usage_is_status_2(moorage: Moorage, words: tuple[str, ...]) -> None:
    """With a hint."""
    done = moorage(*words, status=2)
    assert done.stdout == ""
    assert "Usage:" in done.stderr


@pytest.mark.parametrize(
    ("text", "said"),
    [
        pytest.param("https://a.test/b", "write it without https://", id="a URL"),
        pytest.param("docker://a.test/b", "write it without docker://", id="skopeo's way"),
        pytest.param("/a:v1", "as if the name of the registry were empty", id="an empty variable"),
        pytest.param("./a", "an OCI layout is written oci:./a", id="a path"),
        pytest.param("127.0.0.1:5000", "names a registry and no repository", id="an address alone"),
        pytest.param("localhost:5000", "names a registry and no repository", id="a host alone"),
        pytest.param("oci:dir", "a reference is wanted here", id="a layout"),
        pytest.param("store:a/b", "a reference is wanted here", id="of the store"),
        pytest.param("docker-daemon:a", "docker-daemon: is not known; oci:", id="another tool's place"),
    ],
)
def test_what_was_meant_is_guessed(text: str, said: str) -> None:
    """From what people write instead of a reference; nothing is asked of Docker Hub by mistake."""
    with pytest.raises(BadReference, match=re.escape(said)):
        parse_reference(text)


def test_a_mistyped_verb_names_the_nearest(moorage: Moorage) -> None:
    """As options do."""
    assert "No such command 'pulll'. Did you mean pull?" in moorage("pulll", "a", status=2).stderr


@pytest.mark.parametrize("name", [f"x@sha256:{'0' * 64}", "X:1"], ids=["a digest", "a bad name"])
def test_a_wrong_destination_is_told_before_anything_is_packed(
    moorage: Moorage, host: str, files: Path, name: str
) -> None:
    """The digest follows from the content, and packing may take minutes."""
    assert "packed" not in moorage("push", files, f"{host}/{name}", status=2).stderr


async def test_nothing_from_outside_reaches_the_terminal_raw(moorage: Moorage) -> None:
    """Escape sequences, carriage returns and bidirectional overrides in messages are shown, not obeyed (rule N9)."""
    evil = "\x1b[2J\x1b]0;title\x07 \r\n moorage: all is well \u202e \x9b \x7f"
    body = json.dumps({"errors": [{"code": "DENIED", "message": evil, "detail": {"x": evil}}]}).encode()
    async with scripted(lambda seen: Reply(403, body)) as server:
        done = await asyncio.to_thread(moorage, "pull", f"{server.host}/a", status=1)
    assert done.stderr.count("\n") == 1
    assert not set("\x1b\x07\r\x9b\x7f\u202e") & set(done.stderr)
    assert "\\x1b[2J" in done.stderr


def test_a_hostile_layer_is_a_clear_error(moorage: Moorage, host: str, tmp_path: Path) -> None:
    """Nothing is unpacked, and the name in the message is escaped."""
    raw = archive(symlink("l", "/"), file("../\x1b[2Jescape"))
    _push_raw_layer(moorage, host, raw, tmp_path)
    done = moorage("pull", f"{host}/hostile:v1", "--unpack", tmp_path / "out", status=1)
    assert "leads outside" in done.stderr
    assert "\x1b" not in done.stderr
    assert not (tmp_path / "out").exists()


def _push_raw_layer(moorage: Moorage, host: str, raw: bytes, tmp_path: Path) -> None:
    files = LayoutFiles(str(tmp_path / "raw"), create=True)
    config = json.dumps({"rootfs": {"type": "layers", "diff_ids": [str(Digest.of(raw))]}}).encode()
    document = {
        "schemaVersion": 2,
        "config": Descriptor(OCI_CONFIG, files.write_blob(config), len(config)).to_json(),
        "layers": [Descriptor(OCI_LAYER, files.write_blob(raw), len(raw)).to_json()],
    }
    manifest = Manifest.of(json.dumps(document).encode(), OCI_IMAGE)
    layout = ImageLayout.of_tags(files, RepositoryName("x"))
    asyncio.run(layout.push_manifest(RepositoryName("x"), manifest, tags=[Tag("v1")]))
    moorage("push", tmp_path / "raw", f"{host}/hostile:v1")


@pytest.mark.parametrize("words", [("--help",), ("pull", "--help"), ("--version",)])
def test_help_is_instant(moorage: Moorage, words: tuple[str, ...]) -> None:
    """Under 150 ms of processor time, because nothing but click is loaded."""
    best = 10.0
    for _ in range(3):
        before = os.times()
        moorage(*words)
        after = os.times()
        best = min(best, after.children_user + after.children_system - before.children_user - before.children_system)
    assert best < 0.150


def test_help_loads_nothing_heavy() -> None:
    """Neither HTTP, nor drawing, nor a server."""
    program = (
        "import sys; sys.argv = ['moorage', 'pull', '--help']\n"
        "from moorage.puller.cli import root\n"
        "root(standalone_mode=False)\n"
        "print(sorted({'httpx', 'rich', 'isal', 'zstandard', 'starlette', 'uvicorn', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_names_every_verb(moorage: Moorage) -> None:
    """The server's too."""
    said = moorage("--help").stdout
    for verb in (
        *("pull", "push", "copy", "tags", "inspect", "unpack", "delete", "images", "history", "tag", "rm", "prune"),
        *("verify", "login", "logout", "explain-auth", "completion", "serve", "config"),
    ):
        assert f"  {verb} " in said


def test_a_shell_completes_verbs_and_options(moorage: Moorage) -> None:
    """As bash asks, after the script of ``moorage completion bash``."""
    assert "_MOORAGE_COMPLETE=bash_complete" in moorage("completion", "bash").stdout
    program = Path(sys.executable).with_name("moorage")
    for words, expected in (("moorage pu", ["pull", "push"]), ("moorage pull --pl", ["--plan", "--platform"])):
        asked = {"_MOORAGE_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        environment = os.environ | asked
        done = subprocess.run([program], env=environment, capture_output=True, text=True, timeout=60, check=False)
        assert sorted(line.removeprefix("plain,") for line in done.stdout.split()) == expected


def test_how_a_directory_is_packed(moorage: Moorage, host: str, files: Path, tmp_path: Path) -> None:
    """Compression, owners and what stays out are the packer's to say."""
    (tmp_path / "ignore").write_text("link\n")
    options = ("--compression", "zstd:9", "--owner", "7:8", "--ignore-file", tmp_path / "ignore")
    moorage("push", files, f"{host}/packed:v1", *options)
    moorage("pull", f"{host}/packed:v1", "--unpack", tmp_path / "out")
    assert not (tmp_path / "out" / "link").exists()
    assert (tmp_path / "out" / "folder" / "program").read_text() == "#!/bin/sh\n"
    if os.geteuid() == 0:
        assert (tmp_path / "out" / "folder").stat().st_uid == 7
    layers = moorage.documents("inspect", f"{host}/packed:v1", "--json")[0]["layers"]
    assert isinstance(layers, list)
    assert layers[0]["mediaType"].endswith("tar+zstd")
    assert os.listdir(moorage.store / "staging") == []


@pytest.mark.parametrize("option", [("--compression", "xz"), ("--owner", "root"), ("--ignore-file", "none")])
def test_packing_options_that_make_no_sense(moorage: Moorage, host: str, files: Path, option: tuple[str, str]) -> None:
    """Are said before anything is sent; for what is not packed they are wrong usage."""
    moorage("push", files, f"{host}/packed:v1", *option, status=1 if option[1] == "none" else 2)
    moorage("push", f"{host}/none:v1", f"{host}/packed:v1", *option, status=2)


def test_an_image_of_the_store_is_inspected(moorage: Moorage, host: str, files: Path) -> None:
    """As it would be in its registry, without asking that."""
    moorage("push", files, f"{host}/inspected:v1")
    moorage("pull", f"{host}/inspected:v1")
    there = moorage.documents("inspect", f"{host}/inspected:v1", "--json")
    moorage("tag", f"{host}/inspected:v1", "example.invalid/inspected:v1")
    here = moorage.documents("inspect", "store:example.invalid/inspected:v1", "--json")
    assert here == [{**there[0], "reference": "example.invalid/inspected:v1"}]
    assert "not in the store" in moorage("inspect", "store:example.invalid/inspected:v2", status=1).stderr
