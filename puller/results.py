"""What a pull did, as values."""

from __future__ import annotations

from moorage.puller.events import Times
from moorage.registry.oci import Descriptor, Digest, Platform, Reference
from moorage.registry.oci.values import dataclass, field

__all__ = ["LayerResult", "PullResult"]


@dataclass(frozen=True, slots=True)
class LayerResult:
    """One layer.

    ``source``: ``cached`` (it was in the store), ``full`` (one request), ``ranged`` (several), ``resumed`` (an earlier
    run had begun) or ``shared`` (another process fetched it). ``fetched``: bytes over the network; ``seconds``: on the
    clock, fetching and unpacking; ``path``: its own tree in the store, None where it has none.
    """

    descriptor: Descriptor
    diff_id: Digest | None
    source: str
    fetched: int
    seconds: float
    path: str | None = None


@dataclass(frozen=True, slots=True)
class PullResult:
    """An image that is here now.

    ``descriptor``: of its manifest; ``path``: the merged tree, where one was asked for; ``fetched``: bytes over the
    network, manifests apart; ``seconds``: on the clock; ``remarks``: what our rights did not allow, for people.
    """

    reference: Reference
    descriptor: Descriptor
    platform: Platform | None
    layers: tuple[LayerResult, ...]
    path: str | None
    fetched: int
    seconds: float
    times: Times = field(default_factory=Times)
    remarks: tuple[str, ...] = ()

    @property
    def digest(self) -> Digest:
        """The manifest's digest."""
        return self.descriptor.digest

    @property
    def paths(self) -> list[str]:
        """Where the files are: the merged tree, or the trees of the layers, lowest first; empty where nothing was
        unpacked."""
        return [self.path] if self.path else [layer.path for layer in self.layers if layer.path]
