"""What is seen of a real node while it is measured.

Everything here records, and concludes nothing: exit records of every process, the memory cgroup's counters,
the kernel's OOM log, kube-proxy's own account of its syncs, the node as the control plane sees it, and what
the kernel holds in the end. All times are seconds after one CLOCK_BOOTTIME zero, given by the caller.
"""

from framework.observe.exits import ExitRecorder, open_recorder, peak_slack_bytes
from framework.observe.kernel_log import KernelLine, KernelLog, OomParser, parse_record
from framework.observe.kube_proxy import (
    ContainerText,
    FileText,
    PolledText,
    ProxyLog,
    ProxyMetrics,
    SyncDurations,
    SyncParser,
    parse_metrics,
    zero_in_local_time,
)
from framework.observe.node_status import NodeStatusWatcher, status_sample
from framework.observe.polling import PollingRecorder
from framework.observe.process_sampler import ProcessSampler
from framework.observe.recorder import Recorder
from framework.observe.remote_processes import RemoteProcesses, joined, kills_in, remote_kills
from framework.observe.ruleset import RulesetCounter, delete_ruleset, read_iptables, read_ruleset
from framework.observe.sampler import SAMPLE_INTERVAL_S, CgroupSampler

__all__ = [
    "SAMPLE_INTERVAL_S",
    "CgroupSampler",
    "ContainerText",
    "ExitRecorder",
    "FileText",
    "KernelLine",
    "KernelLog",
    "NodeStatusWatcher",
    "OomParser",
    "PolledText",
    "PollingRecorder",
    "ProcessSampler",
    "ProxyLog",
    "ProxyMetrics",
    "Recorder",
    "RemoteProcesses",
    "RulesetCounter",
    "SyncDurations",
    "SyncParser",
    "delete_ruleset",
    "joined",
    "kills_in",
    "open_recorder",
    "parse_metrics",
    "parse_record",
    "peak_slack_bytes",
    "read_iptables",
    "read_ruleset",
    "remote_kills",
    "status_sample",
    "zero_in_local_time",
]
