"""The compose file itself: what it refuses, and that its parts mean each other. ``test_nginx`` runs what it says."""

from __future__ import annotations

import os
import re
import subprocess

import pytest

from tests.deploy.stack import DEPLOY, compose_file
from tests.interop.programs import find

_GIVEN = {"S3_KEY": "key", "S3_SECRET": "secret", "EXTERNAL_URL": "https://registry.example.com"}


@pytest.mark.parametrize("missing", _GIVEN)
def test_nothing_starts_without_its_secrets(missing: str) -> None:
    """There is no default that everybody knows: each must be given, and whoever forgot is told where to read."""
    given = {name: value for name, value in _GIVEN.items() if name != missing}
    done = subprocess.run(
        [find("docker-compose"), "--file", str(DEPLOY / "compose.yml"), "config"],
        env={"PATH": os.environ["PATH"], **given},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode != 0
    assert "see deploy/README.md" in done.stderr


def test_the_replicas_are_alike_and_locked_up() -> None:
    """Both are one service under two names, share accounts and signing key, and may write to them and nowhere else."""
    services = compose_file(_GIVEN)
    one, other = services["registry1"], services["registry2"]
    assert one == other
    assert one["volumes"] == ["accounts:/etc/moorage:rw"]
    for file in ("MOORAGE_HTPASSWD", "MOORAGE_SIGNING_KEY"):
        assert one["environment"][file].startswith("/etc/moorage/")
    assert (one["read_only"], one["cap_drop"], one["security_opt"]) == (True, ["ALL"], ["no-new-privileges:true"])
    assert int(one["stop_grace_period"].removesuffix("s")) > 40  # drain: 5 + 30 + 5 s


def test_nginx_is_what_the_replicas_trust() -> None:
    """Its address is the one proxy that they believe, its upstream names them at the port of the image."""
    services = compose_file(_GIVEN)
    address = services["nginx"]["networks"]["inside"]["ipv4_address"]
    assert services["registry1"]["environment"]["MOORAGE_TRUSTED_PROXIES"] == address
    upstream = re.findall(r"server (\S+):(\d+) max_fails", (DEPLOY / "nginx.conf").read_text())
    port = re.search(r"MOORAGE_LISTEN=0\.0\.0\.0:(\d+)", (DEPLOY / "Dockerfile").read_text())
    assert port is not None
    assert upstream == [("registry1", port[1]), ("registry2", port[1])]
    assert services["nginx"]["volumes"][0].endswith("/deploy/nginx.conf:/etc/nginx/nginx.conf:ro")
    assert [one["target"] for one in services["nginx"]["ports"]] == [443]


def test_only_nginx_is_reached_from_outside() -> None:
    """The replicas speak plain HTTP and the S3 server knows one password: both stay inside."""
    services = compose_file(_GIVEN)
    assert [name for name, service in services.items() if "ports" in service] == ["nginx"]
