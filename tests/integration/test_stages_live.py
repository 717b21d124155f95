"""nft's stages, as a user asks for them: a real kube-proxy on a twin node, and the real nft under massif."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from framework.ledger import STATE_ENV
from framework.network import list_netns
from framework.stages import StagesRun, load_stages, require_profiler

ENDPOINTS = 200
TIMEOUT_S = 120.0
KILONODE = (sys.executable, "-c", "from framework.cli import main; main()")


def profile(folder: Path, state: Path, *options: str | Path) -> StagesRun:
    found = folder / "stages.json"
    subprocess.run(
        [*KILONODE, "stages", "--json", found, *options],
        cwd=folder,
        env={**os.environ, STATE_ENV: str(state), "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=TIMEOUT_S,
    )
    (run,) = load_stages(found).runs
    return run


def test_a_load_of_kube_proxy_and_the_same_load_from_its_files(tmp_path: Path, live_state: Path) -> None:
    require_profiler()
    twin = profile(tmp_path, live_state, "--kube-proxy", "1.35.0", "--endpoints", str(ENDPOINTS))
    assert (twin.kube_proxy, twin.transaction.endpoints) == ("1.35.0", ENDPOINTS)
    assert (twin.transaction.chains, twin.transaction.rules) == (ENDPOINTS + 1, 2 * ENDPOINTS + 1)
    peak = twin.heap.peak
    assert twin.parse_ratio > 10
    assert twin.heap.most.parsed_bytes >= peak.parsed_bytes > peak.evaluated_bytes > 0
    assert peak.netlink_bytes > twin.heap.sent_bytes > twin.transaction.size_bytes
    assert twin.rss_peak_in_node is not None
    assert abs(twin.rss_peak.value - twin.rss_peak_in_node.value) < 0.1 * twin.rss_peak.value
    assert abs(twin.unaccounted_bytes) < 0.15 * twin.rss_peak.value
    assert twin.kernel.peak.value >= twin.kernel.after_bytes > 500 * ENDPOINTS
    assert twin.ruleset is not None
    assert twin.ruleset.endpoints == ENDPOINTS
    assert twin.ruleset.chains >= ENDPOINTS

    kept = sorted(tmp_path.glob("runs/latest/*/transactions/*.nft"))
    options = [option for path in kept[: twin.earlier + 1] for option in ("--transaction", path)]
    file = profile(tmp_path, live_state, *options)
    assert (file.kube_proxy, file.transaction) == (None, twin.transaction)
    assert file.heap.peak == peak
    assert file.heap.sent_bytes == twin.heap.sent_bytes
    assert not [name for name in list_netns() if name.endswith("-stages")]
