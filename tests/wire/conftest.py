"""Wire tests take their fixtures from the stage, and a blob from the boat."""

from tests.stage import local, stage, store, url, wire
from tests.wire.boat import hull

__all__ = ["hull", "local", "stage", "store", "url", "wire"]
