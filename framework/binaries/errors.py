"""What can be wrong with a binary, each with its remedy."""

from __future__ import annotations

from framework.errors import BadInputError, KilonodeError, MissingRequirementError


class UnknownVersionError(BadInputError):
    """There is no such release."""


class ExplicitPathError(BadInputError):
    """A path that the user gave holds no binary that can be used."""


class SkewError(BadInputError):
    """Two versions that Kubernetes does not support together."""


class NoSourceError(MissingRequirementError):
    """Neither a download nor a build is possible on this machine."""


class GoTooOldError(MissingRequirementError):
    """The Go on PATH is older than the source asks for."""


class DiskFullError(MissingRequirementError):
    """There is not, or no longer, enough free space."""


class ChecksumError(KilonodeError):
    """A file is not what its publisher says it is; it has been deleted."""


class WrongVersionError(KilonodeError):
    """A fresh binary does not report the version that was asked for; it was not installed."""


class BuildError(KilonodeError):
    """``go build`` failed for a reason of its own."""
