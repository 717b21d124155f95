"""A cluster that was there before: what is refused, what is asked for, and what would be put into it."""

from __future__ import annotations

import base64
import math
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from framework.cluster import (
    ApiEndpoint,
    Bulk,
    Call,
    ExistingSettings,
    Home,
    Sharding,
    production_budget,
)
from framework.cluster.existing import Right, cluster_role_rules, needed_rights, plan
from framework.cluster.existing.cluster import refuse_kwok
from framework.cluster.existing.manifests import (
    base_objects,
    fake_labels,
    kwok_deployment,
    kwok_requests,
    manage_selector,
)
from framework.cluster.existing.rights import KWOK_RULES, missing_rights, refuse_missing
from framework.errors import BadInputError, KilonodeError
from framework.run_objects import STEPS
from framework.spec import NODES_MAX, endpoint_mode

HOME = Home.of_run("ab12cd")


def a_kubeconfig(folder: Path, *, user: Any = None, **cluster: Any) -> Path:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "production",
        "contexts": [
            {"name": name, "context": {"cluster": "one", "user": "me"}} for name in ("production", "staging")
        ],
        "clusters": [{"name": "one", "cluster": {"server": "https://192.0.2.1:6443", **cluster}}],
        "users": [{"name": "me", "user": user or {"token": "secret-1"}}],
    }
    path.write_text(yaml.safe_dump(document))
    return path


class TestWhichCluster:
    def test_a_context_of_the_kubeconfig_is_taken(self, tmp_path: Path) -> None:
        path = a_kubeconfig(tmp_path)
        assert ExistingSettings(kubeconfig=str(path), context="staging").context == "staging"

    def test_the_current_context_is_never_taken_by_itself(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match=r"needs a context.*one of: production, staging"):
            ExistingSettings(kubeconfig=str(a_kubeconfig(tmp_path)), context="")

    def test_an_unknown_context_is_refused_with_those_there_are(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match=r"no context 'prod'.*one of: production, staging"):
            ExistingSettings(kubeconfig=str(a_kubeconfig(tmp_path)), context="prod")

    def test_a_kubeconfig_must_be_named(self) -> None:
        with pytest.raises(BadInputError, match="--kubeconfig FILE"):
            ExistingSettings(kubeconfig="", context="staging")

    def test_one_that_is_not_there_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match=r"can't be read: No such file.*nowhere"):
            ExistingSettings(kubeconfig=str(tmp_path / "nowhere"), context="staging")

    @pytest.mark.parametrize("text", ["", "a: [", "[]", "contexts: 1", "\x00"])
    def test_what_is_no_kubeconfig_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "file").write_text(text)
        with pytest.raises(BadInputError, match="no kubeconfig"):
            ExistingSettings(kubeconfig=str(tmp_path / "file"), context="staging")

    def test_a_command_must_name_its_node(self, tmp_path: Path) -> None:
        with pytest.raises(BadInputError, match="names no node"):
            ExistingSettings(
                kubeconfig=str(a_kubeconfig(tmp_path)), context="staging", node_command="docker exec"
            )


class TestCredentials:
    def test_a_token_is_a_header(self, tmp_path: Path) -> None:
        endpoint = ApiEndpoint.from_kubeconfig(a_kubeconfig(tmp_path), context="staging")
        assert endpoint.headers() == {"Authorization": "Bearer secret-1"}
        assert endpoint.cert_file is None
        assert "secret-1" not in repr(endpoint)
        endpoint.ssl_context()

    def test_a_token_may_be_in_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "token").write_text("secret-2\n")
        path = a_kubeconfig(tmp_path, user={"tokenFile": str(tmp_path / "token")})
        headers = ApiEndpoint.from_kubeconfig(path, context="staging").headers()
        assert headers["Authorization"].strip() == "Bearer secret-2"

    def test_a_plugin_is_asked_again_when_its_token_has_expired(self, tmp_path: Path) -> None:
        plugin = tmp_path / "plugin"
        count = tmp_path / "count"
        plugin.write_text(
            "#!/bin/sh\n"
            f"echo x >> {count}\n"
            'printf \'{"apiVersion":"client.authentication.k8s.io/v1","kind":"ExecCredential",'
            '"status":{"token":"t%s","expirationTimestamp":"2020-01-01T00:00:00Z"}}\' '
            f"$(wc -l < {count})\n"
        )
        plugin.chmod(0o755)
        said = {
            "exec": {
                "apiVersion": "client.authentication.k8s.io/v1",
                "command": str(plugin),
                "interactiveMode": "Never",
            }
        }
        endpoint = ApiEndpoint.from_kubeconfig(a_kubeconfig(tmp_path, user=said), context="staging")
        first, second = endpoint.headers(), endpoint.headers()
        assert first["Authorization"].startswith("Bearer t")
        assert first != second

    def test_a_server_that_nobody_vouches_for_may_be_trusted(self, tmp_path: Path) -> None:
        path = a_kubeconfig(tmp_path, **{"insecure-skip-tls-verify": True})
        context = ApiEndpoint.from_kubeconfig(path, context="staging").ssl_context()
        assert not context.check_hostname

    def test_a_path_before_every_path_is_kept(self, tmp_path: Path) -> None:
        path = a_kubeconfig(tmp_path, server="https://192.0.2.1/k8s/clusters/c-1")
        endpoint = ApiEndpoint.from_kubeconfig(path, context="staging")
        assert (endpoint.origin, endpoint.prefix) == ("https://192.0.2.1", "/k8s/clusters/c-1")

    @pytest.mark.parametrize(
        "cluster", [{"server": "http://127.0.0.1:8001"}, {"tls-server-name": "kubernetes"}]
    )
    def test_detours_are_refused(self, tmp_path: Path, cluster: dict[str, str]) -> None:
        with pytest.raises(BadInputError, match="name the"):
            ApiEndpoint.from_kubeconfig(a_kubeconfig(tmp_path, **cluster), context="staging")

    def test_certificates_may_be_inline(self, tmp_path: Path) -> None:
        inline = base64.b64encode(b"nonsense").decode()
        path = a_kubeconfig(tmp_path, user={"client-certificate-data": inline, "client-key-data": inline})
        endpoint = ApiEndpoint.from_kubeconfig(path, context="staging")
        assert endpoint.cert_file is not None
        assert Path(endpoint.cert_file).read_bytes() == b"nonsense"


class TestRights:
    def test_all_that_kwok_gets_is_needed_too(self) -> None:
        needed = set(needed_rights("kilonode-x"))
        kwoks = {Right(g, r, v) for g, resources, verbs in KWOK_RULES for r in resources for v in verbs}
        assert kwoks <= needed

    def test_what_is_removed_at_the_end_may_be_removed(self) -> None:
        needed = {(right.resource, right.verb) for right in needed_rights("kilonode-x")}
        for kind in (kind for step in STEPS for kind in step):
            resource = kind.path.rpartition("/")[2]
            assert (resource, "list") in needed
            assert (resource, "delete" if kind.by_name else "deletecollection") in needed

    def test_a_subresource_is_asked_for_as_one(self) -> None:
        asked = Right("apps", "daemonsets/status", "get", "kilonode-x").review()
        assert asked["spec"]["resourceAttributes"] == {
            "group": "apps",
            "resource": "daemonsets",
            "subresource": "status",
            "verb": "get",
            "namespace": "kilonode-x",
        }

    def test_every_missing_one_is_named(self) -> None:
        missing = [Right("", "nodes", "create"), Right("apps", "deployments", "create", "kilonode-x")]
        with pytest.raises(KilonodeError) as refused:
            refuse_missing(missing, context="staging")
        assert "2 rights" in refused.value.what
        assert "create nodes (cluster-wide); create deployments.apps in kilonode-x" in refused.value.what
        assert "existing-clusters.md" in refused.value.remedy
        refuse_missing([], context="staging")

    def test_each_is_asked_for(self) -> None:
        class Server(Bulk):
            def __init__(self) -> None:
                pass

            async def request(self, call: Call) -> bytes:
                asked = msgspec.json.decode(call.body or b"")["spec"]["resourceAttributes"]
                return msgspec.json.encode({"status": {"allowed": asked["resource"] != "pods"}})

        import asyncio

        missing = asyncio.run(missing_rights(Server(), needed_rights("kilonode-x")))
        assert missing
        assert {right.resource.split("/")[0] for right in missing} == {"pods"}

    def test_a_role_grants_exactly_them(self) -> None:
        rights = needed_rights("kilonode-x", real_nodes=True)
        granted = {
            (group, resource, verb)
            for rule in cluster_role_rules(rights)
            for group in rule["apiGroups"]
            for resource in rule["resources"]
            for verb in rule["verbs"]
        }
        assert granted == {(right.group, right.resource, right.verb) for right in rights}

    def test_the_page_has_the_role(self) -> None:
        page = (Path(__file__).parents[2] / "docs" / "existing-clusters.md").read_text()
        role = yaml.safe_load(page.partition("```yaml\n")[2].partition("```")[0])
        assert role["rules"] == cluster_role_rules(needed_rights("kilonode-x", real_nodes=True))


class TestOthers:
    def test_a_cluster_without_fakes_is_fine(self) -> None:
        refuse_kwok([], [], context="staging")

    def test_fakes_and_a_kwok_of_others_are_refused_in_one_sentence(self) -> None:
        with pytest.raises(KilonodeError) as refused:
            refuse_kwok(["a", "b", "c", "d"], ["kube-system/kwok-controller"], context="staging")
        assert "4 kwok nodes (a, b, c, ...) and a kwok controller (kube-system/kwok-controller)" in str(
            refused.value
        )

    def test_pods_are_not_adopted_where_the_controller_runs_on(self) -> None:
        with pytest.raises(BadInputError, match="can't be paused"):
            endpoint_mode("adopted", 10, can_adopt=False)
        assert endpoint_mode("auto", 1_000, can_adopt=False) == "native"
        assert endpoint_mode("auto", 1_001, can_adopt=False) == "endpointslices"


class TestShards:
    @given(nodes=st.integers(1, NODES_MAX))
    def test_no_kwok_has_more_than_it_carries(self, nodes: int) -> None:
        sharding = Sharding()
        assert sharding.shards(nodes) == math.ceil(production_budget(nodes).renewals_per_s / 712)
        assert sharding.of(nodes - 1) == sharding.shards(nodes) - 1

    def test_a_fake_stays_in_its_shard(self) -> None:
        assert fake_labels(HOME, Sharding(nodes_per_shard=25), 25) == {
            "kilonode.dev/run": "ab12cd",
            "kilonode.dev/shard": "1",
        }

    def test_what_a_kwok_asks_for_follows_from_its_nodes(self) -> None:
        assert kwok_requests(7_120) == {"cpu": "399m", "memory": "175Mi"}
        assert kwok_requests(10) == {"cpu": "50m", "memory": "50Mi"}


class TestManifests:
    def test_everything_has_the_runs_label(self) -> None:
        bodies = [body for _, body in base_objects(HOME, production_budget(10))]
        bodies.append(a_deployment())
        bodies.append(a_deployment()["spec"]["template"])
        assert all(body["metadata"]["labels"]["kilonode.dev/run"] == "ab12cd" for body in bodies)

    def test_a_kwok_manages_its_shard_and_nothing_else(self) -> None:
        (container,) = a_deployment()["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "registry.k8s.io/kwok/kwok:v0.8.0"
        assert manage_selector("ab12cd", 1) == (
            "kwok.x-k8s.io/node=fake,kilonode.dev/run=ab12cd,kilonode.dev/shard=1"
        )
        assert f"--manage-nodes-with-label-selector={manage_selector('ab12cd', 1)}" in container["args"]
        assert "--manage-all-nodes=false" in container["args"]
        assert "--node-lease-duration-seconds=40" in container["args"]
        (config,) = (body for _, body in base_objects(HOME, production_budget(10)) if "data" in body)
        documents = list(yaml.safe_load_all(config["data"]["kwok.yaml"]))
        assert "manageNodesWithLabelSelector" not in documents[0]["options"]
        assert [each["kind"] for each in documents[1:]] == ["Stage"] * 3

    def test_a_plan_says_how_much_of_what(self) -> None:
        text = str(
            plan(
                HOME,
                Sharding(),
                nodes=10_000,
                context="staging",
                server="https://192.0.2.1:6443",
                kwok_version="0.8.0",
            )
        )
        assert "staging (https://192.0.2.1:6443)" in text
        assert "10,000  Node" in text
        assert "2  Deployment           kwok-0 to kwok-1" in text
        assert "1,000 renewals/s" in text
        assert "grace period unknown" in text


def a_deployment() -> dict[str, Any]:
    return kwok_deployment(
        HOME, 1, run="ab12cd", version="0.8.0", budget=production_budget(10), sharding=Sharding()
    )
