"""Compose, Kubernetes, images and the native start say the same: commands, ports, variables, contents."""

import json
import os
import re
import tomllib
from pathlib import Path

import pytest

from flows.server.pages import POLICY
from flows.settings import Settings
from infra.stack import compose, secrets
from infra.stack.places import PORTS, Places
from tests.stack import manifests

ROOT = Path(__file__).parents[2]
WRITTEN = manifests.written("base")
CONTAINERS = manifests.containers(WRITTEN)
DOCKERFILES = {
    "remint/mlflow": ROOT / "mlflow" / "Dockerfile",
    "remint/prefect": ROOT / "infra" / "docker" / "prefect.Dockerfile",
    "remint/worker": ROOT / "infra" / "docker" / "worker.Dockerfile",
}


def read(folder):
    secrets.make(folder)
    return compose.read(ROOT, folder, variables={})


@pytest.fixture(scope="module")
def services(tmp_path_factory):
    return read(tmp_path_factory.mktemp("secrets"))


NAMES = sorted(CONTAINERS)


def test_kubernetes_has_the_services_of_compose(services):
    assert set(CONTAINERS) == set(services)


@pytest.mark.parametrize("name", NAMES)
def test_images_are_the_same(services, name):
    assert CONTAINERS[name]["image"] == services[name].image


def test_the_tag_of_every_image_of_ours_is_this_version_so_that_another_version_is_another_image():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    template = json.loads((manifests.FOLDER / "gpu-job-template.json").read_text())
    stage = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"][0]["image"]
    every = [entry["image"] for entry in CONTAINERS.values()]
    every += [entry["image"] for entry in manifests.containers(manifests.written("ddp")).values()]
    every += [stage.removeprefix("registry.example.org/")]
    for path in (*DOCKERFILES.values(), ROOT / "docs" / "stack.md"):
        every += re.findall(r"remint/(?:mlflow|prefect|worker):\S+", path.read_text())
    ours = {image for image in every if image.startswith("remint/")}
    version = project["version"]
    servers = {f"remint/{name}:{version}" for name in ("mlflow", "prefect")}
    assert ours == servers | {f"remint/worker:{version}-{kind}" for kind in ("cpu", "gpu")}


@pytest.mark.parametrize("name", NAMES)
def test_commands_are_the_same(services, name):
    container = CONTAINERS[name]
    command = (*container.get("command", []), *container.get("args", []))
    if name == "mlflow-gc":  # a loop here, a CronJob there
        assert f"while {' '.join(command)};" in services[name].command[-1]
    else:
        assert command == services[name].command


@pytest.mark.parametrize("name", NAMES)
def test_variables_come_from_the_same_files(services, name):
    ours = {("secretRef" if f.startswith(".secrets/") else "configMapRef", Path(f).stem) for f in services[name].files}
    theirs = {(kind, source["name"]) for entry in CONTAINERS[name]["envFrom"] for kind, source in entry.items()}
    where_git_is = {
        ("configMapRef", "origin"),
        ("secretRef", "git"),
        ("secretRef", "git-push"),
    }  # in compose: REMINT_ORIGIN, the user's git
    assert theirs - where_git_is == ours
    assert bool(theirs & where_git_is) == ("REMINT_ORIGIN" in services[name].environment)


@pytest.mark.parametrize("name", NAMES)
def test_health_is_asked_in_the_same_way(services, name):
    health = services[name].health
    probe = CONTAINERS[name].get("readinessProbe")
    assert (health is None) == (probe is None)
    if health:
        assert tuple(probe["exec"]["command"]) == health.command


@pytest.mark.parametrize("name", NAMES)
def test_files_and_volumes_are_at_the_same_paths(services, name):
    mine = {path for path in services[name].mounts if not path.startswith("/origin")}  # a repository on this machine
    theirs = {mount["mountPath"] for mount in CONTAINERS[name].get("volumeMounts", [])}
    for path in mine - ({"/cache"} if name == "bootstrap" else set()):  # which reads no data
        assert any(path == there or path.startswith(f"{there}/") for there in theirs), path


def test_ports_are_the_same_everywhere(services):
    published = {name: next(iter(service.ports)) for name, service in services.items() if service.ports}
    contained = {name: entry["ports"][0]["containerPort"] for name, entry in CONTAINERS.items() if "ports" in entry}
    offered = {
        entry["metadata"]["name"]: entry["spec"]["ports"][0]["port"] for entry in WRITTEN if entry["kind"] == "Service"
    }
    assert contained == offered == PORTS
    assert published == PORTS


def test_every_address_in_the_settings_is_one_of_a_service(services):
    for service in services.values():
        for key, value in service.environment.items():
            for host, port in re.findall(r"//(?:[^/@]*@)?([a-z0-9.]+):(\d+)", value):
                assert PORTS.get(host) == int(port) or (host, int(port)) == ("127.0.0.1", PORTS["prefect"]), key


def test_every_setting_of_ours_exists(services):
    known = {f"REMINT_{name.upper()}" for name in Settings.model_fields} | {"REMINT_CLONE", "REMINT_ORIGIN"}
    used = {key for service in services.values() for key in service.environment if key.startswith("REMINT_")}
    assert used - known == set()


def test_the_native_start_runs_the_containers_commands_elsewhere(services, tmp_path):
    places = Places(ROOT, tmp_path, {name: port + 10000 for name, port in PORTS.items()}, "ssh://there/remint.git")
    assert places.command(services["mlflow"], "mlflow") == [
        *("mlflow", "server", "--app-name", "basic-auth", "--serve-artifacts"),
        *("--host", "127.0.0.1", "--port", "15000", "--workers", "2", "--uvicorn-opts", f'--header "{POLICY}"'),
    ]
    assert places.command(services["prefect"], "prefect")[-2:] == ["--header", POLICY]
    assert places.command(services["worker-cpu"], "worker-cpu-1") == [
        str(ROOT / "infra" / "docker" / "worker.sh"),
        *("remint", "worker", "--pool", "cpu"),
    ]
    mine = places.environment(services["worker-cpu"], "worker-cpu-1")
    assert mine["REMINT_MLFLOW_URI"] == "http://127.0.0.1:15000"
    assert mine["AWS_ENDPOINT_URL"] == "http://127.0.0.1:18333"
    assert mine["REMINT_CLONE"] == str(tmp_path / "work" / "worker-cpu-1" / "clone")
    assert mine["REMINT_CACHE"] == str(tmp_path / "cache")
    assert mine["REMINT_ORIGIN"] == "ssh://there/remint.git"
    assert mine["REMINT_LEDGER"] == services["worker-cpu"].environment["REMINT_LEDGER"]
    server = places.environment(services["mlflow"], "mlflow")
    assert (server["PGHOST"], server["PGPORT"], server["PGUSER"]) == ("127.0.0.1", "15432", "mlflow")
    assert server["MLFLOW_AUTH_CONFIG_PATH"] == str(ROOT / "mlflow" / "basic_auth.ini")
    assert "127.0.0.1:15000" in places.health(services["mlflow"], "mlflow")[-1]


def test_ports_that_changed_places_do_not_mislead(services, tmp_path):
    """MLflow where Prefect would be, Prefect where MLflow would."""
    places = Places(ROOT, tmp_path, {**PORTS, "mlflow": 4200, "prefect": 5000}, "/there")
    assert places.address("http://mlflow:5000 http://prefect:4200") == "http://127.0.0.1:4200 http://127.0.0.1:5000"


def test_every_container_s_variables_are_those_of_the_native_process(services, tmp_path):
    places = Places(ROOT, tmp_path, PORTS, "/there")
    for name, service in services.items():
        assert set(places.environment(service, name)) == set(service.environment)


LOCK = {line.split("==")[0].lower() for line in (ROOT / "requirements.lock").read_text().splitlines() if "==" in line}


@pytest.mark.parametrize("image", ["remint/mlflow", "remint/prefect"])
def test_servers_images_install_only_what_the_lock_names(image):
    text = DOCKERFILES[image].read_text()
    assert "--constraint /tmp/requirements.lock" in text
    wanted = re.search(r"requirements\.lock \\\n\s+(.+?) \\\n|requirements\.lock (\w.+?) \\\n", text)
    names = (wanted[1] or wanted[2]).replace("'", "").split()
    assert names
    for name in names:
        assert name.partition("[")[0].lower() in LOCK, name


def test_mlflow_s_image_has_what_its_settings_need(services):
    text = DOCKERFILES["remint/mlflow"].read_text()
    needs = {"--app-name basic-auth": "Flask-WTF", "postgresql+psycopg": "psycopg[binary]", "s3://": "boto3"}
    said = " ".join([*services["mlflow"].command, *services["mlflow"].environment.values()])
    for words, package in needs.items():
        assert words in said
        assert package in text


def test_the_worker_s_image_has_the_whole_lock_and_this_checkout():
    text = DOCKERFILES["remint/worker"].read_text()
    assert "-r /srv/remint/requirements.lock" in text
    assert "COPY . /srv/remint" in text
    for target in ("cpu", "gpu"):
        assert f"FROM base AS {target}" in text


@pytest.mark.parametrize("image", DOCKERFILES)
def test_images_run_as_somebody_and_hold_no_secret(image):
    text = DOCKERFILES[image].read_text()
    assert re.findall(r"^USER (.+)$", text, re.M) == ["remint"]
    for line in text.splitlines():
        assert not re.match(r"(ARG|ENV) .*(PASSWORD|SECRET|KEY|TOKEN)", line)


def test_scripts_that_images_run_are_there_and_executable(services):
    for service in services.values():
        if service.command and service.command[0].startswith("/srv/remint/"):
            script = ROOT / service.command[0].removeprefix("/srv/remint/")
            assert os.access(script, os.X_OK)
    assert os.access(ROOT / "infra" / "stack" / "databases.sh", os.X_OK)


def test_no_secret_or_state_can_get_into_an_image():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert {".git", ".secrets", ".remint", ".dvc/config.local", "artifacts"} <= set(ignored)


def test_the_folder_mlflow_holds_no_python():
    """It would hide the library."""
    assert list((ROOT / "mlflow").rglob("*.py")) == []


def settings_of_prefect():
    """The names of all variables that Prefect's settings are read from."""
    from prefect.settings.models.root import Settings as Root
    from pydantic_settings import BaseSettings

    found = set()

    def walk(model):
        for name, field in model.model_fields.items():
            if isinstance(field.annotation, type) and issubclass(field.annotation, BaseSettings):
                walk(field.annotation)
            alias = field.validation_alias
            found.update(str(one).upper() for one in getattr(alias, "choices", [alias]))
            found.add(f"{model.model_config.get('env_prefix', '')}{name}".upper())

    walk(Root)
    return found


def test_every_setting_of_prefect_exists_in_its_version(services):
    read = [service for service in services.values() if service.name != "postgres"]  # whose PREFECT_PASSWORD is ours
    used = {key for service in read for key in service.environment if key.startswith("PREFECT_")}
    assert len(used) > 8
    assert used - settings_of_prefect() == set()
