"""Records are frozen, strict, and survive a run folder."""

from __future__ import annotations

import msgspec
import pytest
from test_analysis_outcomes import LISTING, LOAD, a_killed_evidence, an_evidence, an_nft

from framework.outcome import Doubt, Evidence, Measure


@pytest.mark.parametrize("evidence", [an_evidence(), a_killed_evidence()])
def test_evidence_survives_a_round_trip(evidence: Evidence) -> None:
    assert msgspec.json.decode(msgspec.json.encode(evidence), type=Evidence) == evidence


def test_records_are_frozen() -> None:
    with pytest.raises(AttributeError):
        an_evidence().node = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    "text",
    [
        b'{"value": 1, "source": "sample", "bound": "lower", "colour": "red"}',
        b'{"value": 1, "source": "guess", "bound": "lower"}',
        b'{"value": 1, "source": "sample"}',
    ],
)
def test_records_are_strict(text: bytes) -> None:
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(text, type=Measure)


@pytest.mark.parametrize(
    ("comm", "argv", "expected"),
    [
        ("nft", LOAD, True),
        ("nft", ("nft", "--check", "-f", "-"), False),
        ("nft", ("nft", "-c", "-f", "-"), False),
        ("nft", LISTING, False),
        ("cat", ("cat", "-f", "-"), False),
        ("iptables-restor", ("iptables-restore", "-w", "5", "--noflush", "--counters"), True),
        ("ip6tables-resto", ("ip6tables-restore", "-w", "5", "--noflush", "--counters"), True),
        ("iptables-restor", ("iptables-restore", "--version"), False),
        ("iptables", ("iptables", "-w", "5", "-S", "KUBE-PROXY-CANARY", "-t", "mangle"), False),
        ("iptables-save", ("iptables-save", "-t", "nat"), False),
        ("iptables-restor", None, None),
        ("nft", None, None),
    ],
)
def test_what_loads_a_ruleset(comm: str, argv: tuple[str, ...] | None, expected: bool | None) -> None:
    assert an_nft(comm=comm, argv=argv).loads_ruleset is expected


def test_a_doubt_reads_as_its_sentence() -> None:
    assert str(Doubt(about=("ready",), text="the node's status was never seen")) == (
        "the node's status was never seen"
    )
