"""infra/k8s: objects of the published schemas, without privilege, and overlays that Kustomize can build."""

import json
import re
import shutil

import pytest

from flows.workers import pools, serve
from infra.stack import compose, secrets
from infra.stack.places import PORTS
from tests.stack import manifests

validate = pytest.importorskip("kubernetes_validate")
VERSION = "1.34"
FOLDERS = ("base", "overlays/small", "overlays/production", "ddp")
BUILT = pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl, which holds Kustomize, is not installed")


def check(entry):
    validate.validate(entry, VERSION, strict=True)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_object_as_written_is_valid(folder):
    entries = manifests.written(folder)
    assert entries
    for entry in entries:
        check(entry)


@BUILT
@pytest.mark.parametrize("folder", ["overlays/small", "overlays/production"])
def test_every_object_that_kustomize_makes_is_valid_and_all_names_lead_somewhere(folder):
    entries = manifests.built(folder)
    names = {(entry["kind"], entry["metadata"]["name"]) for entry in entries}
    for entry in entries:
        check(entry)
        assert entry["metadata"].get("namespace") == ("remint" if entry["kind"] != "Namespace" else None)
    for pod in manifests.pods(entries).values():
        for source in pod["containers"][0].get("envFrom", []):
            if "configMapRef" in source:
                assert ("ConfigMap", source["configMapRef"]["name"]) in names
        for volume in pod.get("volumes", []):
            if "configMap" in volume:
                assert ("ConfigMap", volume["configMap"]["name"]) in names
            if "persistentVolumeClaim" in volume:
                assert ("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]) in names


@BUILT
def test_the_overlays_differ_where_they_should():
    replicas = {
        folder: {
            e["metadata"]["name"]: e["spec"]["replicas"] for e in manifests.built(folder) if e["kind"] == "Deployment"
        }
        for folder in ("overlays/small", "overlays/production")
    }
    assert replicas["overlays/small"]["worker-gpu"] == 0
    assert replicas["overlays/production"]["worker-gpu"] > 0
    (claim,) = [e for e in manifests.built("overlays/production") if e["metadata"]["name"] == "cache"]
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_schema_would_notice_a_mistake():
    (service, *_) = manifests.written("base")
    with pytest.raises(validate.ValidationError):
        check({**service, "spec": {**service["spec"], "replica": 2}})


@pytest.mark.parametrize(("name", "pod"), manifests.pods(manifests.written("base", "ddp")).items())
def test_pods_run_without_root_privilege_or_the_cluster_s_credentials(name, pod):
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # else PREFECT_PORT=tcp://... would be taken for a setting
    for container in pod["containers"]:
        assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
        assert set(container["resources"]) == {"requests", "limits"}


def test_gpu_pods_ask_for_a_gpu_and_go_to_a_node_that_has_one():
    pod = manifests.pods(manifests.written("base"))["worker-gpu"]
    assert pod["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    assert [toleration["key"] for toleration in pod["tolerations"]] == ["nvidia.com/gpu"]


def test_prefect_s_job_template_makes_valid_gpu_jobs():
    """Filled in as a Kubernetes worker fills it in, with its defaults and Prefect's own values."""
    from prefect.utilities.templating import apply_values

    template = json.loads((manifests.FOLDER / "gpu-job-template.json").read_text())
    properties = template["variables"]["properties"]
    values = {name: entry["default"] for name, entry in properties.items() if "default" in entry}
    job = apply_values(template["job_configuration"], values, remove_notset=True)["job_manifest"]
    check(job)
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert container["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert pod["nodeSelector"] == {"nvidia.com/gpu.present": "true"}
    worker = manifests.containers(manifests.written("base"))["worker-gpu"]
    for part in ("command", "envFrom", "volumeMounts", "securityContext"):
        assert container[part] == worker[part]
    assert pod["volumes"] == manifests.pods(manifests.written("base"))["worker-gpu"]["volumes"]
    assert container["env"] == [{"name": "PREFECT__FLOW_ENTRYPOINT", "value": serve.ENTRYPOINT}]
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(properties)


TEMPLATES = {
    "process": pools.JOB_TEMPLATE,
    "kubernetes": json.loads((manifests.FOLDER / "gpu-job-template.json").read_text()),
    "docker": json.loads((manifests.ROOT / "infra" / "docker" / "job-template.json").read_text()),
}


@pytest.mark.parametrize("kind", TEMPLATES)
def test_no_flow_run_may_say_what_is_run_where_or_with_which_variables(kind):
    template = TEMPLATES[kind]
    assert pools.unfit(kind, template) == ""
    assert template["variables"]["additionalProperties"] is False
    sizes = {"gpus", "cpu", "memory", "finished_job_ttl", "stream_output"}
    sizes |= {"job_watch_timeout_seconds", "pod_watch_timeout_seconds"}
    assert set(template["variables"]["properties"]) <= sizes
    assert template["job_configuration"].get("command", pools.COMMAND) == pools.COMMAND
    for name in ("env", "working_dir"):  # not even as something that Prefect would add to
        assert name not in template["job_configuration"]


def allowed(policies, kind, own, other, port):
    """Whether the policies let a pod of app `own` take (Ingress) or make (Egress) a connection with one of `other`."""

    def selects(selector, app):
        wanted = selector.get("matchLabels", {}).get("app", app)
        listed = [set(one["values"]) for one in selector.get("matchExpressions", []) if one["key"] == "app"]
        return wanted == app and all(app in values for values in listed)

    sides = {"Ingress": ("ingress", "from"), "Egress": ("egress", "to")}
    rules, peers = sides[kind]
    about = [p["spec"] for p in policies if kind in p["spec"]["policyTypes"] and selects(p["spec"]["podSelector"], own)]
    assert about, f"{own}: nobody says anything, so everything is allowed"
    return any(
        selects(peer["podSelector"], other) and port in [one["port"] for one in rule.get("ports", [{"port": port}])]
        for spec in about
        for rule in spec.get(rules, [])
        for peer in rule[peers]
        if "podSelector" in peer
    )


def test_pods_reach_the_servers_that_their_settings_name_and_no_other(tmp_path):
    secrets.make(tmp_path)
    services = compose.read(manifests.ROOT, tmp_path, variables={})
    policies = [entry for entry in manifests.written("base") if entry["kind"] == "NetworkPolicy"]
    for name, service in services.items():
        said = " ".join(service.environment.values())
        for server, port in PORTS.items():
            needs = server != name and (f"{server}:{port}" in said or server in service.environment.values())
            needs = needs and not (server == "mlflow" and name == "mlflow")
            found = allowed(policies, "Egress", name, server, port), allowed(policies, "Ingress", server, name, port)
            assert found == (needs, needs), (name, server)
    for stranger in ("postgres", "s3"):  # servers begin nothing
        assert not any(allowed(policies, "Egress", stranger, server, port) for server, port in PORTS.items())


def test_stages_and_nodes_of_a_training_reach_what_a_worker_of_stages_does_and_no_database():
    policies = [entry for entry in manifests.written("base") if entry["kind"] == "NetworkPolicy"]
    for name in ("stage", "ddp", "worker-cpu"):
        reached = [server for server, port in PORTS.items() if allowed(policies, "Egress", name, server, port)]
        assert reached == ["s3", "mlflow", "prefect"], name


def test_only_the_pod_that_releases_may_push_and_has_the_releaser_s_keys():
    holders = {"git-push": set(), "releaser": set()}
    for name, container in manifests.containers(manifests.written("base", "ddp")).items():
        for source in container.get("envFrom", []):
            secret = source.get("secretRef", {}).get("name")
            if secret in holders:
                holders[secret].add(name)
    assert holders == {"git-push": {"worker-flows"}, "releaser": {"worker-flows"}}
