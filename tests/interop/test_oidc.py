"""CI jobs without stored secrets, end to end over TLS: a real OpenID provider gives tokens, real clients show them."""

from __future__ import annotations

import base64
import http.server
import json
import os
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.forge import Forger
from tests.interop.clients import CLIENTS, Image, Place, image_of
from tests.interop.openid import OpenIdProvider, openid_provider, private_jwk
from tests.interop.secured import Authority
from tests.servers import MoorageProcess

_AUTH = """\
issuers:
  - name: ci
    url: {issuer}
    audience: registry.acme.test
    algorithms: [RS256]
    ca: {ca}
publishers:
  - name: github
    issuer: ci
    claims:
      repository: acme/web
      ref: ["refs/heads/main", "refs/tags/*"]
      environment: production
    repositories: [apps/web]
    actions: [pull, push]
    ttl: 120
  - name: gitlab
    issuer: ci
    claims: {{project_path: "acme/*", ref_protected: true}}
    repositories: ["gitlab/**"]
    actions: [pull, push]
  - name: kubernetes
    issuer: ci
    claims:
      kubernetes.io: {{namespace: ci, serviceaccount: {{name: builder}}}}
    repositories: [build/cache]
    actions: [pull, create]
anonymous:
  - repositories: ["public/**"]
    actions: [pull]
"""
_AUDIENCE = "registry.acme.test"
_OTHER_KEY = rsa.generate_private_key(65537, 2048)
_GITHUB: dict[str, Any] = {
    "sub": "repo:acme/web:environment:production",
    "repository": "acme/web",
    "repository_owner": "acme",
    "repository_id": "4242",
    "ref": "refs/heads/main",
    "ref_type": "branch",
    "environment": "production",
    "event_name": "push",
    "job_workflow_ref": "acme/web/.github/workflows/release.yml@refs/heads/main",
    "run_id": "77",
}
_GITLAB: dict[str, Any] = {
    "sub": "project_path:acme/web:ref_type:branch:ref:main",
    "project_path": "acme/web",
    "namespace_path": "acme",
    "ref": "main",
    "ref_type": "branch",
    "ref_protected": "true",
    "job_id": "1",
}
_KUBERNETES: dict[str, Any] = {
    "sub": "system:serviceaccount:ci:builder",
    "kubernetes.io": {
        "namespace": "ci",
        "pod": {"name": "job-1", "uid": "1f"},
        "serviceaccount": {"name": "builder", "uid": "2f"},
    },
}
_JOBS = {
    "GitHub": (_GITHUB, "apps/web", 120),
    "GitLab": (_GITLAB, "gitlab/acme/web", 900),
    "Kubernetes": (_KUBERNETES, "build/cache", 900),
}
"""Claims, a repository that the publisher is for, and the seconds that its tokens live."""


@dataclass(frozen=True)
class Site:
    """A registry that trusts a CI system, and the CI system."""

    ci: OpenIdProvider
    server: MoorageProcess
    authority: Authority
    key: rsa.RSAPrivateKey

    @property
    def host(self) -> str:
        """``127.0.0.1:PORT``."""
        return self.server.url.removeprefix("https://")

    def token(self, claims: Mapping[str, Any] = _GITHUB, **how: Any) -> str:
        """A job's token."""
        return self.ci.token(dict(claims), **{"audience": _AUDIENCE, **how})

    def ask(self, token: str, *scopes: str) -> httpx.Response:
        """What the registry's token endpoint answers to a job."""
        with httpx.Client(verify=self.authority.trust(), trust_env=False, timeout=60) as client:
            query = {"service": "moorage", "scope": list(scopes)}
            return client.get(f"{self.server.url}/token", params=query, auth=("oidc", token))

    def list_tags(self, repository: str, token: str) -> int:
        """The status that who bears a registry's token gets."""
        with httpx.Client(verify=self.authority.trust(), trust_env=False, timeout=60) as client:
            headers = {"Authorization": f"Bearer {token}"}
            return client.get(f"{self.server.url}/v2/{repository}/tags/list", headers=headers).status_code


@contextmanager
def _site(place: Path) -> Iterator[Site]:
    place.mkdir(exist_ok=True)
    authority = Authority.at(place)
    with openid_provider(place / "ci", authority.ca) as ci:
        key = rsa.generate_private_key(65537, 2048)
        ci.use(private_jwk(key, "first"), private_jwk(_OTHER_KEY, "pss", alg="PS256"))
        (place / "auth.yml").write_text(_AUTH.format(issuer=ci.issuer, ca=ci.ca))
        chain, tls_key = authority.vouch(place)
        words = ("--auth", str(place / "auth.yml"), "--tls-cert", chain, "--tls-key", tls_key)
        with MoorageProcess(place / "root", *words) as server:
            yield Site(ci, server, authority, key)
            assert server.process.poll() is None, f"the server did not live to the end: {server.errors}"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """One for the tests that leave its keys alone."""
    with _site(tmp_path_factory.mktemp("oidc")) as site:
        yield site


@pytest.fixture
def place(tmp_path: Path, site: Site) -> Place:
    """Where a client lives that nobody has used."""
    home = tmp_path / "home"
    (home / "run").mkdir(parents=True)
    (home / "auth.json").write_text('{"auths": {}}')
    return Place(home, site.authority.certificate, site.host, (), _none, _none)


def _none() -> Any:
    raise AssertionError("this client needs no daemon")


@pytest.fixture
def image(request: pytest.FixtureRequest, tmp_path: Path) -> Image:
    """An image whose layers nobody has pushed before."""
    return image_of(tmp_path / "image", request.node.nodeid)


def _claims(answer: httpx.Response) -> dict[str, Any]:
    """What the registry's own token says."""
    assert answer.status_code == 200, answer.text
    part = answer.json()["token"].split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=="))
    return claims


@pytest.mark.parametrize("job", _JOBS)
def test_moorage_login_oidc(job: str, site: Site, place: Place, image: Image) -> None:
    """The job logs in with the token of its CI, pushes where its publisher says, and nowhere else."""
    claims, repository, _ = _JOBS[job]
    client = CLIENTS["moorage"](place)
    token = site.token(claims)
    client.program = replace(client.program, environment={**client.program.environment, "MOORAGE_OIDC_TOKEN": token})
    said = client.program("login", "--oidc", site.host)
    assert f"logged in to {site.host} as oidc" in said
    assert token not in said
    pushed = client.push_image(image, f"{site.host}/{repository}:v1")
    assert pushed.returncode == 0, pushed
    pulled = client.pull_image(f"{site.host}/{repository}:v1")
    assert pulled.returncode == 0, pulled
    elsewhere = client.push_image(image, f"{site.host}/apps/other:v1")
    assert elsewhere.returncode == 1
    assert b"not permitted to 'oidc': repository:apps/other:" in elsewhere.stderr


@contextmanager
def _github_service(token: str) -> Iterator[dict[str, str]]:
    """The service that a job of GitHub asks for its token; yields the variables that say where it is."""

    class Service(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            is_ours = self.headers["Authorization"] == "Bearer of-the-job"
            body = json.dumps({"value": token}).encode() if is_ours else b"{}"
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the library's
            """Nothing is logged."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Service) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        url = f"http://127.0.0.1:{server.server_address[1]}/token?api-version=2.0"
        yield {"ACTIONS_ID_TOKEN_REQUEST_URL": url, "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "of-the-job"}
        server.shutdown()
        thread.join()


@pytest.mark.parametrize("name", ["github-push.yml", "gitlab-push.yml"])
def test_the_recipes(name: str, site: Site, place: Place) -> None:
    """The steps of the recipes in ``deploy/ci``, as the CI system runs them, push the job's folder."""
    document = yaml.safe_load((Path(__file__).parents[2] / "deploy" / "ci" / name).read_text())
    job = document.get("jobs", document)["push"]
    steps = [step["run"] for step in job["steps"] if "run" in step] if "steps" in job else []
    steps += [*job.get("before_script", []), *job.get("script", [])]
    assert steps.pop(0) == "pip install moorage"
    (work := place.home / "work").mkdir()
    (work / "file").write_text("content\n")
    is_github = name.startswith("github")
    with _github_service(site.token()) if is_github else nullcontext({"MOORAGE_OIDC_TOKEN": site.token()}) as given:
        variables = {"REGISTRY": site.host, "IMAGE": "apps/web", "GITHUB_SHA": name, "CI_COMMIT_SHA": name, **given}
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        moorage = CLIENTS["moorage"](place).program
        shell = replace(moorage, command=("bash",), environment={**moorage.environment, **variables, "PATH": path})
        for step in steps:
            shell("-eo", "pipefail", "-c", step, cwd=work)
    assert name in moorage("tags", f"{site.host}/apps/web")


@pytest.mark.parametrize("name", ["skopeo", "crane", "regctl"])
def test_other_clients(name: str, site: Site, place: Place, image: Image) -> None:
    """Log in as ``oidc`` with the job's token for a password: it is a login like any other to them."""
    client = CLIENTS[name](place)
    done = client.log_in(site.host, "oidc", site.token())
    assert done.returncode == 0, done
    done = client.push_image(image, f"{site.host}/apps/web:{name}")
    assert done.returncode == 0, done
    done = client.pull_image(f"{site.host}/apps/web:{name}")
    assert done.returncode == 0, done
    assert client.push_image(image, f"{site.host}/apps/other:{name}").returncode != 0


def test_docker(site: Site, place: Place, image: Image, request: pytest.FixtureRequest) -> None:
    """Through its daemon."""
    there = Place(place.home, place.authority, site.host, (), lambda: request.getfixturevalue("docker"), _none)
    client = CLIENTS["docker"](there)
    done = client.log_in(site.host, "oidc", site.token())
    assert done.returncode == 0, done
    done = client.push_image(image, f"{site.host}/apps/web:docker")
    assert done.returncode == 0, done
    done = client.pull_image(f"{site.host}/apps/web:docker")
    assert done.returncode == 0, done


@pytest.mark.parametrize("job", _JOBS)
def test_what_a_job_gets(job: str, site: Site) -> None:
    """Is short-lived, narrow, under a name of its own, and good for no refresh."""
    claims, repository, ttl = _JOBS[job]
    wide = (f"repository:{repository}:pull,push,delete", "repository:apps/other:pull", "registry:catalog:*")
    answer = site.ask(site.token(claims), *wide)
    told = _claims(answer)
    assert told["sub"] == f"oidc:ci:{claims['sub']}"
    assert told["access"] == [{"type": "repository", "name": repository, "actions": ["pull", "push"]}]
    assert told["exp"] - told["iat"] == answer.json()["expires_in"] == ttl
    assert "refresh_token" not in answer.json()


def test_a_job_may_create_and_not_change(site: Site, place: Place, image: Image, tmp_path: Path) -> None:
    """Kubernetes' publisher has create alone: a new tag, and the same content again, but no other content."""
    client = CLIENTS["crane"](place)
    assert client.log_in(site.host, "oidc", site.token(_KUBERNETES)).returncode == 0
    ref = f"{site.host}/build/cache:fixed"
    done = client.push_image(image, ref)
    assert done.returncode == 0, done
    done = client.push_image(image, ref)
    assert done.returncode == 0, done
    assert client.push_image(image_of(tmp_path / "other", "another"), ref).returncode != 0


def test_the_form(site: Site) -> None:
    """The token endpoint takes the job's token by POST too, as containerd sends it."""
    form = {"grant_type": "password", "username": "oidc", "password": site.token(), "service": "moorage"}
    with httpx.Client(verify=site.authority.trust(), trust_env=False, timeout=60) as client:
        answer = client.post(f"{site.server.url}/token", data={**form, "scope": "repository:apps/web:push"})
        assert _claims(answer)["access"] == [{"type": "repository", "name": "apps/web", "actions": ["push"]}]


def _at(seconds: float) -> int:
    return int(time.time() + seconds)


@pytest.mark.parametrize(
    "how",
    [
        pytest.param({"audience": "https://other.acme.test"}, id="a wrong audience"),
        pytest.param({"claims": {"exp": _at(-3600), "iat": _at(-7200)}}, id="an expired token"),
        pytest.param({"claims": {"nbf": _at(7200), "exp": _at(9000)}}, id="a future token"),
        pytest.param({"claims": {"iat": _at(7200), "exp": _at(9000)}}, id="issued in the future"),
        pytest.param({"alg": "PS256"}, id="an algorithm that is not allowed"),
        pytest.param({"alg": "HS256", "secret": "a secret that everybody knows, as long as it must be"}, id="HS256"),
        pytest.param({"header": {"kid": "nobody's"}}, id="a key that is unknown"),
        pytest.param({"claims": {"iss": "https://token.actions.githubusercontent.com"}}, id="another issuer"),
        pytest.param({"claims": {"repository": "evil/web"}}, id="another repository"),
        pytest.param({"claims": {"ref": "refs/heads/feature"}}, id="another branch"),
        pytest.param({"claims": {"environment": ["staging"]}}, id="another environment"),
    ],
)
def test_a_job_that_gets_nothing(how: dict[str, Any], site: Site) -> None:
    """401, whatever was wrong, and the answer does not say which."""
    assert site.ask(site.token()).status_code == 200
    claims = {**_GITHUB, **how.get("claims", {})}
    more = {name: value for name, value in how.items() if name != "claims"}
    answer = site.ask(site.token(claims, **more), "repository:apps/web:pull")
    assert answer.status_code == 401, answer.text
    assert answer.json()["errors"][0]["code"] == "UNAUTHORIZED"
    assert "repository" not in answer.text


def test_a_token_of_somebody_who_has_no_key(site: Site) -> None:
    """The name of the provider's key, and all claims right: but not the key."""
    claims = {**_GITHUB, "iss": site.ci.issuer, "aud": _AUDIENCE, "iat": _at(0), "exp": _at(300)}
    mallory = Forger(rsa.generate_private_key(65537, 2048), {"alg": "RS256", "typ": "JWT", "kid": "first"}, claims)
    assert site.ask(mallory()).status_code == 401
    assert site.ask(Forger(site.key, mallory.header, claims)()).status_code == 200


def test_key_rotation(tmp_path: Path) -> None:
    """While the registry runs: a new key is taken at its first token, one that is gone is not, and strangers' keys do
    not make the registry ask more than once."""
    with _site(tmp_path / "site") as site:
        old = site.token()
        assert site.ask(old).status_code == 200
        assert site.ci.requested("/jwks") == 1
        second = rsa.generate_private_key(65537, 2048)
        site.ci.use(private_jwk(second, "second"), private_jwk(site.key, "first"))
        fresh, began = site.token(), time.monotonic()
        assert site.ask(fresh).status_code == 200
        assert site.ask(old).status_code == 200
        assert site.ci.requested("/jwks") == 2
        for number in range(5):
            assert site.ask(site.token(header={"kid": f"stranger {number}"})).status_code == 401
        assert site.ci.requested("/jwks") <= 2 + (time.monotonic() - began) // 60  # one a minute, on a slow machine too
        assert site.ask(fresh).status_code == 200


def test_a_withdrawn_key(tmp_path: Path) -> None:
    """What it signed is worth nothing as soon as the registry has seen a newer set."""
    with _site(tmp_path / "site") as site:
        old = site.token()
        assert site.ask(old).status_code == 200
        site.ci.use(private_jwk(rsa.generate_private_key(65537, 2048), "second"))
        assert site.ask(site.token()).status_code == 200
        assert site.ask(old).status_code == 401


def test_a_publisher_that_is_taken_away(tmp_path: Path) -> None:
    """T5: the file changes while the registry runs, and tokens that its jobs hold are worth nothing any more."""
    with _site(tmp_path / "site") as site:
        raw = site.token()
        token = site.ask(raw, "repository:apps/web:pull").json()["token"]
        assert site.list_tags("apps/web", token) == 404
        config = tmp_path / "site" / "auth.yml"
        config.write_text(config.read_text().replace("- name: github", "- name: other").replace("acme/web", "acme/api"))
        while site.list_tags("apps/web", token) == 404:  # the file is looked at once per second
            time.sleep(0.1)
        assert site.list_tags("apps/web", token) == 401
        assert site.ask(raw, "repository:apps/web:pull").status_code == 401


def test_an_unreachable_issuer(tmp_path: Path) -> None:
    """Jobs whose key is known go on; a registry that never saw the keys says 503, come again, and not 401."""
    with _site(tmp_path / "site") as site:
        token = site.token()
        assert site.ask(token).status_code == 200
        words = site.server.command[site.server.command.index("--auth") :]
        with MoorageProcess(tmp_path / "other", *words) as server:
            site.ci.stop()
            assert site.ask(token).status_code == 200
            late = Site(site.ci, server, site.authority, site.key)
            answer = late.ask(token)
            assert answer.status_code == 503, answer.text
            assert answer.headers["Retry-After"]
