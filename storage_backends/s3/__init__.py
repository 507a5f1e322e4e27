"""A store in an S3 bucket: any number of processes and machines over one prefix, with nothing else between them.

Law of safety: everything rests on conditional puts and on reading what was written; never on conditional deletes, on
listing uploads or on a clock (some servers accept these and ignore them). What a server promises is tried at start.
Law of lost answers: a request whose answer was lost is never blindly believed or repeated: what we put carries a nonce,
and the object is asked whether it is ours.
Only ``calls`` knows boto3.
"""

from __future__ import annotations

from moorage.storage_backends.s3.location import Location
from moorage.storage_backends.s3.store import S3Store

__all__ = ["Location", "S3Store"]
