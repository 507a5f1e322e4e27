"""What can go wrong on the client's side, beyond the words of the protocol.

Rule: everything is a ``MoorageError``. Failures of a registry are ``OciError``, so a server stacked over a remote
answers with them as they are; failures of what we were given to pack or unpack are ``ImageError``. Nothing else leaves
this package for a cause outside it, but ``OSError``.
"""

from __future__ import annotations

from moorage.registry.oci import MoorageError, OciError, TooManyRequests, Unauthorized, Unavailable

__all__ = [
    "BadAnswer",
    "BadReference",
    "BrokenLayer",
    "CredentialsUnusable",
    "DeadlineExceeded",
    "HostsInvalid",
    "ImageError",
    "LayoutInvalid",
    "NoMatchingPlatform",
    "PackError",
    "RateLimited",
    "Restarted",
    "Stalled",
    "StoreFull",
    "StoreInUse",
    "TargetExists",
    "Unreachable",
    "UnsafeLayer",
]


class Unreachable(Unavailable):
    """The registry could not be reached, or the connection broke or stalled before the answer was complete."""

    summary = "registry cannot be reached"


class Stalled(Unreachable):
    """The connection stayed open, but for too long too few bytes came."""

    summary = "the connection stalled"


class RateLimited(TooManyRequests):
    """The registry wants fewer requests, and more patience than we were told to have.

    Attributes:
        retry_after: seconds until it wants to hear from us again, or None where it did not say.
    """

    def __init__(self, message: str | None = None, *, detail: object = None, retry_after: float | None = None) -> None:
        super().__init__(message, detail=detail)
        self.retry_after = retry_after


class BadAnswer(OciError):
    """The registry's answer breaks the protocol or a safety rule of ours; asking again will not help."""

    code, status, summary = "UNKNOWN", 502, "the registry's answer cannot be used"


class CredentialsUnusable(Unauthorized):
    """Credentials are configured, but they cannot be read or used; going on without them would hide that."""


class HostsInvalid(MoorageError):
    """What is configured about registries cannot be meant; the message says where it stands."""


class LayoutInvalid(OciError):
    """The directory is not an OCI image layout, or its ``index.json`` cannot be read."""

    code, status, summary = "UNKNOWN", 500, "not a valid OCI image layout"


class ImageError(MoorageError):
    """An image or a directory cannot be processed as asked."""


class BadReference(ImageError):
    """What was typed names no image and no place for one."""


class DeadlineExceeded(ImageError):
    """It took longer than the caller had time for."""


class NoMatchingPlatform(ImageError):
    """The index has no image for the platform."""


class PackError(ImageError):
    """The directory cannot be represented as a layer, or changed while it was read."""


class StoreFull(ImageError):
    """What is to be fetched cannot fit the disk of the store; nothing was fetched.

    Attributes:
        needed: bytes that are still to be fetched.
        free: bytes that the disk has for us.
    """

    def __init__(self, store: str, *, needed: int, free: int) -> None:
        super().__init__(
            f"{store}: {needed:,} bytes are to be fetched, and its disk has {free:,} free; "
            "`moorage prune` removes what no image needs"
        )
        self.needed, self.free = needed, free


class StoreInUse(ImageError):
    """Something cannot be removed from the store, because another process relies on it."""


class TargetExists(ImageError):
    """The directory to unpack into exists and is not empty."""


class BrokenLayer(ImageError):
    """The layer is damaged: not an archive, cut short, or not the content that its image names."""


class Restarted(ImageError):
    """What was read of an arriving blob is void: an earlier run had left it damaged. Read it again from the start."""


class UnsafeLayer(ImageError):
    """The layer asks for something outside its root, or beyond a limit; it is refused as a whole."""
