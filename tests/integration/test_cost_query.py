"""What the catalogue says runs cost and saved, and what it expects stages to cost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from data.core.params import UserError
from flows.catalogue import costs, database
from flows.catalogue.schema import Execution, Run
from flows.cli import main
from flows.pipeline import parameters
from flows.pipeline.plan import Plan, Step
from flows.settings import Settings
from flows.show import cost, table
from flows.show.cost import Prices
from flows.stage import spending
from flows.stage.spending import Usage

pytestmark = pytest.mark.integration
START = datetime(2026, 11, 21, tzinfo=UTC)
TRAINED = Usage(3600, 7200, 3600, 5_000_000, 9_000_000_000, 1_200_000_000)


@pytest.fixture
def catalogue(tmp_path: Path, database_address: str) -> Iterator[database.Catalogue]:
    opened = database.open(Settings(root=tmp_path, catalogue=database_address))
    yield opened
    opened.close()


def add_run(catalogue: database.Catalogue, number: int, *executions: dict[str, Any], **about: Any) -> str:
    """A run of these executions; each is a stage's name and what differs from one that ran for an hour."""
    name = f"2026112{number}T000000Z-aaaaaaa"
    known = {"machine": "x86_64 avx512", "parameters": "p1", "state": "done", "trigger": "retrain"}
    fixed = {"tag": f"run/{name}", "commit": "c", "base_commit": "b", "environment": "e"}
    times = {"started": START, "ended": START + timedelta(minutes=75)}
    with catalogue.begin() as session:
        session.add(Run(id=name, seq=number, **fixed, **times, **(known | about)))
        session.flush()
        for one in executions:
            session.add(Execution(run_id=name, **executed(**one)))
    return name


def executed(stage: str, usage: Usage | None = TRAINED, action: str = "ran", inputs: str = "i1") -> dict[str, Any]:
    columns = {column: getattr(usage, field) for column, field in costs.FIELDS.items()} if usage else {}
    about = {"stage": stage, "action": action, "seconds": 1.0, "host": "h"}
    broken = action in ("failed", "stopped")
    return {**about, "input_digest": "" if broken else inputs, "output_digest": "" if broken else "o", **columns}


def of(catalogue: database.Catalogue, run: str) -> costs.RunCost:
    with catalogue.read() as session:
        (found,) = costs.of_runs(session, [run])
    return found


def expected(catalogue: database.Catalogue, *stages: str, machine: str = "x86_64 avx512") -> dict[str, Usage]:
    with catalogue.read() as session:
        return {name: one.usage for name, one in costs.estimates(session, stages, machine, "p1").items()}


def test_a_run_cost_what_its_stages_did_also_those_that_failed(catalogue):
    run = add_run(catalogue, 1, {"stage": "scenes"}, {"stage": "proxy", "action": "failed"}, state="failed")
    found = of(catalogue, run)
    assert [(one.stage, one.action, one.usage) for one in found.stages] == [
        ("scenes", "ran", TRAINED),
        ("proxy", "failed", TRAINED),
    ]
    assert found.spent == Usage(7200, 14400, 7200, 10_000_000, 18_000_000_000, 1_200_000_000)
    assert found.saved == Usage()


def test_a_restored_stage_saved_what_it_cost_when_it_was_made(catalogue):
    add_run(catalogue, 1, {"stage": "scenes", "inputs": "i1"}, {"stage": "proxy", "inputs": "i2"})
    little = Usage(2, 1)
    again = {"stage": "scenes", "action": "restored", "usage": little}
    other = {"stage": "proxy", "action": "current", "usage": None, "inputs": "never seen"}
    found = of(catalogue, add_run(catalogue, 2, again, other))
    assert [(one.stage, one.usage, one.saved) for one in found.stages] == [
        ("scenes", little, TRAINED),
        ("proxy", None, None),
    ]
    assert (found.spent, found.saved) == (little, TRAINED)


def test_a_run_is_found_by_id_tag_or_as_the_newest_and_a_wrong_one_is_named(catalogue):
    with catalogue.read() as session:
        assert costs.find(session, None) is None
    first, second = add_run(catalogue, 1), add_run(catalogue, 2)
    with catalogue.read() as session:
        assert costs.find(session, None) == second
        assert costs.find(session, f"run/{first}") == costs.find(session, first) == first
        with pytest.raises(UserError, match=f"no run '{first}x' is in the catalogue; did you mean '{first}'"):
            costs.find(session, f"{first}x")
        with pytest.raises(UserError, match=f"the newest: {second}, {first}"):
            costs.find(session, "nonsense")
        assert [one.run for one in costs.newest(session, 1)] == [second]


def test_the_command_without_any_run_says_how_to_make_one(make_toy, tmp_path, monkeypatch):
    monkeypatch.chdir(make_toy(tmp_path).root)
    invoke = CliRunner().invoke
    assert invoke(main, ["cost"]).stdout == "no run has been recorded here yet: remint retrain\n"
    assert json.loads(invoke(main, ["cost", "--json"]).stdout) == {"runs": []}
    wrong = invoke(main, ["cost", "run/x", "--json"])
    assert (wrong.exit_code, wrong.stdout) == (2, "")
    assert wrong.stderr == "error: no run 'x': none has been recorded here yet; the first: remint retrain\n"


def test_a_stage_is_expected_to_cost_what_it_did_the_last_time_it_ran(catalogue):
    add_run(catalogue, 1, {"stage": "scenes", "usage": Usage(10)}, {"stage": "proxy", "usage": Usage(7)})
    add_run(catalogue, 2, {"stage": "scenes", "usage": Usage(20)}, {"stage": "proxy", "action": "failed"})
    add_run(catalogue, 3, {"stage": "scenes", "usage": Usage(1), "action": "restored"})
    assert expected(catalogue, "scenes", "proxy", "tokens") == {"scenes": Usage(20), "proxy": Usage(7)}


def test_the_same_class_of_machine_and_then_the_same_parameters_count_more_than_the_last_time(catalogue):
    add_run(catalogue, 1, {"stage": "scenes", "usage": Usage(10)})
    add_run(catalogue, 2, {"stage": "scenes", "usage": Usage(20)}, parameters="p2")
    add_run(catalogue, 3, {"stage": "scenes", "usage": Usage(30)}, machine="aarch64")
    assert expected(catalogue, "scenes")["scenes"].seconds == 10
    assert expected(catalogue, "scenes", machine="aarch64")["scenes"].seconds == 30
    assert expected(catalogue, "scenes", machine="riscv")["scenes"].seconds == 30


def test_a_training_is_expected_to_take_longer_with_more_steps(catalogue):
    run = add_run(catalogue, 1, {"stage": "proxy"}, {"stage": "scenes"})

    def steps(stage: str, commit: str) -> tuple[int, int] | None:
        assert commit == "c"
        return (1000, 3000) if stage == "proxy" else None

    with catalogue.read() as session:
        found = costs.estimates(session, ["proxy", "scenes"], "x86_64 avx512", "p2", steps)
    longer = replace(TRAINED, seconds=3 * 3600, cpu_seconds=3 * 7200, gpu_seconds=3 * 3600)
    assert found == {
        "proxy": spending.Estimate(longer, run, (1000, 3000)),
        "scenes": spending.Estimate(TRAINED, run),
    }


def test_a_plan_says_what_its_times_are_taken_from():
    steps = (Step("scenes", "current"), Step("proxy", "run", ("proxy.steps 1000 -> 3000",)), Step("new", "run"))
    text = table.plan_text(Plan(steps), {"proxy": spending.Estimate(Usage(seconds=90), "r1", (1000, 3000))})
    assert "likely: what the stage took in r1" in text
    assert "proxy: in proportion to its steps, 1,000 then and 3,000 now" in text
    assert "and 1 stage that never ran" in text


@pytest.mark.parametrize(
    ("sections", "steps"),
    [
        (["seed", "threads", "proxy"], 1000),
        (["warmup"], 2000),
        (["tokenizer"], 450),
        (["generator.maskgit"], 1400),
        (["depth.teacher"], 2200),
        (["depth.student.small"], 1300),
        (["scenes"], None),
        (["evaluate.maskgit", "generator.maskgit.sampler"], None),
    ],
)
def test_the_steps_of_a_training_are_its_own_and_not_its_samplers(sections, steps):
    assert cost.trained_for(parameters.read(Path(__file__).parents[2]), sections) == steps


def test_what_a_stopped_attempt_has_spent_is_not_expected_again(catalogue):
    add_run(catalogue, 1, {"stage": "proxy", "usage": Usage(100, 200, 50)})
    add_run(catalogue, 2, {"stage": "proxy", "usage": Usage(30, 60, 15), "action": "stopped"}, state="failed")
    assert expected(catalogue, "proxy")["proxy"] == Usage(70, 140, 35)
    add_run(catalogue, 3, {"stage": "proxy", "usage": Usage(90, 180, 45), "action": "stopped"}, state="failed")
    assert expected(catalogue, "proxy")["proxy"] == Usage()
    add_run(catalogue, 4, {"stage": "proxy", "usage": Usage(5, 9), "action": "resumed"})
    assert expected(catalogue, "proxy")["proxy"] == Usage(100, 200, 50)  # the next one starts from nothing


def test_an_execution_of_before_it_was_measured_is_worth_its_seconds(catalogue):
    """As the migration leaves it: machine seconds and nothing else."""
    run = add_run(catalogue, 1, {"stage": "scenes"}, {"stage": "proxy", "usage": None, "action": "failed"})
    with catalogue.begin() as session:
        for row in session.query(Execution).filter_by(stage="scenes"):
            row.cpu_seconds = row.gpu_seconds = row.bytes_in = row.bytes_out = row.peak_memory = None
    found = of(catalogue, run)
    assert [one.usage for one in found.stages] == [Usage(seconds=3600), None]
    assert expected(catalogue, "scenes") == {"scenes": Usage(seconds=3600)}
    assert cost.table(found, Prices())[1:] == [
        ("scenes", "ran", "60 min"),
        ("proxy", "failed", "-"),
        ("in all", "", "60 min"),
    ]


def test_a_table_has_each_stage_its_sum_what_was_saved_and_with_prices_money(catalogue):
    add_run(catalogue, 1, {"stage": "scenes"}, {"stage": "proxy"})
    run = add_run(catalogue, 2, {"stage": "scenes", "action": "restored", "usage": Usage(2, 1)}, {"stage": "proxy"})
    found = of(catalogue, run)
    small = Usage(2, 1)
    lines = cost.table(found, Prices())
    assert lines[0] == ("stage", "", "machine", "CPU", "GPU", "fetched", "pushed", "memory", "saved")
    assert lines[1] == ("scenes", "restored", "2 s", "1 s", "-", "-", "-", "-", "60 min")
    assert lines[3][:4] == ("in all", "", "60 min 02 s", "2 h")
    priced = cost.table(found, Prices(cpu=0.05, gpu=2.5))
    assert priced[0][-2:] == ("price", "saved")
    assert priced[2][-2:] == ("2.60", "")  # 2 hours of CPU time, one of a GPU
    assert priced[3][-2:] == ("2.60", "60 min (2.60)")
    assert cost.text([found], Prices()).startswith(f"run {run}: done, retrain, took 75 min\nstage ")
    assert Prices(cpu=0.05).of_usage(small) == pytest.approx(0.05 / 3600)
    values = cost.to_json(found, Prices(gpu=2.5))
    assert values["spent"]["price"] == values["saved"]["price"] == 2.5
    assert values["stages"][1]["spent"]["peak_memory"] == 1_200_000_000
    assert "price" not in cost.to_json(found, Prices())["spent"]
