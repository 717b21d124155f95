"""kwok's Stages and the configuration of kwok and kwokctl, as data.

The three Stages are kwok v0.8.0's own (``kustomize/stage``, Apache-2.0): fake nodes become Ready, pods
on them become Ready, deleted pods go.
"""

from __future__ import annotations

from importlib import resources

STAGES = ("stage-node-initialize.yaml", "stage-pod-ready.yaml", "stage-pod-delete.yaml")


def read(name: str) -> str:
    """The text of one of this folder's YAML files."""
    return resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
