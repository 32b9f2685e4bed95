"""A run is recorded once, whole, and with alarms where a stage was seen with two outputs for one input."""

import copy
import json
import multiprocessing
import shutil
import socket
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from sqlalchemy import func, select

from flows.catalogue import database, journal, queries, record
from flows.catalogue.registered import Registered
from flows.catalogue.schema import DataVersion, Edge, Entry, Execution, ModelVersion, Photograph, Run
from flows.pipeline import lock as stages
from flows.pipeline.families import Model
from flows.pipeline.graph import Stage
from flows.pipeline.run import RunInfo, StageResult
from flows.settings import Settings
from flows.stage.spending import Usage

pytestmark = pytest.mark.integration
BEACH, WHEEL = "aaaaaaaaaaaa", "bbbbbbbbbbbb"
STARTED = datetime(2026, 11, 21, 1, 24, tzinfo=UTC)
STAGES = (
    Stage("scenes", "render"),
    Stage("photos", "collect"),
    Stage("validate", "check", upstream=("scenes", "photos")),
    Stage("tokenizer", "train", upstream=("scenes",)),
)
TOKENIZER = Model("tokenizer", Path("artifacts/tokenizer/model"), "", "tokenizer", "images", "tokenizer", "tokenizer")


def entry(cmd: str, deps: dict[str, str], outs: dict[str, str], **params: Any) -> dict[str, Any]:
    """A stage's part of dvc.lock."""

    def item(path: str, digest: str) -> dict[str, Any]:
        return {"path": path, "hash": "md5", "md5": digest, "size": 100}

    written = {"params": {"params.yaml": params}} if params else {}
    return {
        "cmd": cmd,
        "deps": [item(*one) for one in deps.items()],
        **written,
        "outs": [item(*one) for one in outs.items()],
    }


LOCK = {
    "scenes": entry("render", {"render.py": "c1"}, {"artifacts/scenes": "5ce.dir"}, count=3),
    "photos": entry("collect", {"collect.py": "c2"}, {"artifacts/photos": "f070.dir"}),
    "validate": entry("check", {"artifacts/scenes": "5ce.dir"}, {"artifacts/validate/report.json": "0c"}),
    "tokenizer": entry("train", {"artifacts/scenes": "5ce.dir"}, {"artifacts/tokenizer/model": "70c.dir"}, lr=0.1),
}


def write_lock(workspace: Path, lock: dict[str, Any]) -> None:
    (workspace / "dvc.lock").write_text(yaml.safe_dump({"schema": "2.0", "stages": lock}))


def write_manifest(folder: Path, keys: list[str], sources: list[str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"key": keys, "source": sources}), folder / "manifest.parquet")


def write_report(workspace: Path, **failed: str) -> None:
    """validation's report; `failed`: suite -> severity of what failed in it."""
    suites = [
        {"suite": name, "results": [{"severity": failed.get(name, "critical"), "success": name not in failed}]}
        for name in ("scenes", "photos", "classes")
    ]
    (workspace / "artifacts/validate").mkdir(parents=True, exist_ok=True)
    (workspace / "artifacts/validate/report.json").write_text(json.dumps({"suites": suites}))


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """What a run leaves in its worktree, as far as the catalogue reads it."""
    from dvc.repo import Repo

    root = tmp_path_factory.mktemp("finished")
    Repo.init(str(root), no_scm=True).close()
    write_lock(root, LOCK)
    write_manifest(root / "artifacts/scenes", ["00000000", "00000001", "00000002"], ["mitsuba"] * 3)
    tiles = [f"{BEACH}-s01-r000-c000", f"{BEACH}-s01-r000-c001", f"{WHEEL}-s04-r000-c000"]
    write_manifest(root / "artifacts/photos", tiles, ["beach.jpg", "beach.jpg", "wheel.png"])
    write_report(root, photos="warning")
    return root


@pytest.fixture
def workspace(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "workspace"))


@pytest.fixture
def settings(tmp_path: Path, database_address: str) -> Settings:
    return Settings(root=tmp_path, catalogue=database_address)


@pytest.fixture
def catalogue(settings: Settings) -> database.Catalogue:
    return database.open(settings)


def run_of(workspace: Path, number: int = 1, started: datetime = STARTED) -> RunInfo:
    name = f"2026112{number}T012434Z-1a2b3c4"
    return RunInfo(name, f"run/{name}", f"{number}" * 40, "b" * 40, workspace, False, "p" * 64, started, "retrain")


def results_of(**actions: str) -> list[StageResult]:
    return [StageResult(stage.name, actions.get(stage.name, "ran"), 1.5) for stage in STAGES]


def version(number: int, weights: str, **tags: str) -> Registered:
    return Registered(TOKENIZER, number, weights, {}, {"psnr": 24.1}, "m1", tags=tags)


def count(catalogue: database.Catalogue, *tables: type) -> list[int]:
    with catalogue.read() as session:
        return [session.scalar(select(func.count()).select_from(table)) or 0 for table in tables]


def rows(catalogue: database.Catalogue, query: Any) -> list[Any]:
    with catalogue.read() as session:
        found = list(session.scalars(query))
        session.expunge_all()
    return found


def test_a_run_is_recorded_with_its_data_stages_models_and_edges(catalogue, settings, workspace):
    assert record.record_run(catalogue, settings, run_of(workspace), STAGES, results_of(), [version(1, "w" * 64)]) == []
    scenes, photos = rows(catalogue, select(DataVersion).order_by(DataVersion.stage.desc()))
    assert (scenes.stage, scenes.digest, scenes.rows, scenes.bytes, scenes.verdict) == (
        "scenes", "5ce.dir", 3, 100, "passed",
    )  # fmt: skip
    assert (photos.rows, photos.verdict) == (3, "passed")  # a warning is no failure
    held = rows(catalogue, select(Photograph).order_by(Photograph.photo))
    assert [(one.data_id, one.photo, one.name) for one in held] == [
        (photos.id, BEACH, "beach.jpg"),
        (photos.id, WHEEL, "wheel.png"),
    ]
    (run,) = rows(catalogue, select(Run))
    assert (run.seq, run.state, run.commit, run.started) == (1, "done", "1" * 40, STARTED)
    assert len(run.environment) == 64
    assert run.machine
    executions = {one.stage: one for one in rows(catalogue, select(Execution))}
    assert set(executions) == {stage.name for stage in STAGES}
    assert executions["tokenizer"].input_digest == stages.input_digest(LOCK["tokenizer"])
    assert executions["tokenizer"].output_digest == stages.output_digest(LOCK["tokenizer"])
    (made,) = rows(catalogue, select(ModelVersion))
    assert (made.family, made.name, made.number, made.weights, made.run_id, made.metrics) == (
        "images", "tokenizer", 1, "w" * 64, run.id, {"psnr": 24.1},
    )  # fmt: skip
    (edge,) = rows(catalogue, select(Edge))
    assert (edge.kind, edge.name, edge.digest) == ("data", "scenes", "5ce.dir")


def test_recording_again_changes_nothing_but_adds_what_was_missing(catalogue, settings, workspace):
    tables = (DataVersion, Photograph, Run, Execution, ModelVersion, Edge, Entry)
    run = run_of(workspace)
    record.record_run(catalogue, settings, run, STAGES, results_of())
    before = count(catalogue, *tables)
    assert before == [2, 2, 1, 4, 0, 0, 0]
    completed = results_of(**{stage.name: "current" for stage in STAGES})
    for _ in range(2):
        record.record_run(catalogue, settings, run, STAGES, completed, [version(1, "w" * 64)])
    assert count(catalogue, *tables) == [2, 2, 1, 4, 1, 1, 0]
    assert {one.action for one in rows(catalogue, select(Execution))} == {"ran"}  # the first word counts


def test_eight_processes_that_record_one_run_at_once_record_it_once(catalogue, settings, workspace):
    catalogue.close()
    fork = multiprocessing.get_context("fork")

    def work() -> None:
        one = database.open(settings)
        record.record_run(one, settings, run_of(workspace), STAGES, results_of(), [version(1, "w" * 64)])

    processes = [fork.Process(target=work) for _ in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 8
    assert count(catalogue, DataVersion, Photograph, Run, Execution, ModelVersion, Edge) == [2, 2, 1, 4, 1, 1]


def test_a_restart_of_the_server_in_the_middle_of_recording_loses_and_doubles_nothing(
    postgres_server, tmp_path, workspace, monkeypatch
):
    settings = Settings(root=tmp_path, catalogue=postgres_server.empty_database())
    catalogue = database.open(settings)
    cuts = iter([postgres_server.restart])
    write_run = record._run

    def cut(*arguments: Any) -> None:
        write_run(*arguments)
        next(cuts, lambda: None)()

    monkeypatch.setattr(record, "_run", cut)
    record.record_run(catalogue, settings, run_of(workspace), STAGES, results_of(), [version(1, "w" * 64)])
    assert next(cuts, None) is None
    assert count(catalogue, DataVersion, Photograph, Run, Execution, ModelVersion) == [2, 2, 1, 4, 1]


def test_a_failed_run_is_recorded_with_what_was_executed(catalogue, settings, workspace):
    failed = results_of(validate="failed", tokenizer="skipped")
    write_report(workspace, scenes="critical")
    assert record.record_run(catalogue, settings, run_of(workspace), STAGES, failed) == []
    (run,) = rows(catalogue, select(Run))
    assert run.state == "failed"
    executions = {one.stage: one for one in rows(catalogue, select(Execution))}
    assert set(executions) == {"scenes", "photos", "validate"}
    assert (executions["validate"].action, executions["validate"].output_digest) == ("failed", "")
    assert executions["scenes"].output_digest
    verdicts = {one.stage: one.verdict for one in rows(catalogue, select(DataVersion))}
    assert verdicts == {"scenes": "failed", "photos": "passed"}


def test_a_failed_expectation_about_several_data_sets_fails_all_of_them(catalogue, settings, workspace):
    write_report(workspace, classes="critical")
    record.record_run(catalogue, settings, run_of(workspace), STAGES, results_of(validate="failed"))
    assert {one.verdict for one in rows(catalogue, select(DataVersion))} == {"failed"}


def test_data_is_unchecked_until_a_run_validates_it(catalogue, settings, workspace):
    broken = results_of(photos="failed", validate="skipped", tokenizer="skipped")
    record.record_run(catalogue, settings, run_of(workspace, 1), STAGES, broken)
    assert [(one.stage, one.verdict) for one in rows(catalogue, select(DataVersion))] == [("scenes", "unchecked")]
    record.record_run(catalogue, settings, run_of(workspace, 2), STAGES, results_of())
    assert {one.verdict for one in rows(catalogue, select(DataVersion))} == {"passed"}


def test_a_data_version_knows_the_one_before_it_and_runs_keep_their_order_on_any_clock(catalogue, settings, workspace):
    for number, digest in enumerate(("5ce.dir", "5cf.dir", "5d0.dir", "5cf.dir"), 1):
        lock = copy.deepcopy(LOCK)
        lock["scenes"]["outs"][0]["md5"] = digest
        lock["scenes"]["params"]["params.yaml"]["count"] = digest
        write_lock(workspace, lock)
        run = run_of(workspace, number, started=STARTED - timedelta(days=number))
        record.record_run(catalogue, settings, run, STAGES, results_of())
    found = rows(catalogue, select(DataVersion).where(DataVersion.stage == "scenes").order_by(DataVersion.id))
    assert [one.digest for one in found] == ["5ce.dir", "5cf.dir", "5d0.dir"]
    assert [one.parent_id for one in found] == [None, found[0].id, found[1].id]
    with catalogue.read() as session:
        past = queries.last_runs(session, 3)
    assert [one.id for one in past] == [run_of(workspace, number).id for number in (4, 3, 2)]


def test_what_stages_cost_is_recorded_also_of_one_that_failed_or_was_stopped(catalogue, settings, workspace):
    used = Usage(12.5, 20.0, 25.0, bytes_in=5 << 30, bytes_out=6 << 30, peak_memory=7 << 30)
    done, failed, stopped, current = results_of(photos="failed", validate="stopped", tokenizer="current")
    results = [*(replace(one, usage=used, host="worker-7") for one in (done, failed, stopped)), current]
    record.record_run(catalogue, settings, run_of(workspace), STAGES, results)
    found = {one.stage: one for one in rows(catalogue, select(Execution))}
    for name in ("scenes", "photos", "validate"):
        one = found[name]
        assert (one.machine_seconds, one.cpu_seconds, one.gpu_seconds) == (12.5, 20.0, 25.0)
        assert (one.bytes_in, one.bytes_out, one.peak_memory, one.host) == (5 << 30, 6 << 30, 7 << 30, "worker-7")
    assert (found["validate"].action, found["validate"].input_digest) == ("stopped", "")
    assert (found["tokenizer"].machine_seconds, found["tokenizer"].host) == (None, socket.gethostname())
    assert [one.state for one in rows(catalogue, select(Run))] == ["failed"]


def test_a_stage_that_went_on_from_a_checkpoint_is_recorded_as_resumed(catalogue, settings, workspace, tmp_path):
    log = tmp_path / "tokenizer.log"
    log.write_text("Running stage 'tokenizer'\ngoing on from step 400 (last.ckpt)\n")
    results = [replace(one, log=log if one.name == "tokenizer" else None) for one in results_of()]
    record.record_run(catalogue, settings, run_of(workspace), STAGES, results)
    actions = {one.stage: one.action for one in rows(catalogue, select(Execution))}
    assert actions == {"scenes": "ran", "photos": "ran", "validate": "ran", "tokenizer": "resumed"}


def other_output(workspace: Path, stage: str, **changes: Any) -> None:
    """The same run of `stage` with another output."""
    lock = copy.deepcopy(LOCK)
    lock[stage]["outs"][0]["md5"] = "0ther.dir"
    lock[stage].update(changes)
    write_lock(workspace, lock)


def test_two_outputs_for_one_input_are_an_alarm_that_names_the_stage_and_both(catalogue, settings, workspace):
    first, second = run_of(workspace, 1), run_of(workspace, 2)
    record.record_run(catalogue, settings, first, STAGES, results_of())
    other_output(workspace, "tokenizer")
    (alarm,) = record.record_run(catalogue, settings, second, STAGES, results_of())
    before = stages.output_digest(LOCK["tokenizer"])
    assert alarm.stage == "tokenizer"
    assert alarm.input == stages.input_digest(LOCK["tokenizer"])
    assert alarm.outputs[0] == before != alarm.outputs[1]
    assert alarm.runs == (first.id, second.id)
    for named in ("tokenizer", before[:12], alarm.outputs[1][:12], first.id, second.id):
        assert named in str(alarm)
    with catalogue.read() as session:
        (noted,) = queries.alarms(session)
        assert journal.verify(session) == []
    assert noted.subject == "tokenizer"
    assert noted.body["outputs"] == list(alarm.outputs)


def test_the_same_alarm_stands_in_the_journal_once(catalogue, settings, workspace):
    record.record_run(catalogue, settings, run_of(workspace, 1), STAGES, results_of())
    other_output(workspace, "tokenizer")
    for number in (2, 2, 3):
        record.record_run(catalogue, settings, run_of(workspace, number), STAGES, results_of())
    write_lock(workspace, LOCK)
    assert record.record_run(catalogue, settings, run_of(workspace, 4), STAGES, results_of())
    assert count(catalogue, Entry) == [1]


@pytest.mark.parametrize(
    "changes",
    [{"cmd": "train --more"}, {"params": {"params.yaml": {"lr": 0.2}}}, {"deps": LOCK["photos"]["deps"]}],
)
def test_another_output_for_another_input_is_no_alarm(catalogue, settings, workspace, changes):
    record.record_run(catalogue, settings, run_of(workspace, 1), STAGES, results_of())
    other_output(workspace, "tokenizer", **changes)
    assert record.record_run(catalogue, settings, run_of(workspace, 2), STAGES, results_of()) == []


def test_a_stage_without_inputs_may_give_what_it_likes(catalogue, settings, workspace):
    """DVC runs such a stage every time, because it fetches something from outside."""
    for number, digest in ((1, "one"), (2, "two")):
        lock = {**LOCK, "photos": entry("fetch", {}, {"artifacts/photos": digest})}
        write_lock(workspace, lock)
        assert record.record_run(catalogue, settings, run_of(workspace, number), STAGES, results_of()) == []


def test_two_results_in_dvcs_run_cache_are_an_alarm(workspace, tmp_path):
    """Made with DVC itself, so that its key is the one that is looked for."""
    (workspace / "render.py").write_text("")
    made = "artifacts/time"
    stage = {"cmd": f"date +%N > {made}", "deps": ["render.py"], "outs": [made]}
    (workspace / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"scenes": stage}}))
    (workspace / "dvc.lock").unlink()
    outputs = []
    for _ in range(2):
        subprocess.run([sys.executable, "-m", "dvc", "repro", "-q", "--force"], cwd=workspace, check=True)
        outputs.append(stages.output_digest(stages.read_lock(workspace)["scenes"]))
    settings = Settings(root=tmp_path)
    ran = [StageResult("scenes", "ran", 1.0)]
    (alarm,) = record.record_run(database.open(settings), settings, run_of(workspace), STAGES[:1], ran)
    assert (alarm.stage, alarm.outputs) == ("scenes", tuple(outputs))
    assert alarm.runs[0] == record.RUN_CACHE


def test_two_versions_may_have_one_weights_digest(catalogue, settings, workspace):
    both = [version(1, "w" * 64, **{"data.scenes": "5ce.dir"}), version(2, "w" * 64, **{"data.scenes": "5cf.dir"})]
    record.record_run(catalogue, settings, run_of(workspace), STAGES, results_of(), both[:1])
    record.record_run(catalogue, settings, run_of(workspace, 2), STAGES, results_of(), both[1:])
    made = rows(catalogue, select(ModelVersion).order_by(ModelVersion.number))
    assert [(one.number, one.weights) for one in made] == [(1, "w" * 64), (2, "w" * 64)]
    edges = rows(catalogue, select(Edge).order_by(Edge.version_id))
    assert [(one.version_id, one.digest) for one in edges] == [(made[0].id, "5ce.dir"), (made[1].id, "5cf.dir")]


def test_a_version_belongs_to_the_run_that_made_it_and_takes_its_tag_and_numbers_when_they_come(
    catalogue, settings, workspace
):
    first, second = run_of(workspace, 1), run_of(workspace, 2)
    record.record_run(catalogue, settings, first, STAGES, results_of())
    known = replace(version(1, "w" * 64, git_tag=first.tag), new=False)
    record.record_run(catalogue, settings, second, STAGES, results_of(), [known])
    tagged = replace(known, tags={"gto_tag": "tokenizer@v1.0.0"}, metrics={"psnr": 25.0})
    record.record_run(catalogue, settings, second, STAGES, results_of(), [tagged])
    (made,) = rows(catalogue, select(ModelVersion))
    assert (made.run_id, made.tag, made.metrics) == (first.id, "tokenizer@v1.0.0", {"psnr": 25.0})


def test_a_parent_model_is_an_edge_by_its_weights(catalogue, settings, workspace):
    child = replace(version(1, "w" * 64), parents={"depth-teacher": "t" * 64})
    record.record_run(catalogue, settings, run_of(workspace), STAGES, results_of(), [child])
    parents = rows(catalogue, select(Edge).where(Edge.kind == "parent"))
    assert [(one.name, one.digest) for one in parents] == [("depth-teacher", "t" * 64)]


def test_a_workspace_without_a_lock_is_a_run_in_which_nothing_ended_well(catalogue, settings, workspace):
    (workspace / "dvc.lock").unlink()
    results = results_of(scenes="failed", photos="skipped", validate="skipped", tokenizer="skipped")
    record.record_run(catalogue, settings, run_of(workspace), STAGES, results)
    assert count(catalogue, Run, Execution, DataVersion) == [1, 1, 0]
