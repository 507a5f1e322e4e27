"""The client: pulls, pushes, copies and unpacks images, for programs and on the command line.

    from moorage.puller import Client

    with Client() as client:
        result = client.pull("127.0.0.1:5000/team/app:v1", unpack="rootfs")

Law: the public names are here, and nowhere else promised. Importing this package loads none of them; each is loaded
when it is first used, so that a program pays for what it takes.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moorage.puller.blocking import BlockingImage, BlockingLayer, Client
    from moorage.puller.client import AsyncClient
    from moorage.puller.credentials import Credentials, FixedKeychain, Keychain, Keys
    from moorage.puller.errors import (
        BadAnswer,
        BadReference,
        BrokenLayer,
        CredentialsUnusable,
        DeadlineExceeded,
        HostsInvalid,
        ImageError,
        LayoutInvalid,
        NoMatchingPlatform,
        PackError,
        RateLimited,
        Stalled,
        StoreFull,
        StoreInUse,
        TargetExists,
        Unreachable,
        UnsafeLayer,
    )
    from moorage.puller.events import (
        BlobDone,
        BlobProgress,
        BlobSkipped,
        BlobStarted,
        Event,
        Finished,
        LayerUnpacked,
        ManifestDone,
        OnEvent,
        Packed,
        Resolved,
        Resumed,
        Retried,
        Times,
        UnpackProgress,
        Waiting,
        Warned,
    )
    from moorage.puller.hosts import HostConfig
    from moorage.puller.images import Image, ImageLayer
    from moorage.puller.messages import RetryPolicy, Timeouts
    from moorage.puller.pack import AS_ON_DISK, Compression, Ignore, PackOptions
    from moorage.puller.resolve import Policy
    from moorage.puller.results import LayerResult, PullResult
    from moorage.puller.store import Store
    from moorage.puller.transfer import CopyResult, Plan
    from moorage.puller.unpack.owners import OwnerMode
    from moorage.registry.oci import (
        BlobUnknown,
        Denied,
        Descriptor,
        Digest,
        DigestMismatch,
        ManifestInvalid,
        ManifestUnknown,
        MoorageError,
        NotFound,
        OciError,
        Platform,
        Reference,
        Tag,
        TooManyRequests,
        Unauthorized,
        Unsupported,
    )

__all__ = [
    "AS_ON_DISK",
    "AsyncClient",
    "BadAnswer",
    "BadReference",
    "BlobDone",
    "BlobProgress",
    "BlobSkipped",
    "BlobStarted",
    "BlobUnknown",
    "BlockingImage",
    "BlockingLayer",
    "BrokenLayer",
    "Client",
    "Compression",
    "CopyResult",
    "Credentials",
    "CredentialsUnusable",
    "DeadlineExceeded",
    "Denied",
    "Descriptor",
    "Digest",
    "DigestMismatch",
    "Event",
    "Finished",
    "FixedKeychain",
    "HostConfig",
    "HostsInvalid",
    "Ignore",
    "Image",
    "ImageError",
    "ImageLayer",
    "Keychain",
    "Keys",
    "LayerResult",
    "LayerUnpacked",
    "LayoutInvalid",
    "ManifestDone",
    "ManifestInvalid",
    "ManifestUnknown",
    "MoorageError",
    "NoMatchingPlatform",
    "NotFound",
    "OciError",
    "OnEvent",
    "OwnerMode",
    "PackError",
    "PackOptions",
    "Packed",
    "Plan",
    "Platform",
    "Policy",
    "PullResult",
    "RateLimited",
    "Reference",
    "Resolved",
    "Resumed",
    "Retried",
    "RetryPolicy",
    "Stalled",
    "Store",
    "StoreFull",
    "StoreInUse",
    "Tag",
    "TargetExists",
    "Timeouts",
    "Times",
    "TooManyRequests",
    "Unauthorized",
    "UnpackProgress",
    "Unreachable",
    "UnsafeLayer",
    "Unsupported",
    "Waiting",
    "Warned",
]

_HOMES = {
    "AS_ON_DISK": "pack",
    "AsyncClient": "client",
    "BlockingImage": "blocking",
    "BlockingLayer": "blocking",
    "Client": "blocking",
    "Compression": "pack",
    "CopyResult": "transfer",
    "Credentials": "credentials",
    "FixedKeychain": "credentials",
    "HostConfig": "hosts",
    "Ignore": "pack",
    "Image": "images",
    "ImageLayer": "images",
    "Keychain": "credentials",
    "Keys": "credentials",
    "LayerResult": "results",
    "OwnerMode": "unpack.owners",
    "PackOptions": "pack",
    "Plan": "transfer",
    "Policy": "resolve",
    "PullResult": "results",
    "RetryPolicy": "messages",
    "Store": "store",
    "Timeouts": "messages",
}
_SMALL = ("moorage.puller.errors", "moorage.puller.events", "moorage.registry.oci")
"""Where all other names are; these cost next to nothing."""


def __getattr__(name: str) -> Any:
    """A public name, loaded now and kept."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    homes = (f"{__name__}.{_HOMES[name]}",) if name in _HOMES else _SMALL
    modules = map(importlib.import_module, homes)
    value = globals()[name] = next(getattr(module, name) for module in modules if hasattr(module, name))
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
