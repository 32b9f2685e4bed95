"""What somebody deleted in MLflow is found, with what helps, and that helps."""

import pytest

from data.core.params import UserError
from flows.doctor import checks
from flows.pipeline.reference import PRODUCTION
from flows.release import of_run, pointers
from models.registry import logged_model, model_id

pytestmark = pytest.mark.integration


def said(places):
    return [str(result.finding) for result in checks.examine(places)]


def test_what_was_deleted_is_registered_again_by_promoting_its_run(places):
    client, run = places.mlflow(), pointers.log(places.bucket, "images")[-1].run
    client.delete_model_version("tokenizer", "1")
    (found,) = said(places)
    assert found.startswith("MLflow: tokenizer@production is not set, should be v1 (this registry has no version with")
    assert found.endswith(f"; remint promote images {run})")
    outcome = of_run.promote_run(places, "images", run, "ann", "")
    assert (outcome.state, outcome.left) == ("standing", ())
    there = client.get_model_version_by_alias("tokenizer", PRODUCTION)
    assert int(there.version) == 3  # MLflow gives no number twice
    assert said(places) == []

    client.delete_run(there.run_id)
    of_run.promote_run(places, "images", run, "ann", "")
    assert client.get_run(there.run_id).info.lifecycle_stage == "active"

    client.delete_logged_model(model_id(there))
    with pytest.raises(UserError, match="tokenizer v3: MLflow's model m-.* was deleted; remint doctor says what helps"):
        logged_model(client, there)
    assert [result.repaired for result in checks.examine(places, repair=True)] == [True]
    assert logged_model(client, there).model_id == model_id(there)
    assert said(places) == []

    client.delete_registered_model("tokenizer")
    assert len(said(places)) == 1
    assert of_run.promote_run(places, "images", run, "ann", "").left == ()
    assert int(client.get_model_version_by_alias("tokenizer", PRODUCTION).version) == 1
    assert said(places) == []
