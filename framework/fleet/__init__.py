"""Fake nodes and their leases."""

from framework.fleet.fleet import Fleet, FleetChange, FleetSummary
from framework.fleet.nodes import (
    FAKE_RANGE,
    FAKE_SELECTOR,
    INDEX_LABEL,
    LEASE_NAMESPACE,
    node_address,
    node_name,
)

__all__ = [
    "FAKE_RANGE",
    "FAKE_SELECTOR",
    "INDEX_LABEL",
    "LEASE_NAMESPACE",
    "Fleet",
    "FleetChange",
    "FleetSummary",
    "node_address",
    "node_name",
]
