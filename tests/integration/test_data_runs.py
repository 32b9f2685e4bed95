"""What a run did with data, in MLflow's experiment "data"."""

import json

import pytest

from flows.pipeline import run_record
from flows.pipeline.run import StageResult
from flows.pipeline.store import Store
from flows.release import tags
from flows.retrain import data_runs

pytestmark = pytest.mark.integration


def test_a_run_that_made_data_shows_it_in_an_experiment_of_its_own(places, capsys):
    root, client = places.settings.root, places.mlflow()
    newest = max(name for name in tags.read(root) if name.startswith("run/")).removeprefix("run/")
    ran = run_record.load(places.settings, newest).run
    store = Store(root)
    try:
        stages = store.stages
    finally:
        store.close()
    (root / "artifacts/validate").mkdir(exist_ok=True)
    report = {"success": True, "expectations": 107, "warnings": 1, "critical_failed": 0, "suites": []}
    (root / "artifacts/validate/report.json").write_text(json.dumps(report))
    results = [StageResult(one.name, "ran" if one.name == "scenes" else "current", 2.0) for one in stages]
    data_runs.track(client, ran, stages, results)
    assert "does not show" not in capsys.readouterr().err
    found = client.search_runs([client.get_experiment_by_name("data").experiment_id])
    assert [one.data.tags["stage"] for one in found] == ["scenes"]
    assert found[0].info.run_name.endswith(" scenes")
    assert found[0].data.metrics["data/samples"] == 1
    assert found[0].data.tags["gate"] == "unchecked"
    data_runs.track(client, ran, stages, [StageResult(one.name, "current", 0.0) for one in stages])
    assert len(client.search_runs([found[0].info.experiment_id])) == 1
