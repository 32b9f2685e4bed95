"""`infra/prefect.yaml` is read strictly: what is wrong is named, with what may have been meant."""

import copy
from pathlib import Path

import pytest
import yaml

from data.core.params import UserError
from flows.schedules import declared

ROOT = Path(__file__).parents[2]
NIGHTLY = {
    "name": "nightly",
    "entrypoint": "flows.schedules.deployed.retraining",
    "work_pool": "flows",
    "schedules": [{"cron": "30 1 * * *"}],
}


def read(folder: Path, **changes: object) -> declared.Declared:
    path = folder / "prefect.yaml"
    path.write_text(yaml.safe_dump({"work_pools": {"flows": {}}, "deployments": [NIGHTLY], **changes}))
    return declared.read(path)


def test_the_committed_file_names_flows_that_take_its_parameters() -> None:
    path = ROOT / declared.FILE
    found = declared.read(path)
    assert {one.name: declared.load_flow(one, path).name for one in found.deployments} == {
        "cpu": "stage",
        "gpu": "stage",
        "nightly": "retraining",
        "watch": "data-watch",
        "prove": "reproduction",
        "collect": "collection",
    }
    assert {one.work_pool for one in found.deployments if one.name not in ("cpu", "gpu")} == {"flows"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"deploymnts": []}, "deploymnts is not known here; did you mean 'deployments'"),
        ({"deployments": [NIGHTLY | {"work_pol": "flows"}]}, "deployment nightly.work_pol is not a parameter"),
        ({"deployments": [NIGHTLY | {"work_pool": "flow"}]}, "no work pool flow in work_pools; did you mean 'flows'"),
        ({"deployments": [NIGHTLY, copy.deepcopy(NIGHTLY)]}, "two deployments are called nightly"),
        ({"deployments": [NIGHTLY | {"name": "../nightly"}]}, "a name has letters, digits and hyphens"),
        (
            {"deployments": [NIGHTLY | {"schedules": [{"cron": "61 1 * * *"}]}]},
            "nightly: the schedule '61 1",
        ),
        ({"deployments": [NIGHTLY | {"schedules": [{"cron": "nightly"}]}]}, "minute hour day-of-month month"),
        ({"deployments": [NIGHTLY | {"schedules": [{"cron": "30 1 * * *", "timezone": "Mars"}]}]}, "Mars"),
        ({"deployments": [NIGHTLY | {"schedules": [{"corn": "30 1 * * *"}]}]}, "did you mean 'cron'"),
        ({"deployments": [{"name": "nightly"}]}, "deployment nightly.entrypoint is missing"),
        ({"deployments": ["nightly"]}, "deployment 1 must be a section"),
        ({"deployments": [NIGHTLY | {"entrypoint": "flows/pipeline/run.py:run"}]}, "must name a module and a function"),
    ],
)
def test_a_mistake_names_the_entry(tmp_path: Path, changes: dict, said: str) -> None:
    with pytest.raises(UserError) as error:
        read(tmp_path, **changes)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"entrypoint": "flows.schedules.deploid.retraining"}, "cannot be imported"),
        ({"entrypoint": "flows.schedules.deployed.retrain"}, "has no flow retrain; did you mean 'retraining'"),
        ({"parameters": {"recipi": "evening"}}, "parameters.recipi is not a parameter of flows.schedules"),
        ({"parameters": {"recipe": 3}}, "deployment nightly: "),
    ],
)
def test_a_flow_that_is_not_there_or_takes_no_such_parameter_is_named(tmp_path: Path, changes: dict, said: str) -> None:
    found = read(tmp_path, deployments=[NIGHTLY | changes])
    with pytest.raises(UserError) as error:
        declared.load_flow(found.deployments[0], Path("prefect.yaml"))
    assert said in str(error.value)
    assert "\n" not in str(error.value)
