"""Fake nodes and their leases."""

from framework.fleet.establish import register, restore, snapshot_key
from framework.fleet.fleet import Fleet, FleetChange, FleetSummary
from framework.fleet.nodes import (
    ENDPOINTS_V6,
    FAKE_RANGE,
    FAKE_SELECTOR,
    INDEX_LABEL,
    REAL_NODE_ZONE,
    REGION,
    ZONE_LABEL,
    Belonging,
    node_address,
    node_name,
    zone,
)
from framework.fleet.renewals import Renewal, RenewalReport, judge_renewals, watch_renewals
from framework.fleet.snapshots import Snapshot, SnapshotKey, SnapshotRefusedError, Snapshots

__all__ = [
    "ENDPOINTS_V6",
    "FAKE_RANGE",
    "FAKE_SELECTOR",
    "INDEX_LABEL",
    "REAL_NODE_ZONE",
    "REGION",
    "ZONE_LABEL",
    "Belonging",
    "Fleet",
    "FleetChange",
    "FleetSummary",
    "Renewal",
    "RenewalReport",
    "Snapshot",
    "SnapshotKey",
    "SnapshotRefusedError",
    "Snapshots",
    "judge_renewals",
    "node_address",
    "node_name",
    "register",
    "restore",
    "snapshot_key",
    "watch_renewals",
    "zone",
]
