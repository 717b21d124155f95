"""Taking Services and their slices back, many at once."""

from __future__ import annotations

from typing import Final

from framework.cluster import OWN_CLUSTER, ApiEndpoint, Bulk, Call, Home, run_bulk
from framework.wait import wait_until
from framework.workload.manifests import GROUP_LABEL, MANAGED_BY, MANAGED_BY_LABEL

GONE_TIMEOUT_S: Final = 300.0
_POLL_S: Final = 0.25


def withdraw_group(group: str, endpoint: ApiEndpoint, *, home: Home = OWN_CLUSTER) -> None:
    """Delete every Service of a group, and its slices unless a controller does; returns when all are gone.

    Raises TimeLimitError after five minutes.
    """
    selector = f"{GROUP_LABEL}={group}"

    async def delete(bulk: Bulk) -> None:
        """One by one: a server deletes a collection within one request, which a busy one gives up halfway."""
        own = f"{selector},{MANAGED_BY_LABEL}={MANAGED_BY}"
        for path, wanted in ((home.services_path, selector), (home.slices_path, own)):
            rows = bulk.rows(path, ("Name",), selector=wanted)
            names = [name async for page in rows for (name,) in page]
            await bulk.each(Call("DELETE", f"{path}/{name}") for name in names)

    async def count_slices(bulk: Bulk) -> int:
        rows = bulk.rows(home.slices_path, ("Name",), selector=selector)
        return sum([len(page) async for page in rows])

    run_bulk(delete, endpoint)
    wait_until(
        lambda: True if run_bulk(count_slices, endpoint) == 0 else None,
        what=f"the slices of {group} gone",
        timeout_s=GONE_TIMEOUT_S,
        interval_s=_POLL_S,
    )
