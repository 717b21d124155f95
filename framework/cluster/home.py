"""Where a run's own objects are in a cluster, and what they are labelled with.

In a control plane that the run made everything is the run's, and Services are where a reader expects them. In
a cluster that was there before, all is in one namespace and carries one label, by which it is removed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from framework.run_objects import RUN_LABEL, namespace_of


@dataclass(frozen=True)
class Home:
    """The namespace of workloads, and the labels of everything that is created."""

    namespace: str = "default"
    labels: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of_run(cls, run_id: str) -> Home:
        """In a cluster that is not the run's own."""
        return cls(namespace=namespace_of(run_id), labels={RUN_LABEL: run_id})

    @property
    def services_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/services"

    @property
    def pods_path(self) -> str:
        return f"/api/v1/namespaces/{self.namespace}/pods"

    @property
    def slices_path(self) -> str:
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.namespace}/endpointslices"


OWN_CLUSTER: Home = Home()
