"""A state machine over the HTTP API: whatever is asked, in whatever order, server and model agree.

Law: the model knows the contract, not the implementation. At the end of every history, and now and then before, all
that can be read is read and compared.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, ClassVar

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, rule, run_state_machine_as_test
from moorage.registry.store import LocalRegistry
from moorage.registry.web.app import create_app
from moorage.storage_backends.memory import MemoryStore

from tests.content import Blob, Content, artifact, blob, empty_blob, image, index
from tests.servers import serving
from tests.stage import Stage, bare_client

_NAMES = ("a", "a/b")
_TAGS = ("v1", "v1.0", "latest")
_IMAGES = (image("one", layers=1, size=60), image("two", layers=2, size=60), image("512", layers=1, algorithm="sha512"))
_SIGNATURE = artifact("signature", subject=_IMAGES[0].descriptor)
_CONTENTS = (*_IMAGES, _SIGNATURE, index(_IMAGES[:2]), index(), index([index(_IMAGES[:2])]))
_BLOBS = tuple({item.digest: item for c in (*_IMAGES, _SIGNATURE) for item in c.blobs}.values())
_LOOSE = (blob("loose", 100), empty_blob())

# The first of each is drawn more often, so that histories meet in one place.
names = st.just(_NAMES[0]) | st.sampled_from(_NAMES)
tags = st.just(_TAGS[0]) | st.sampled_from(_TAGS)
contents = st.sampled_from(_CONTENTS)
blobs = st.sampled_from((*_BLOBS, *_LOOSE))


@dataclass
class _Repository:
    """What one repository holds."""

    blobs: dict[str, Blob] = field(default_factory=dict)
    manifests: dict[str, Content] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    def needs(self, digest: str) -> bool:
        """Whether a manifest references the blob."""
        return any(digest == str(item.digest) for content in self.manifests.values() for item in content.blobs)

    def lacks(self, content: Content) -> bool:
        """Whether something that the manifest references is absent."""
        return any(str(item.digest) not in self.blobs for item in content.blobs) or any(
            str(child.digest) not in self.manifests for child in content.children
        )


class RegistryMachine(RuleBasedStateMachine):
    """Pushes, mounts, moves, deletes, cancels and restarts."""

    uploads = Bundle("uploads")
    loop: ClassVar[asyncio.AbstractEventLoop]
    stage: ClassVar[Stage]
    wire: ClassVar[httpx.AsyncClient]

    def __init__(self) -> None:
        super().__init__()
        self.store = MemoryStore()
        self.model = {name: _Repository() for name in _NAMES}
        self.sessions: dict[str, tuple[str, bytes]] = {}
        self.stored: set[str] = set()
        self.restart()

    def do(self, call: Coroutine[Any, Any, httpx.Response]) -> httpx.Response:
        """Runs one request."""
        return self.loop.run_until_complete(call)

    def request(self, method: str, path: str, content: bytes = b"", **headers: str) -> httpx.Response:
        """One request; whatever it is, it is never a server error."""
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        response = self.do(self.wire.request(method, path, content=content, headers=fields))
        assert response.status_code < 500, response.text
        return response

    @rule()
    def restart(self) -> None:
        """A new server object over the same bytes: nothing is forgotten."""
        registry = self.loop.run_until_complete(LocalRegistry.open(self.store))
        self.stage.show(create_app(registry))

    def add_blob(self, name: str, item: Blob) -> None:
        """The model learns of a blob."""
        self.model[name].blobs[str(item.digest)] = item
        self.stored.add(str(item.digest))

    @rule(name=names, item=blobs, whole=st.booleans())
    def push_blob(self, name: str, item: Blob, whole: bool) -> None:
        """In one POST, or in POST and PUT."""
        target = f"/v2/{name}/blobs/uploads/"
        if whole:
            response = self.request("POST", f"{target}?digest={item.digest}", item.content)
        else:
            location = self.request("POST", target).headers["location"]
            response = self.request("PUT", f"{location}?digest={item.digest}", item.content)
        assert response.status_code == 201
        self.add_blob(name, item)

    @rule(name=names, item=blobs, content=st.binary(max_size=50))
    def push_wrong_blob(self, name: str, item: Blob, content: bytes) -> None:
        """Other bytes are refused, unless they are the right ones by chance."""
        response = self.request("POST", f"/v2/{name}/blobs/uploads/?digest={item.digest}", content)
        if content == item.content:
            assert response.status_code == 201
            self.add_blob(name, item)
        else:
            assert response.status_code == 400

    @rule(name=names, item=blobs, source=names)
    def mount(self, name: str, item: Blob, source: str) -> None:
        """201 where the source has it, else a session."""
        response = self.request("POST", f"/v2/{name}/blobs/uploads/?mount={item.digest}&from={source}")
        if str(item.digest) in self.model[source].blobs:
            assert response.status_code == 201
            self.add_blob(name, item)
        else:
            assert response.status_code == 202

    @rule(name=names, item=blobs)
    def mount_from_anywhere(self, name: str, item: Blob) -> None:
        """201 where somebody has it; 202 where nobody ever had; bytes that wait to be collected may serve."""
        response = self.request("POST", f"/v2/{name}/blobs/uploads/?mount={item.digest}")
        somebody = any(str(item.digest) in repository.blobs for repository in self.model.values())
        assert response.status_code in ((201,) if somebody else (201, 202))
        if response.status_code == 201:
            assert str(item.digest) in self.stored
            self.add_blob(name, item)

    @rule(target=uploads, name=names)
    def start_upload(self, name: str) -> str:
        """A session of no bytes."""
        response = self.request("POST", f"/v2/{name}/blobs/uploads/")
        assert response.status_code == 202
        location = response.headers["location"]
        self.sessions[location] = (name, b"")
        return str(location)

    @rule(upload=uploads, item=blobs, cut=st.integers(1, 100))
    def append(self, upload: str, item: Blob, cut: int) -> None:
        """The next bytes of some blob, with Content-Range."""
        so_far = self.sessions.get(upload, ("", b""))[1]
        part = item.content[len(so_far) : len(so_far) + cut]
        headers = {"content_range": f"{len(so_far)}-{len(so_far) + len(part) - 1}"} if part else {}
        response = self.request("PATCH", upload, part, **headers)
        if upload not in self.sessions:
            assert response.status_code == 404
            return
        assert response.status_code == 202
        self.sessions[upload] = (self.sessions[upload][0], so_far + part)

    @rule(upload=uploads, start=st.integers(0, 200))
    def append_elsewhere(self, upload: str, start: int) -> None:
        """416 unless it happens to be the right place."""
        so_far = self.sessions.get(upload, ("", b""))[1]
        if start == len(so_far):
            return
        response = self.request("PATCH", upload, b"x", content_range=f"{start}-{start}")
        assert response.status_code == (416 if upload in self.sessions else 404)

    @rule(upload=uploads, item=blobs)
    def finish_upload(self, upload: str, item: Blob) -> None:
        """201 if the bytes are the blob's, else 400 and the session is gone."""
        response = self.request("PUT", f"{upload}?digest={item.digest}")
        if upload not in self.sessions:
            assert response.status_code == 404
            return
        name, content = self.sessions.pop(upload)
        assert response.status_code == (201 if content == item.content else 400)
        if content == item.content:
            self.add_blob(name, item)

    @rule(upload=uploads)
    def cancel_upload(self, upload: str) -> None:
        """204 once."""
        response = self.request("DELETE", upload)
        assert response.status_code == (204 if self.sessions.pop(upload, None) else 404)

    @rule(name=names, content=contents, tag=st.none() | tags, condition=st.sampled_from(["", "absent", "present"]))
    def put_manifest(self, name: str, content: Content, tag: str | None, condition: str) -> None:
        """By digest or as a tag, on a condition or none; refused where something is missing."""
        repository = self.model[name]
        if content.digest.algorithm != "sha256":
            tag = None  # a tag alone would store it under its canonical digest
        current = repository.tags.get(tag or "")
        headers = {"content_type": content.manifest.media_type}
        if tag and condition == "absent":
            headers["if_none_match"] = "*"
        if tag and condition == "present":
            headers["if_match"] = f'"{_IMAGES[0].digest}"'
        response = self.request(
            "PUT", f"/v2/{name}/manifests/{tag or content.digest}", content.manifest.content, **headers
        )
        fits = {"": True, "absent": current is None, "present": current == str(_IMAGES[0].digest)}
        if repository.lacks(content) or (tag and not fits[condition]):
            expected = {404 if repository.lacks(content) else 412, 412 if tag and not fits[condition] else 404}
            assert response.status_code in expected
            return
        assert response.status_code == 201
        repository.manifests[str(content.digest)] = content
        if tag:
            repository.tags[tag] = str(content.digest)

    @rule(name=names, content=contents, tag=tags)
    def push_content(self, name: str, content: Content, tag: str) -> None:
        """All that a manifest needs, then the manifest: what clients do."""
        for part in content.walk():
            for item in part.blobs:
                self.push_blob(name, item, whole=True)
            self.put_manifest(name, part, tag if part is content else None, "")
        assert str(content.digest) in self.model[name].manifests

    @rule(name=names, content=contents)
    def delete_manifest(self, name: str, content: Content) -> None:
        """Takes its tags along."""
        repository = self.model[name]
        response = self.request("DELETE", f"/v2/{name}/manifests/{content.digest}")
        known = repository.manifests.pop(str(content.digest), None)
        assert response.status_code == (202 if known else 404)
        repository.tags = {tag: digest for tag, digest in repository.tags.items() if digest != str(content.digest)}

    @rule(name=names, tag=tags)
    def delete_tag(self, name: str, tag: str) -> None:
        """Leaves the manifest; an absent tag is 404."""
        response = self.request("DELETE", f"/v2/{name}/manifests/{tag}")
        assert response.status_code == (202 if self.model[name].tags.pop(tag, None) else 404)

    @rule(name=names, item=blobs)
    def delete_blob(self, name: str, item: Blob) -> None:
        """Unless a manifest needs it."""
        repository, digest = self.model[name], str(item.digest)
        response = self.request("DELETE", f"/v2/{name}/blobs/{digest}")
        if digest not in repository.blobs:
            assert response.status_code == 404
        elif repository.needs(digest):
            assert response.status_code == 405
        else:
            assert response.status_code == 202
            del repository.blobs[digest]

    @rule()
    def look(self) -> None:
        """Everything that can be read is what the model says."""
        self.manifests_agree()
        self.blobs_agree()
        self.sessions_agree()
        self.lists_agree()

    def teardown(self) -> None:
        """The last look, by a new server object."""
        self.restart()
        self.look()

    def manifests_agree(self) -> None:
        """By digest and by tag, present and absent."""
        for name, repository in self.model.items():
            for content in _CONTENTS:
                response = self.request("GET", f"/v2/{name}/manifests/{content.digest}")
                known = str(content.digest) in repository.manifests
                assert response.status_code == (200 if known else 404)
                assert not known or response.content == content.manifest.content
            for tag in _TAGS:
                response = self.request("HEAD", f"/v2/{name}/manifests/{tag}")
                assert response.headers.get("docker-content-digest") == repository.tags.get(tag)

    def blobs_agree(self) -> None:
        """Present ones byte for byte, absent ones 404."""
        for name, repository in self.model.items():
            for item in (*_BLOBS, *_LOOSE):
                response = self.request("GET", f"/v2/{name}/blobs/{item.digest}")
                known = str(item.digest) in repository.blobs
                assert response.status_code == (200 if known else 404)
                assert not known or response.content == item.content

    def sessions_agree(self) -> None:
        """Each stands where its last byte was."""
        for location, (_, content) in self.sessions.items():
            assert self.request("GET", location).headers["range"] == f"0-{max(len(content) - 1, 0)}"

    def lists_agree(self) -> None:
        """Catalog, tags, referrers."""
        catalog = self.request("GET", "/v2/_catalog").json()["repositories"]
        assert sorted(catalog) == sorted(name for name, repository in self.model.items() if repository.manifests)
        for name, repository in self.model.items():
            response = self.request("GET", f"/v2/{name}/tags/list")
            if repository.manifests or repository.blobs or repository.tags:
                assert response.json()["tags"] == sorted(repository.tags)
            else:
                assert response.status_code in (200, 404)
            found = self.request("GET", f"/v2/{name}/referrers/{_IMAGES[0].digest}").json()["manifests"]
            signed = str(_SIGNATURE.digest) in repository.manifests
            assert [entry["digest"] for entry in found] == ([str(_SIGNATURE.digest)] if signed else [])


@pytest.mark.timeout(600)  # 25 histories, each of many requests: more than 120 s on a machine with a load of 28
def test_the_api_agrees_with_a_model() -> None:
    """Some dozens of random histories; a failing one is shrunk and printed as a program."""
    loop = asyncio.new_event_loop()
    stack = AsyncExitStack()
    try:
        RegistryMachine.loop = loop
        RegistryMachine.stage = stage = Stage()
        url = loop.run_until_complete(stack.enter_async_context(serving(stage)))
        RegistryMachine.wire = loop.run_until_complete(stack.enter_async_context(bare_client(url)))
        run = settings(
            max_examples=25,
            stateful_step_count=30,
            deadline=None,
            suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
        )
        run_state_machine_as_test(RegistryMachine, settings=run)
    finally:
        loop.run_until_complete(stack.aclose())
        loop.close()
