"""MLflow's experiments: which stages share one, and what its page shows of their runs."""

from __future__ import annotations

import json
from typing import Any

from models.generator import kinds
from models.tracking import embedded

FAMILIES = {  # stage name up to "@" -> MLflow experiment: runs that compare side by side share one
    "scenes": "data",
    "photos": "data",
    "validate": "data",
    "proxy": "tokenizer",
    "tokenizer-warmup": "tokenizer",
    "tokenizer": "tokenizer",
    "tokens": "tokenizer",
    "evaluate@tokenizer": "tokenizer",
    "generator": "generator",
    "depth-teacher": "depth",
    "pseudo-labels": "depth",
    "depth-student": "depth",
    "evaluate@depth": "depth",
}

ABOUT = {  # experiment -> what it holds, and its columns; MLflow sorts them, and the headline metric is to come first
    "data": (
        "What models learn from: rendered scenes, photographs, and what validation said.",
        ("data/photographs", "data/samples"),
    ),
    "tokenizer": (
        "Images as a short row of tokens, and back.",
        ("eval/psnr", "eval/rfwd", "eval/ssim"),
    ),
    "generator": (
        "Images drawn in the tokenizer's tokens, by class.",
        ("eval/gfwd", "eval/precision", "eval/recall"),
    ),
    "depth": (
        "A teacher of exact depth, and students of its labels.",
        ("eval/small/delta1", "eval/teacher/delta1"),
    ),
}
VIEW = "headline"  # key of the saved view
GATE, RELEASE, REPRODUCED = TAGS = ("gate", "release", "reproduced")  # of a model's runs and version


def experiment(client: Any, name: str) -> str:
    """Return the id of an experiment, making it if needed; two processes may do so at once.

    With the embedded database, artifacts lie beside it; a server decides for itself. Its page says what it holds, and
    links to a view of its runs that has columns for the headline metrics, which MLflow's own has not. One that somebody
    deleted is restored: MLflow keeps its name taken, and takes no run in it.
    """
    found = client.get_experiment_by_name(name)
    if found is not None and found.lifecycle_stage == "deleted":
        client.restore_experiment(found.experiment_id)
    if found is None:
        database = embedded.database_file(client.tracking_uri)
        location = embedded.location(database, name) if database else None
        try:
            client.create_experiment(name, artifact_location=location)
        except Exception:
            if client.get_experiment_by_name(name) is None:
                raise
        found = client.get_experiment_by_name(name)
    identifier = str(found.experiment_id)
    for key, value in page(identifier, name).items():
        if key not in found.tags:
            client.set_experiment_tag(identifier, key, value)
    return identifier


def restore(client: Any) -> list[str]:
    """Restore the experiments of all stages that somebody deleted; returns their names."""
    found = {name: client.get_experiment_by_name(name) for name in ABOUT}
    deleted = [name for name, one in found.items() if one is not None and one.lifecycle_stage == "deleted"]
    for name in deleted:
        experiment(client, name)
    return deleted


def page(identifier: str, name: str) -> dict[str, str]:
    """Tags by which MLflow shows a description of an experiment and offers a view of its runs under "Views"."""
    if name not in ABOUT:
        return {}
    about, metrics = ABOUT[name]
    columns = [*(f"metrics.`{metric}`" for metric in metrics), *(f"tags.`{tag}`" for tag in TAGS)]
    state = {
        "orderByKey": "attributes.start_time",
        "orderByAsc": False,
        "selectedColumns": [*columns, "attributes.`Models`"],
    }
    view = {"name": "Headline metrics", "createdAt": 0, "updatedAt": 0, "state": json.dumps(state)}
    link = f"#/experiments/{identifier}/runs?viewStateShareKey={VIEW}&workflowType=machine_learning"
    return {
        "mlflow.note.content": f"{about} [Its runs with headline metrics, gates and releases]({link}).",
        f"mlflow.sharedViewState.{VIEW}": json.dumps(view),
        "mlflow.experimentKind": "custom_model_development",
    }


def family_of(stage: str) -> str:
    """Return the experiment of a stage; a stage nobody listed gets one of its own name."""
    if stage.removeprefix("evaluate@") in kinds.names():
        return "generator"
    return FAMILIES.get(stage) or FAMILIES.get(stage.partition("@")[0]) or stage
