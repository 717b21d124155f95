"""Where nft's memory is while it loads a transaction: text, parsed tree, objects, netlink buffers."""

from framework.stages.model import (
    FORMAT,
    HeapProfile,
    KernelMemory,
    StageBytes,
    StagesFile,
    StagesRun,
    Transaction,
    load_stages,
    write_stages,
)
from framework.stages.profile import (
    KUBELETS_TABLES,
    Load,
    Profile,
    profile_load,
    profiled_versions,
    require_profiler,
    resident_peak,
)
from framework.stages.table import Growth, StagesTable, growth, stage_rows
from framework.stages.transaction import count_transaction

__all__ = [
    "FORMAT",
    "KUBELETS_TABLES",
    "Growth",
    "HeapProfile",
    "KernelMemory",
    "Load",
    "Profile",
    "StageBytes",
    "StagesFile",
    "StagesRun",
    "StagesTable",
    "Transaction",
    "count_transaction",
    "growth",
    "load_stages",
    "profile_load",
    "profiled_versions",
    "require_profiler",
    "resident_peak",
    "stage_rows",
    "write_stages",
]
