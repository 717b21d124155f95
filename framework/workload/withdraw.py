"""Taking Services and their slices back, many at once."""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from framework.cluster import ApiEndpoint, Bulk, Call, run_bulk
from framework.wait import wait_until
from framework.workload.manifests import GROUP_LABEL, MANAGED_BY, MANAGED_BY_LABEL, SERVICES_PATH, SLICES_PATH

GONE_TIMEOUT_S: Final = 300.0
_POLL_S: Final = 0.25


def withdraw_group(group: str, endpoint: ApiEndpoint) -> None:
    """Delete every Service of a group, and its slices unless a controller does; returns when all are gone.

    Raises TimeLimitError after five minutes.
    """
    selector = f"{GROUP_LABEL}={group}"

    async def delete(bulk: Bulk) -> None:
        rows = bulk.rows(SERVICES_PATH, ("Name",), selector=selector)
        names = [name async for page in rows for (name,) in page]
        await bulk.each(Call("DELETE", f"{SERVICES_PATH}/{name}") for name in names)
        own = quote(f"{selector},{MANAGED_BY_LABEL}={MANAGED_BY}")
        await bulk.request(Call("DELETE", f"{SLICES_PATH}?labelSelector={own}"))

    async def count_slices(bulk: Bulk) -> int:
        rows = bulk.rows(SLICES_PATH, ("Name",), selector=selector)
        return sum([len(page) async for page in rows])

    run_bulk(delete, endpoint)
    wait_until(
        lambda: True if run_bulk(count_slices, endpoint) == 0 else None,
        what=f"the slices of {group} gone",
        timeout_s=GONE_TIMEOUT_S,
        interval_s=_POLL_S,
    )
