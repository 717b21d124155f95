"""Bug reports that can be run again: what a measurement was and found, as one archive without secrets."""

from framework.bundle.archive import (
    EARLIER,
    LISTING,
    LOAD,
    MANIFEST,
    REPRODUCER,
    TABLES,
    Manifest,
    Twin,
    TwinFacts,
    load_manifest,
    pack,
    unpack,
)
from framework.bundle.redact import Machine, Redactor

__all__ = [
    "EARLIER",
    "LISTING",
    "LOAD",
    "MANIFEST",
    "REPRODUCER",
    "TABLES",
    "Machine",
    "Manifest",
    "Redactor",
    "Twin",
    "TwinFacts",
    "load_manifest",
    "pack",
    "unpack",
]
