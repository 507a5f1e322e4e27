"""The trial as it runs inside a network namespace: waits for the store, works, prints its report as JSON.

python -m tests.s3.inside BUCKET OPERATIONS SEED ENDPOINT...    (credentials as boto3 reads them)
"""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import asdict
from typing import Final

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

from tests.consistency.trial import trial

_START: Final = 120.0


def main() -> None:
    """Runs it; there is one replica for each endpoint."""
    bucket, operations, seed, *endpoints = sys.argv[1:]
    _await_bucket(endpoints[0], bucket)
    roots = [f"s3://{bucket}/registry?endpoint={endpoint}&addressing=path" for endpoint in endpoints]
    names = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
    environment = {name: os.environ[name] for name in names}
    report = trial(
        roots,
        environment=environment,
        operations=int(operations),
        seed=int(seed),
        kills=False,
        begins=lambda: print(
            "ready", flush=True
        ),  # whoever stops nodes waits for it: a replica starts on a whole store
    )
    print(json.dumps(asdict(report)), flush=True)


def _await_bucket(endpoint: str, bucket: str) -> None:
    config = Config(s3={"addressing_style": "path"}, retries={"total_max_attempts": 1, "mode": "standard"})
    client = boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1", config=config)
    deadline = time.monotonic() + _START
    while True:
        try:
            client.create_bucket(Bucket=bucket)
            break
        except client.exceptions.BucketAlreadyOwnedByYou:
            break
        except (BotoCoreError, ClientError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.5)


if __name__ == "__main__":
    main()
