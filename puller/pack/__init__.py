"""A directory becomes an image of one layer, reproducibly: same tree, same digest, anywhere and any time."""

from moorage.puller.pack.compression import Compression, parse_compression
from moorage.puller.pack.ignore import Ignore, read_ignore_file
from moorage.puller.pack.image import Packed, pack_directory, source_date_epoch
from moorage.puller.pack.options import AS_ON_DISK, PackOptions, parse_owner

__all__ = [
    "AS_ON_DISK",
    "Compression",
    "Ignore",
    "PackOptions",
    "Packed",
    "pack_directory",
    "parse_compression",
    "parse_owner",
    "read_ignore_file",
    "source_date_epoch",
]
