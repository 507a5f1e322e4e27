"""Copies images between places that hold them: a pull, a push and a mirror are one engine with different ends.

graph       what an image consists of, read and bounded
referrers   signatures, SBOMs and whatever else refers to an image
contents    the bytes of a blob, ready to be sent
known       where a registry may have a blob already, so that it can be mounted
carry       one blob from its source to its destination
selection   all that one copy has to do with
plan        what a copy would do
engine      the copy
"""

from moorage.puller.transfer.engine import copy_image
from moorage.puller.transfer.graph import Place, find_image
from moorage.puller.transfer.known import StoredNames
from moorage.puller.transfer.plan import plan_copy
from moorage.puller.transfer.results import BlobResult, CopyResult, Plan, PlannedBlob
from moorage.puller.transfer.selection import Wish

__all__ = [
    "BlobResult",
    "CopyResult",
    "Place",
    "Plan",
    "PlannedBlob",
    "StoredNames",
    "Wish",
    "copy_image",
    "find_image",
    "plan_copy",
]
