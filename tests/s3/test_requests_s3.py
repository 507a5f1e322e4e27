"""What a push costs at the S3 server: every byte goes there once, straight to its final object."""

from __future__ import annotations

import hashlib
import os

import httpx
import pytest

from tests.bench.s3.counting import counting
from tests.s3.servers import S3Server
from tests.servers import MoorageProcess

_MIB = 1024 * 1024


@pytest.mark.parametrize("size", [pytest.param(1 * _MIB, id="below a part"), pytest.param(40 * _MIB, id="four parts")])
def test_a_layer_is_never_copied(server: S3Server, size: int) -> None:
    """No copy, no part twice, and what is written beside it is eight small objects at most."""
    content = os.urandom(size)
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    with counting(server.endpoint) as proxy:
        root = f"s3://{server.bucket()}/registry?endpoint={proxy.endpoint}&addressing=path"
        with (
            MoorageProcess(root, "--drain-delay", "0s", environment=server.environment) as registry,
            httpx.Client(base_url=registry.url, timeout=60) as client,
        ):
            proxy.requests.clear()
            place = client.post("/v2/a/b/blobs/uploads/").headers["Location"]
            place = client.patch(place, content=content).headers["Location"]
            assert client.put(place, params={"digest": digest}).status_code == 201
            sent = proxy.requests.copy()
        assert sent["CopyObject"] == sent["UploadPartCopy"] == 0
        assert sent["UploadPart"] == (4 if size > 12 * _MIB else 0)
        assert sent["CreateMultipartUpload"] == sent["CompleteMultipartUpload"] == (size > 12 * _MIB)
        assert sent["PutObject"] <= 8 + (size < 12 * _MIB)
