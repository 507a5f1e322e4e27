"""Wire tests take their fixtures from the stage."""

from tests.stage import local, stage, store, url, wire

__all__ = ["local", "stage", "store", "url", "wire"]
