"""What ``deploy/README.md`` says of buckets: URLs that we take, rights that suffice and of which none is too many."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.loaders import Loader
from botocore.model import ServiceModel
from botocore.validate import validate_parameters
from moorage.storage_backends.s3 import Location

from tests.deploy.stack import DEPLOY
from tests.s3.servers import S3Server, running
from tests.servers import MoorageProcess

_README = (DEPLOY / "README.md").read_text()
_POLICY = json.loads((DEPLOY / "s3" / "policy.json").read_text())


@pytest.fixture(scope="module")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """MinIO with the bucket of the examples."""
    with running("minio", tmp_path_factory.mktemp("minio")) as server:
        server.client().create_bucket(Bucket="my-registry")
        yield server


def test_the_urls_are_taken() -> None:
    """Every root in the README is well written, and of the example's bucket."""
    urls = re.findall(r"[`'](s3://my-registry[^`']*)[`']", _README)
    assert len(urls) >= 8
    for url in urls:
        assert Location.parse(url).prefix == "registry/"


def test_the_lifecycle_is_one() -> None:
    """AWS' own description of the call takes the rule, and it gives uploads more time than the registry does."""
    rules = json.loads((DEPLOY / "s3" / "lifecycle.json").read_text())
    shape = ServiceModel(Loader().load_service_model("s3", "service-2")).operation_model(
        "PutBucketLifecycleConfiguration"
    )
    assert shape.input_shape is not None
    validate_parameters({"Bucket": "my-registry", "LifecycleConfiguration": rules}, shape.input_shape)
    assert rules["Rules"][0]["AbortIncompleteMultipartUpload"]["DaysAfterInitiation"] >= 2


def test_the_rights_suffice(minio: S3Server) -> None:
    """With nothing but the policy, by a session that expires: a large and a small blob go in and out, and are gone."""
    root = minio.url("my-registry", "registry")
    environment = _session(minio, _POLICY)
    assert _check(root, environment).returncode == 0
    with MoorageProcess(root, "--no-redirect", environment=environment) as registry:
        command = [str(Path(sys.executable).with_name("python")), "-c", _PUSH, registry.url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("action", [one for statement in _POLICY["Statement"] for one in statement["Action"]])
def test_no_right_is_too_many(minio: S3Server, action: str) -> None:
    """Without any one of them ``config check`` fails."""
    policy = json.loads(json.dumps(_POLICY))
    for statement in policy["Statement"]:
        statement["Action"] = [one for one in statement["Action"] if one != action]
    done = _check(minio.url("my-registry", "registry"), _session(minio, policy))
    assert (done.returncode, "Traceback" in done.stderr) == (1, False), done.stdout


_PUSH = """
import hashlib, os, sys, httpx
with httpx.Client(base_url=sys.argv[1], timeout=60) as client:
    for size in (1000, 30 * 1024 * 1024):
        content = os.urandom(size)
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        place = client.post("/v2/a/b/blobs/uploads/").headers["Location"]
        place = client.patch(place, content=content).headers["Location"]
        assert client.put(place, params={"digest": digest}).status_code == 201
        assert client.get(f"/v2/a/b/blobs/{digest}").content == content
        assert client.delete(f"/v2/a/b/blobs/{digest}").status_code == 202
        assert client.get(f"/v2/a/b/blobs/{digest}").status_code == 404
        place = client.post("/v2/a/b/blobs/uploads/").headers["Location"]
        place = client.patch(place, content=content).headers["Location"]
        assert client.delete(place).status_code == 204
"""


def _session(server: S3Server, policy: dict[str, Any]) -> dict[str, str]:
    """The variables of somebody who has these rights for an hour."""
    service = boto3.client(
        "sts",
        endpoint_url=server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=server.environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=server.environment["AWS_SECRET_ACCESS_KEY"],
    )
    role = "arn:aws:iam::000000000000:role/registry"
    given = service.assume_role(RoleArn=role, RoleSessionName="registry", Policy=json.dumps(policy))["Credentials"]
    return {
        "AWS_ACCESS_KEY_ID": given["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": given["SecretAccessKey"],
        "AWS_SESSION_TOKEN": given["SessionToken"],
    }


def _check(root: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("moorage")), "config", "check", "--root", root]
    return subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=60)
