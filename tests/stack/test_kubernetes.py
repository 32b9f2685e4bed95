"""infra/k8s: objects of the published schemas, without privilege, and overlays that Kustomize can build."""

import re
import shutil

import pytest

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
    import json

    from prefect.utilities.templating import apply_values

    template = json.loads((manifests.FOLDER / "gpu-job-template.json").read_text())
    properties = template["variables"]["properties"]
    values = {name: entry["default"] for name, entry in properties.items() if "default" in entry}
    values |= {
        "name": "stage-x",
        "labels": {"prefect.io/flow-run-name": "x"},
        "command": ["prefect", "flow-run", "execute"],
    }
    values["env"] = [{"name": "PREFECT__FLOW_RUN_ID", "value": "1"}]
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
    used = set(re.findall(r"\{\{ (\w+) \}\}", json.dumps(template["job_configuration"])))
    assert used == set(properties)
