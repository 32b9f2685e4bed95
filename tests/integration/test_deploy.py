"""`remint deploy` and `remint schedule` against a real Prefect server."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
import yaml

from data.core.params import UserError
from flows.arrivals import watch
from flows.arrivals.thresholds import Thresholds
from flows.catalogue import database
from flows.catalogue.schema import Entry, Photograph, Run
from flows.release import notify
from flows.schedules import client, declared, deploy, schedule
from flows.server import connect
from flows.settings import Settings, child_environment
from flows.workers import pools
from tests import arriving

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory, make_toy: Callable) -> Iterator[Settings]:
    """A small repository with the committed infra/prefect.yaml, and a Prefect server that is named in its settings."""
    root = tmp_path_factory.mktemp("deployed")
    make_toy(root)
    (root / "infra").mkdir()
    shutil.copyfile(ROOT / declared.FILE, root / declared.FILE)
    alone = Settings(root=root)
    with connect.borrowed(alone, child_environment(alone)) as api:
        yield alone.model_copy(update={"prefect_api": api})


def changed(settings: Settings, change: Callable[[dict], None]) -> Path:
    path = settings.root / declared.FILE
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))
    return path


def applied(settings: Settings, *, prune: bool = False) -> dict[str, tuple[str, str]]:
    path = settings.root / declared.FILE
    with client.opened(settings) as api:
        done = list(deploy.apply(api, declared.read(path), path, prune=prune))
    stages = ("cpu", "gpu")  # deployments that are called as their pools
    return {one.name: (one.done, one.what) for one in done if (one.kind, one.name in stages) != ("deployment", True)}


def test_a_server_becomes_what_the_file_declares_and_stays_so(settings: Settings) -> None:
    first = applied(settings)
    assert set(first) == {"flows", "cpu", "gpu", pools.AUTOMATION, "nightly", "watch", "prove", "collect"}
    assert {done for done, _ in first.values()} == {"created"}
    assert {done for done, _ in applied(settings).values()} == {"unchanged"}

    # what differs is updated and said; what a person did on the server stays
    with client.opened(settings) as api:
        assert schedule.pause(api, "nightly").next is None
        api.request("PATCH", "/work_pools/gpu", json={"concurrency_limit": 3})

    def later(values: dict) -> None:
        by_name = {one["name"]: one for one in values["deployments"]}
        by_name["nightly"]["schedules"][0]["cron"] = "0 3 * * *"
        by_name["watch"]["parameters"] = {"at_least": 7}
        values["work_pools"]["gpu"]["description"] = "other words"

    changed(settings, later)
    second = applied(settings)
    assert second["nightly"] == ("updated", "schedule 30 1 * * * -> 0 3 * * *")
    assert second["watch"][0] == "updated"
    assert "'at_least': 7" in second["watch"][1]
    assert second["gpu"] == ("updated", "description")
    assert second["collect"][0] == "unchanged"
    with client.opened(settings) as api:
        seen = {one.name: one for one in schedule.every(api)}
        assert seen["nightly"].paused
        assert seen["nightly"].schedule == "0 3 * * *"
        assert api.read_work_pool("gpu").concurrency_limit == 3
        resumed = schedule.resume(api, "nightly")
        assert not resumed.paused
        assert resumed.next is not None
        assert (resumed.next.hour, resumed.next.minute) == (3, 0)

    # what the file no longer names is reported, and removed only when that is asked for
    changed(settings, lambda values: values["deployments"].pop())
    assert applied(settings)["collect"][0] == "not declared"
    assert applied(settings, prune=True)["collect"][0] == "removed"
    assert "collect" not in applied(settings)


def test_nothing_is_changed_when_one_flow_is_wrong(settings: Settings) -> None:
    applied(settings)

    def wrong(values: dict) -> None:
        values["deployments"][0]["description"] = "never seen"
        values["deployments"][-1]["entrypoint"] = "flows.schedules.deployed.nothing"

    text = (settings.root / declared.FILE).read_text()
    changed(settings, wrong)
    with pytest.raises(UserError, match="has no flow nothing"):
        applied(settings)
    (settings.root / declared.FILE).write_text(text)
    assert {done for done, _ in applied(settings).values()} == {"unchanged"}


def test_an_unknown_schedule_and_a_pool_without_a_worker_are_named(settings: Settings) -> None:
    applied(settings)
    with client.opened(settings) as api:
        for act in (schedule.pause, schedule.resume, schedule.run_now):
            with pytest.raises(UserError, match="no schedule 'nightley'; did you mean 'nightly'"):
                act(api, "nightley")
        with pytest.raises(UserError, match="no worker serves pool 'flows' now; start one: remint worker --pool"):
            schedule.run_now(api, "nightly")


def test_the_commands_print_tables_and_json(
    settings: Settings, make_toy: Callable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    from click.testing import CliRunner

    from flows.cli import main

    applied(settings)
    monkeypatch.chdir(settings.root)
    monkeypatch.setenv("REMINT_PREFECT_API", str(settings.prefect_api))
    run = CliRunner()
    said = run.invoke(main, ["deploy", "--json"])
    assert {"kind": "deployment", "name": "nightly", "done": "unchanged"}.items() <= json.loads(said.stdout)[6].items()
    assert "nightly" in run.invoke(main, ["schedule", "list"]).stdout
    paused = run.invoke(main, ["schedule", "pause", "watch", "--json"])
    assert json.loads(paused.stdout)[0]["paused"] is True
    assert "watch" in run.invoke(main, ["deploy"]).stdout
    wrong = run.invoke(main, ["schedule", "run-now", "wach"])
    assert wrong.exit_code == 2
    assert wrong.stderr == "error: no schedule 'wach'; did you mean 'watch'?\n"


@pytest.mark.soak
def test_two_triggers_at_once_give_one_run_on_a_worker(settings: Settings, tmp_path: Path) -> None:
    root = settings.root
    applied(settings)
    tell(root, "remote", "add", "origin", str(root))
    known = {key: value for key, value in os.environ.items() if not key.startswith(("REMINT_", "PREFECT_"))}
    command = [sys.executable, "-c", "from flows.cli import main; main()", "worker", "--pool", "flows"]
    words = (tmp_path / "worker.log").open("w+")
    environment = known | {"REMINT_PREFECT_API": str(settings.prefect_api), "PYTHONUNBUFFERED": "1"}
    worker = subprocess.Popen(command, cwd=root, env=environment, stdout=words, stderr=subprocess.STDOUT)
    try:
        with client.opened(settings) as api:
            wait(lambda: worker.poll() is not None or bool(pools.online("flows")), "a worker")
            assert worker.poll() is None
            ids = [UUID(schedule.run_now(api, "nightly")[1]) for _ in range(2)]
            wait(lambda: all(api.read_flow_run(one).state.is_final() for one in ids), "two runs")  # type: ignore[union-attr]
            ended = [api.read_flow_run(one).state for one in ids]
            assert {one.name: one.last_state for one in schedule.every(api)}["nightly"] == "Completed"
            nightly = api.read_deployment_by_name("retraining/nightly")
            with pytest.raises(httpx.HTTPStatusError, match="422|409"):  # the pool's template has no variables
                api.create_flow_run_from_deployment(nightly.id, job_variables={"command": "touch x"})
    finally:
        worker.terminate()
        worker.wait(60)
        words.seek(0)
        sys.stdout.write(words.read())
    assert [state.name for state in ended if state] == ["Completed", "Completed"]
    (tag,) = tell(root, "tag", "--list", "run/*").split()
    said = sorted(str(state.message) for state in ended if state)
    assert said[0].startswith("nothing to do")
    assert said[1].startswith(tag)
    catalogue = database.open(settings)
    with catalogue.read() as session:
        assert [(run.tag, run.trigger, run.state) for run in session.query(Run)] == [(tag, "schedule", "done")]
    catalogue.close()


@pytest.mark.soak
def test_photographs_that_arrive_start_a_run_that_is_given_them(settings: Settings, tmp_path: Path) -> None:
    root, inbox = tmp_path / "project", tmp_path / "inbox"
    watched = arriving.project(root, str(inbox))
    stage = {
        "cmd": "python -m data.photos.collect --out artifacts/photos",
        "deps": ["${photos.source}"],
        "params": ["seed", "photos"],
        "outs": [{"artifacts/photos": {"persist": True}}],
    }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"photos": stage}}))
    shutil.copytree(ROOT / "data", root / "data", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    (root / "mlflow").mkdir()
    (root / "mlflow" / "promotion.yaml").write_text("{}\n")
    tell(root, "add", "-A")
    tell(root, "commit", "-q", "-m", "Have a stage")

    def remint(*words: str) -> dict:
        known = {key: value for key, value in os.environ.items() if not key.startswith(("REMINT_", "PREFECT_"))}
        known |= {"REMINT_PREFECT_API": str(settings.prefect_api), "REMINT_INCOMING": str(inbox)}
        command = [sys.executable, "-c", "from flows.cli import main; main()", *words, "--json"]
        environment = known | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    arriving.deliver(str(inbox), {f"{number}.jpg": arriving.photograph(number) for number in range(4)})
    seen = remint("watch", "--at-least", "4")
    assert seen["decision"] == {"trigger": "data", "why": "4 new photographs, 4 are enough"}
    (tag,) = tell(root, "tag", "--list", "run/*").split()
    listed = tell(root, "show", f"{tag}:data/incoming.arrivals").splitlines()
    assert len(listed) == 1 + 2 + 4
    assert "16" in tell(root, "show", f"{tag}:params.yaml").partition("per_photo:")[2].splitlines()[0]
    catalogue = database.open(watched)
    with catalogue.read() as session:
        assert [(run.tag, run.trigger, run.state) for run in session.query(Run)] == [(tag, "data", "done")]
        assert session.query(Photograph).count() == 6
        journal = {entry.kind: json.loads(entry.body) for entry in session.query(Entry)}
    catalogue.close()
    assert journal["trigger"]["run"] == tag.removeprefix("run/")
    again = watch.look(watched, Thresholds(at_least=4))
    assert (again.waiting, again.decision) == (0, None)

    # a run that a person starts is given what arrived as well
    arriving.deliver(str(inbox), {"4.jpg": arriving.photograph(4)})
    assert watch.look(watched, Thresholds()).waiting == 1
    second = remint("retrain")["tag"]
    assert tell(root, "show", f"{second}:data/incoming.arrivals").splitlines()[:7] == listed
    assert watch.look(watched, Thresholds()).waiting == 0


def test_a_notice_is_an_event_that_automations_can_start_from(settings: Settings) -> None:
    with client.opened(settings) as api:
        notify.tell(settings, [notify.Notice("drift", "photographs", "brightness moved", trigger="drift")])

        def found() -> list[dict]:
            wanted = {"filter": {"event": {"name": ["remint.drift"]}}}
            return api.request("POST", "/events/filter", json=wanted).json()["events"]

        wait(lambda: bool(found()), "the event")
        (event,) = found()
    assert event["resource"]["prefect.resource.id"] == "remint.drift.photographs"
    assert event["payload"]["text"] == "brightness moved"


def test_the_documented_automation_is_accepted(settings: Settings) -> None:
    from prefect.automations import AutomationCore

    applied(settings)
    _, _, text = (ROOT / "docs" / "triggers.md").read_text().partition("```yaml\n")
    wanted = yaml.safe_load(text.partition("```")[0])
    with client.opened(settings) as api:
        prove = {one.name: one.id for one in schedule.every(api)}["prove"]
        wanted["actions"][0]["deployment_id"] = prove
        made = api.create_automation(AutomationCore.model_validate(wanted))
        (found,) = api.read_automations_by_name(wanted["name"])
    assert found.id == made
    assert "remint.released" in found.trigger.expect  # type: ignore[union-attr]


def wait(until: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + 240
    while not until():
        assert time.monotonic() < end, f"{what} did not come"
        time.sleep(0.3)


def tell(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout.strip()


def test_a_server_that_is_not_named_or_does_not_answer_is_said(settings: Settings) -> None:
    with pytest.raises(UserError, match="name it with REMINT_PREFECT_API"):
        client.check(settings.model_copy(update={"prefect_api": None}))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        away = f"http://user:secret@127.0.0.1:{free.getsockname()[1]}/api"
    with pytest.raises(UserError, match="REMINT_PREFECT_API=http.*no Prefect server answers there") as error:
        client.check(settings.model_copy(update={"prefect_api": away}))
    assert "secret" not in str(error.value)


def test_a_schedule_gives_runs_on_the_server(settings: Settings) -> None:
    """Prefect's scheduler does this every minute; what goes wrong in it stands in the server's log alone."""
    applied(settings)
    with client.opened(settings) as api:
        found = api.request("POST", "/deployments/filter", json={}).json()
        nightly = next(one["id"] for one in found if one["name"] == "nightly")
        schedule.resume(api, "nightly")
        api.request("POST", f"/deployments/{nightly}/schedule", json={"max_runs": 3})
        wanted = {"deployments": {"id": {"any_": [nightly]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
        assert len(api.request("POST", "/flow_runs/filter", json=wanted).json()) >= 3
