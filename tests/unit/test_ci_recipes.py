"""The recipes for CI jobs that push without a stored secret: what the registry is told is what the jobs send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from moorage.auth.configuration import AuthConfig
from moorage.auth.errors import ConfigurationError

_RECIPES = Path(__file__).parents[2] / "deploy" / "ci"
_OWN = {
    "your-organisation": "acme",
    "your-group": "acme",
    "<the number of your organisation, which nobody can take over with its name>": "17",
}


def _load(name: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((_RECIPES / name).read_text())
    return document


def _auth(place: Path, own: dict[str, str]) -> AuthConfig:
    text = (_RECIPES / "auth.yml").read_text()
    for sample, value in own.items():
        assert sample in text
        text = text.replace(sample, value)
    (place / "auth.yml").write_text(text)
    (place / "cluster-keys.json").write_text(json.dumps({"keys": []}))
    return AuthConfig.load(str(place / "auth.yml"))


@pytest.mark.parametrize("forgotten", _OWN)
def test_the_samples_are_refused(tmp_path: Path, forgotten: str) -> None:
    """T2: as long as one of them is left in."""
    with pytest.raises(ConfigurationError, match="is a sample: put in your own"):
        _auth(tmp_path, {sample: value for sample, value in _OWN.items() if sample != forgotten})


def test_what_the_jobs_send_is_what_is_expected(tmp_path: Path) -> None:
    """The audience of GitHub's token is the registry that is logged in to; GitLab's recipe says its own."""
    config = _auth(tmp_path, _OWN)
    github, gitlab = _load("github-push.yml"), _load("gitlab-push.yml")
    audiences = {issuer.name: issuer.audience for issuer in config.issuers}
    assert audiences["github"] == github["env"]["REGISTRY"]
    assert audiences["gitlab"] == gitlab["push"]["id_tokens"]["MOORAGE_OIDC_TOKEN"]["aud"]
    assert github["permissions"]["id-token"] == "write"
    images = {"web-from-github": github["env"]["IMAGE"], "web-from-gitlab": gitlab["variables"]["IMAGE"]}
    for name, image in images.items():
        (publisher,) = (one for one in config.publishers if one.name == name)
        assert any(pattern.matches(image) for pattern in publisher.repositories)
