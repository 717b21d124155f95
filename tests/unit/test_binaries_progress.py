"""The progress of fetching as it is shown on a terminal and in a CI log."""

from __future__ import annotations

import io
from pathlib import Path

from rich.console import Console

from framework.binaries import (
    Binary,
    Building,
    Done,
    Downloading,
    Event,
    Failed,
    FellBack,
    NoSourceError,
    Queued,
    Request,
    Waiting,
    show_progress,
)
from framework.binaries.gobuild import build_progress

REQUEST = Request("kube-proxy", "1.35.0")
BINARY = Binary("kube-proxy", "1.35.0", Path("/cache/kube-proxy"), "go-build", "go1.26.8", "0" * 64)
EVENTS: tuple[Event, ...] = (
    Queued(REQUEST),
    Waiting(REQUEST, "another build"),
    Downloading(REQUEST, "http://example.invalid", 10 * 1024**2, 40 * 1024**2),
    Downloading(REQUEST, "http://example.invalid", 10 * 1024**2, None),
    FellBack(REQUEST, "example.invalid is out of reach (no such host)"),
    Building(REQUEST, 12, "k8s.io/kubernetes/pkg/proxy", 3.0),
    Done(REQUEST, BINARY, 12.0),
    Failed(REQUEST, NoSourceError("neither", remedy="give one")),
)


def test_a_log_gets_a_line_for_each_change_and_each_15_seconds() -> None:
    output = io.StringIO()
    now_s = 0.0
    with show_progress(Console(file=output, width=200), clock=lambda: now_s) as progress:
        progress(Queued(REQUEST))
        for second in range(1, 41):
            now_s = float(second)
            progress(Building(REQUEST, second, "k8s.io/api", now_s))
        progress(Done(REQUEST, BINARY, 40.0))
    assert output.getvalue().splitlines() == [
        "kube-proxy 1.35.0: queued (0 s)",
        "kube-proxy 1.35.0: building, 1 packages compiled, k8s.io/api (1 s)",
        "kube-proxy 1.35.0: building, 16 packages compiled, k8s.io/api (16 s)",
        "kube-proxy 1.35.0: building, 31 packages compiled, k8s.io/api (31 s)",
        "kube-proxy 1.35.0: ready (go-build with go1.26.8) (40 s)",
    ]


def test_every_event_can_be_shown_in_a_log() -> None:
    output = io.StringIO()
    with show_progress(Console(file=output, width=200), clock=lambda: 0.0) as progress:
        for event in EVENTS:
            progress(event)
    assert "downloading 10.0 of 40.0 MiB" in output.getvalue()
    assert "no such host" in output.getvalue()
    assert "failed: neither" in output.getvalue()


def test_every_event_can_be_shown_on_a_terminal() -> None:
    output = io.StringIO()
    with show_progress(Console(file=output, width=200, force_terminal=True)) as progress:
        for event in EVENTS:
            progress(event)
    assert "kube-proxy 1.35.0" in output.getvalue()
    assert "failed: neither" in output.getvalue()


def test_packages_are_counted_from_the_output_of_go() -> None:
    text = "go: downloading k8s.io/api v0.35.0\nruntime\nos\n# k8s.io/x\n\tat line 3\nk8s.io/api/core/v1\n"
    assert build_progress(text) == (3, "k8s.io/api/core/v1")
    assert build_progress("") == (0, "")
