"""docker-compose.yml: a file of the published format, pinned, limited, well guarded, and read rightly by ourselves."""

import importlib.resources
import json
import re
from pathlib import Path

import jsonschema
import pytest
import yaml

from data.core.params import UserError
from infra.stack import compose, secrets

ROOT = Path(__file__).parents[2]
FILE = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES = FILE["services"]
OWN = {name for name, entry in SERVICES.items() if entry["image"].startswith("remint/")}


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    folder = tmp_path_factory.mktemp("secrets")
    secrets.make(folder)
    return compose.read(ROOT, folder, variables={})


def validator():
    """Of the Compose specification, which comes with a tool that checks files by published schemas."""
    pytest.importorskip("check_jsonschema")
    found = importlib.resources.files("check_jsonschema.builtin_schemas.vendor") / "compose-spec.json"
    schema = json.loads(found.read_text())
    return jsonschema.validators.validator_for(schema)(schema)


def test_it_is_valid_by_the_published_schema():
    validator().validate(FILE)


@pytest.mark.parametrize("change", [{"comand": ["x"]}, {"ports": "5000"}, {"healthcheck": {"tests": []}}])
def test_the_schema_would_notice_a_mistake(change):
    broken = {**FILE, "services": {**SERVICES, "mlflow": {**SERVICES["mlflow"], **change}}}
    with pytest.raises(jsonschema.ValidationError):
        validator().validate(broken)


def test_all_services_of_the_stack_are_there():
    assert set(SERVICES) == {
        *("postgres", "s3", "mlflow", "mlflow-gc", "prefect", "bootstrap"),
        *("worker-cpu", "worker-gpu", "worker-nogpu", "worker-flows"),
    }


@pytest.mark.parametrize("name", SERVICES)
def test_images_of_others_are_pinned_to_a_version(name):
    if name not in OWN:
        assert re.search(r":\d+\.\d+", SERVICES[name]["image"])


def test_bases_of_own_images_are_pinned_to_a_version_and_the_same():
    files = [ROOT / "mlflow" / "Dockerfile", *sorted((ROOT / "infra" / "docker").glob("*.Dockerfile"))]
    assert len(files) == 3
    bases = {line for file in files for line in file.read_text().splitlines() if re.match("FROM .*:", line)}
    assert {line.removesuffix(" AS base") for line in bases} == {"FROM python:3.11.14-slim-bookworm"}


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_restarts_has_limits_and_says_when_it_is_well(name):
    entry = SERVICES[name]
    assert entry["restart"] in ("unless-stopped", "on-failure:3")
    assert set(entry["deploy"]["resources"]["limits"]) == {"cpus", "memory"}
    if name not in ("bootstrap", "mlflow-gc"):  # a job, and a loop around one
        assert entry["healthcheck"]["test"][0] == "CMD"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_this_machine_alone(name):
    for port in SERVICES[name].get("ports", []):
        assert re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port)


def test_only_what_people_and_other_machines_speak_to_is_published():
    assert {name for name, entry in SERVICES.items() if entry.get("ports")} == {"postgres", "s3", "mlflow", "prefect"}


@pytest.mark.parametrize("name", SERVICES)
def test_no_service_has_a_privilege_that_it_does_not_begin_with(name):
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]
    becomes = ["CHOWN", "SETGID", "SETUID"] if name == "s3" else []  # its image begins as root and becomes another
    assert SERVICES[name].get("cap_add", []) == becomes
    assert SERVICES["postgres"]["user"] == "postgres"


@pytest.mark.parametrize("name", SERVICES)
def test_no_container_has_the_checkout_s_git_folder_and_only_one_may_write_to_the_copy_of_it(name):
    mounts = [volume.split(":") for volume in SERVICES[name].get("volumes", [])]
    assert not any(source.startswith(("./.git", ".git")) for source, *_ in mounts)
    writable = [inside for _, inside, *mode in mounts if inside.startswith("/origin") and mode != ["ro"]]
    assert writable == (["/origin"] if name == "worker-flows" else [])
    if writable:  # what git would execute for whoever pushes there from this machine
        assert {"/origin/config", "/origin/hooks"} <= {inside for _, inside, *mode in mounts if mode == ["ro"]}


@pytest.mark.parametrize("name", SERVICES)
def test_who_waits_waits_for_something_that_can_become_true(name):
    for other, how in SERVICES[name].get("depends_on", {}).items():
        if how["condition"] == "service_healthy":
            assert "test" in SERVICES[other]["healthcheck"]
        else:
            assert (how["condition"], other) == ("service_completed_successfully", "bootstrap")


def test_the_gpu_worker_is_a_profile_and_asks_for_nvidia_devices():
    gpu = SERVICES["worker-gpu"]
    assert gpu["profiles"] == ["gpu"]
    devices = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert devices == [{"driver": "nvidia", "count": "all", "capabilities": ["gpu"]}]
    profiles = {name: entry["profiles"] for name, entry in SERVICES.items() if entry.get("profiles")}
    assert profiles == {"worker-gpu": ["gpu"], "worker-nogpu": ["nogpu"]}


def test_a_worker_has_more_time_to_end_than_a_stage_needs_to_give_itself_back():
    for name in ("worker-cpu", "worker-gpu", "worker-flows"):
        assert int(SERVICES[name]["stop_grace_period"].removesuffix("s")) >= 30


def test_no_service_is_given_more_secrets_than_its_own():
    given = {
        name: [f for f in entry.get("env_file", []) if f.startswith(".secrets/")] for name, entry in SERVICES.items()
    }
    assert given == {
        "postgres": [".secrets/postgres.env"],
        "s3": [".secrets/s3.env"],
        "mlflow": [".secrets/mlflow.env"],
        "mlflow-gc": [".secrets/mlflow.env"],
        "prefect": [".secrets/prefect.env"],
        "bootstrap": [".secrets/bootstrap.env"],
        "worker-cpu": [".secrets/worker.env"],
        "worker-gpu": [".secrets/worker.env"],
        "worker-nogpu": [".secrets/worker.env"],
        "worker-flows": [".secrets/releaser.env"],
    }


def test_our_reading_orders_services_after_what_they_need(services):
    names = list(services)
    for name, service in services.items():
        assert all(names.index(other) < names.index(name) for other in service.after)


def test_our_reading_fills_in_variables_and_their_defaults(tmp_path):
    secrets.make(tmp_path)
    assert compose.read(ROOT, tmp_path, {})["worker-cpu"].environment["REMINT_ORIGIN"] == "/origin"
    other = compose.read(ROOT, tmp_path, {"REMINT_ORIGIN": "ssh://there"})
    assert other["worker-cpu"].environment["REMINT_ORIGIN"] == "ssh://there"
    assert 'echo "$S3_IDENTITIES"' in other["s3"].command[-1]


def test_without_secrets_it_says_how_to_make_them(tmp_path):
    with pytest.raises(UserError, match=r"postgres\.env does not exist; make it: make stack-secrets"):
        compose.read(ROOT, tmp_path)
