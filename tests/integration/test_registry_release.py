"""A run's models in the registry: registered, tagged, released, and loaded again by other programs."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import save_file

import models
from data.core import manifest, samples, shards
from data.core.params import UserError
from flows.doctor import checks
from flows.pipeline.run import RunInfo
from flows.release import of_run, outcome, registry, stores, tags
from flows.settings import Settings
from models import registry as models_registry
from models.depth import net as depth
from models.generator.load import build, config
from models.maskgit.params import Sampling
from models.registry import logged_model
from models.tokenizer.tokenizer import Tokenizer
from models.tracking import training_run

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]
SIZE, TOKENS, CODES = 16, 4, 8
POLICY = {
    "tokenizer": {"required": ["psnr"], "thresholds": {"psnr": 16}},
    "depth-small": {"thresholds": {"delta1": 0.5}},
}
METRICS: dict[str, Any] = {
    "tokenizer": {"psnr": 21.0, "ssim": 0.7},
    "maskgit": {"gfwd": 12.0, "class_agreement": 80.0},
    "depth": {"teacher": {"delta1": 0.9, "delta1_glass": 0.6}, "small": {"delta1": 0.4}},
}


def git(root: Path, *words: str) -> str:
    return subprocess.run(["git", "-C", root, *words], check=True, capture_output=True, text=True).stdout.strip()


def save(folder: Path, net: torch.nn.Module, about: dict) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file({k: v.contiguous().clone() for k, v in net.state_dict().items()}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(about))


def make_models(artifacts: Path, seed: int) -> None:
    """All four models, tiny and untrained, saved as their stages save them, and their evaluations."""
    torch.manual_seed(seed)
    titok = {"image_size": SIZE, "patch": 8, "width": 8, "encoder_layers": 1, "decoder_layers": 1, "heads": 1}
    titok |= {"latents": TOKENS, "token_dim": 4, "codes": CODES, "proxy_grid": 4, "proxy_codes": 8}
    parts: dict[str, Any] = {"titok": titok, "pixels": {"channels": [8, 8], "blocks": 1, "stem": 2, "code_dim": 4}}
    save(artifacts / "tokenizer/model", Tokenizer(**parts), parts)
    shape = {"codes": CODES, "classes": 3, "length": TOKENS, "dim": 8, "depth": 1, "heads": 1}
    sampling = Sampling(steps=2, guidance=1.0, decay="linear", temperature=1.0)
    parent = registry.sha256(artifacts / "tokenizer/model/model.safetensors")
    about = config("maskgit", shape, sampling, ["room", "glass", "wires"], parent)
    save(artifacts / "generator/maskgit/model", build("maskgit", shape), about)
    for folder in ("depth-teacher", "depth-student/small"):
        net = depth.build(
            image_size=SIZE, patch_size=8, dim=8, layers=4, heads=1, taps=(1, 2, 3, 4), factors=(4, 2, 1, 0.5),
            neck=(4, 4, 4, 4), fusion=4, head=4,
        )  # fmt: skip
        save(artifacts / folder / "model", net, depth.config_of(net))
    for name, values in METRICS.items():
        (artifacts / "evaluate" / name).mkdir(parents=True, exist_ok=True)
        (artifacts / "evaluate" / name / "metrics.json").write_text(json.dumps(values))


def make_scenes(folder: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
    entries = shards.write(folder, "scenes", [("a", {"rgb.png": samples.encode_png(image)})], per_shard=1)
    about = {"source": "test", "licence": "CC0-1.0", "label": 0, "class_name": "room", "split": "val"}
    manifest.write([manifest.row(entries[0], image, **about)], folder)


def graph() -> dict:
    """Of the real graph's `artifacts:` those of `make_models`, and stages of the same outs that do nothing."""
    artifacts = yaml.safe_load((ROOT / "dvc.yaml").read_text())["artifacts"]
    del artifacts["samba"]
    scenes = "artifacts/scenes"
    trained = {name: {"cmd": "true", "deps": [scenes], "outs": [entry["path"]]} for name, entry in artifacts.items()}
    return {"stages": {"scenes": {"cmd": "true", "outs": [scenes]}, **trained}, "artifacts": artifacts}


@pytest.fixture(scope="module")
def project(tmp_path_factory) -> Path:
    """A repository whose graph has run: outputs in DVC's cache, dvc.yaml and dvc.lock committed."""
    root = tmp_path_factory.mktemp("project")
    git(root, "init", "-q")
    dvc(root, "init", "-q")
    (root / "dvc.yaml").write_text(yaml.safe_dump(graph()))
    for package in ("data", "models"):
        (root / package).symlink_to(ROOT / package)
    (root / "mlflow").mkdir()
    (root / "mlflow/promotion.yaml").write_text(yaml.safe_dump(POLICY))
    (root / ".gitignore").write_text("/.remint\n/data\n/models\n")
    make_scenes(root / "artifacts/scenes")
    return root


def dvc(root: Path, *words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "dvc", *words], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def finished_run(root: Path, seed: int) -> RunInfo:
    """What the flow hands over when a run is done."""
    make_models(root / "artifacts", seed)
    dvc(root, "commit", "-q", "--force")
    git(root, "add", "-A")
    git(root, "commit", "-q", "-m", f"run {seed}")
    commit = git(root, "rev-parse", "HEAD")
    return RunInfo(f"r{seed}", f"run/r{seed}", commit, commit, root, False, "p", datetime.now(UTC), "test")


@pytest.fixture(scope="module")
def settings(project) -> Settings:
    return Settings(root=project)


@pytest.fixture(scope="module")
def first(project, settings):
    """The first run, all the way: a tracked training run, registration, decision, aliases, tags."""
    run = finished_run(project, 1)
    weights = registry.sha256(project / "artifacts/tokenizer/model/model.safetensors")
    before = os.environ.get("MLFLOW_TRACKING_URI")
    os.environ["MLFLOW_TRACKING_URI"] = settings.mlflow_uri
    with training_run.open_run("tokenizer", {"lr": 1}, {}) as trained:
        trained.tags({training_run.WEIGHTS: weights})
    with training_run.open_run("evaluate@tokenizer", {}, {}) as evaluated:
        evaluated.results(METRICS["tokenizer"])
    with stores.opened(settings) as places:
        yield run, trained, released(places, run), places
    os.environ.pop("MLFLOW_TRACKING_URI")
    if before is not None:
        os.environ["MLFLOW_TRACKING_URI"] = before


def released(places: stores.Stores, run: RunInfo) -> outcome.Release:
    """The last steps of the flow but its report."""
    return of_run.release(places, run, of_run.judge(places, run, of_run.register(places, run, [], [])))


def client(settings):
    return training_run.connect(settings.mlflow_uri)[0]


def test_a_version_carries_digests_commit_data_and_parents(first, settings, project):
    run, _, made, _ = first
    tokenizer = client(settings).get_model_version("tokenizer", "1")
    maskgit = client(settings).get_model_version("maskgit", "1")
    student = client(settings).get_model_version("depth-small", "1")
    digests = {one.model.name: one.weights for one in made.registered}
    assert tokenizer.tags["weights"] == digests["tokenizer"]
    assert tokenizer.tags["git_tag"] == run.tag
    made_of = {one.name: logged_model(client(settings), one).tags for one in (tokenizer, maskgit, student)}
    assert made_of["tokenizer"]["git_commit"] == run.commit
    assert made_of["tokenizer"]["dvc_lock"] == registry.sha256(project / "dvc.lock")
    lock = yaml.safe_load((project / "dvc.lock").read_text())
    assert made_of["tokenizer"]["data.scenes"] == lock["stages"]["scenes"]["outs"][0]["md5"]
    assert made_of["maskgit"]["parent.tokenizer"] == digests["tokenizer"]
    assert made_of["depth-small"]["parent.depth-teacher"] == digests["depth-teacher"]


def test_a_versions_page_shows_its_metric_its_gate_and_its_release_in_few_tags(first, settings):
    found = {name: client(settings).get_model_version(name, "1") for name in ("maskgit", "depth-small")}
    shown = {"metric": "gfwd 12", "gate": "passed", "release": "images #1", "gto_tag": "maskgit@v1.0.0"}
    assert shown.items() <= found["maskgit"].tags.items()
    assert len(found["maskgit"].tags) == len(shown) + len(("reproduced", "weights", "config", "git_tag"))
    assert found["depth-small"].tags["gate"] == "refused"
    assert found["depth-small"].tags["release"] == "none"
    assert found["maskgit"].description.startswith("gfwd 12: ")
    assert client(settings).get_run(found["maskgit"].run_id).data.tags["gate"] == "passed"


def test_a_version_belongs_to_the_run_that_trained_it_and_shows_its_evaluation(first, settings):
    _, trained, *_ = first
    version = client(settings).get_model_version("tokenizer", "1")
    assert version.run_id == trained.run_id
    teacher = client(settings).get_model_version("depth-teacher", "1")
    metrics = {m.key: m.value for m in logged_model(client(settings), teacher).metrics}
    assert metrics == {"eval/teacher/delta1": 0.9}  # a bar for each class would hide it


def test_a_metric_stands_once_on_the_evaluations_run_and_not_on_the_trainings(first, settings):
    _, trained, *_ = first
    version = client(settings).get_model_version("tokenizer", "1")
    metrics = logged_model(client(settings), version).metrics
    evaluation = {one.run_id for one in metrics}.pop()
    assert client(settings).get_run(evaluation).data.tags["stage"] == "evaluate@tokenizer"
    assert client(settings).get_run(evaluation).data.tags["gate"] == "passed"
    assert {f"eval/{name}" for name in METRICS["tokenizer"]} == {one.key for one in metrics}
    assert all(len(client(settings).get_metric_history(evaluation, one.key)) == 1 for one in metrics)
    assert client(settings).get_run(trained.run_id).data.metrics == {}


def test_the_family_that_passes_is_in_production_and_the_other_says_why(first, settings):
    _, _, made, _ = first
    assert {one.family: one.state for one in made.outcomes} == {"depth": "refused", "images": "released"}
    aliases = {m.name: dict(m.aliases) for m in client(settings).search_registered_models()}
    assert int(aliases["tokenizer"]["production"]) == int(aliases["maskgit"]["production"]) == 1
    assert aliases["depth-small"] == aliases["depth-teacher"] == {}
    reasons = {one.model: one.reason for one in made.decisions}
    assert reasons["depth-small"] == "delta1 >= 0.5 failed: 0.4"


def test_gto_shows_the_versions_and_their_stage(first, project):
    there = tags.read(project)
    assert there.keys() >= {"tokenizer@v1.0.0", "maskgit@v1.0.0", "depth-small@v1.0.0", "tokenizer#production#1"}
    assert git(project, "cat-file", "-t", "tokenizer@v1.0.0") == "tag"  # annotated
    shown = subprocess.run(
        [Path(sys.executable).with_name("gto"), "show", "--json"],
        cwd=project,
        capture_output=True,
        text=True,
        check=True,
    )
    state = json.loads(shown.stdout)
    assert state["tokenizer"]["version"] == "v1.0.0"
    assert state["tokenizer"]["stage"] == {"production": "v1.0.0"}
    assert state["depth-small"]["stage"] == {"production": None}


def test_dvc_brings_a_model_by_its_stage(first, project, tmp_path):
    dvc(project, "artifacts", "get", ".", "tokenizer", "--stage", "production", "-o", str(tmp_path / "got"))
    weights = client(Settings(root=project)).get_model_version("tokenizer", "1").tags["weights"]
    assert registry.sha256(tmp_path / "got/model.safetensors") == weights


def test_models_load_by_alias_version_and_folder(first, project):
    tokenizer = models.load("tokenizer@production")
    assert tokenizer.encode(torch.zeros(2, 3, SIZE, SIZE)).shape == (2, TOKENS)
    assert models.load("maskgit@v1").classes == ("room", "glass", "wires")
    net = models.load(project / "artifacts/depth-student/small/model")
    assert depth.predict(net, np.zeros((1, SIZE, SIZE, 3), np.uint8)).shape == (1, SIZE, SIZE)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json"])
@pytest.mark.parametrize("damage", [lambda raw: raw[:-1] + bytes([raw[-1] ^ 1]), lambda raw: raw[:-1], None])
def test_a_version_whose_files_are_not_those_of_its_tags_is_not_loaded(first, project, name, damage):
    version = client(Settings(root=project)).get_model_version("tokenizer", "1")
    path = models_registry.fetch("tokenizer@production") / name
    right = path.read_bytes()
    try:
        path.unlink() if damage is None else path.write_bytes(damage(right))
        found = registry.sha256(path) if damage else "no such file"
        expected = version.tags["weights" if name == "model.safetensors" else "config"]
        for reference in ("tokenizer@production", "tokenizer@v1"):
            with pytest.raises(UserError, match=f"{name} was changed: expected sha256 {expected}, found {found}"):
                models.load(reference)
    finally:
        path.write_bytes(right)


def test_a_version_without_the_tag_of_its_weights_is_not_loaded(first, project):
    registered = client(Settings(root=project))
    weights = registered.get_model_version("maskgit", "1").tags["weights"]
    registered.delete_model_version_tag("maskgit", "1", "weights")
    try:
        with pytest.raises(UserError, match=r"maskgit@v1 \(v1\) is not loaded: the version has no tag 'weights'"):
            models.load("maskgit@v1")
    finally:
        registered.set_model_version_tag("maskgit", "1", "weights", weights)


@pytest.mark.parametrize(
    ("reference", "says"),
    [
        ("tokeniser@production", "no model 'tokeniser' in the registry; did you mean 'tokenizer'?"),
        ("tokenizer@prodution", "no version or alias 'prodution'; did you mean 'production'?"),
        ("tokenizer@v7", "no version or alias 'v7'"),
        ("no/such/folder", "neither a folder nor NAME@ALIAS"),
    ],
)
def test_a_wrong_reference_names_the_near_one(first, reference, says):
    with pytest.raises(UserError, match=says.replace("?", r"\?")):
        models.load(reference)


OUTSIDE = """
import json, sys, types
import numpy as np
import mlflow
out = {}
sys.modules["models"] = types.ModuleType("models")  # as of another project
try:
    mlflow.pyfunc.load_model("models:/tokenizer@production")
except ImportError as error:
    out["foreign"] = str(error)
del sys.modules["models"]
image = np.zeros((2, 16, 16, 3), np.uint8)
found = mlflow.pyfunc.load_model("models:/tokenizer@production").predict(image)
out["tokenizer"] = {name: [list(value.shape), str(value.dtype)] for name, value in found.items()}
maskgit = mlflow.pyfunc.load_model("models:/maskgit@production")
drawn = [maskgit.predict(np.array([0, 2]), params={"seed": seed}) for seed in (1, 1, 2)]
out["maskgit"] = [list(drawn[0].shape), str(drawn[0].dtype), bool((drawn[0] == drawn[1]).all())]
disparity = mlflow.pyfunc.load_model("models:/depth-teacher/1").predict(image)
out["depth"] = [list(disparity.shape), str(disparity.dtype)]
import models
out["code"] = models.__file__
print(json.dumps(out))
"""


@pytest.mark.slow
def test_another_program_loads_every_family_outside_the_repository(first, settings, tmp_path):
    """Without this repository on its path, only with the libraries."""
    environment = {**os.environ, "MLFLOW_TRACKING_URI": settings.mlflow_uri, "PYTHONSAFEPATH": "1"}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [sys.executable, "-c", OUTSIDE], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["foreign"] == "another package `models` or `data` was imported before; this model brings its own"
    assert found["tokenizer"] == {"tokens": [[2, TOKENS], "int64"], "reconstructions": [[2, SIZE, SIZE, 3], "uint8"]}
    assert found["maskgit"] == [[2, SIZE, SIZE, 3], "uint8", True]
    assert found["depth"] == [[2, SIZE, SIZE], "float32"]
    assert "/code/models/" in found["code"]


def test_no_registered_file_is_a_pickle(first, settings):
    version = client(settings).get_model_version("maskgit", "1")
    folder = Path(logged_model(client(settings), version).artifact_location.removeprefix("file://"))
    names = [p.name for p in folder.rglob("*") if p.is_file()]
    assert names.count("model.safetensors") == 2  # its own and its tokenizer's
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".bin", ".ckpt", ".pyc"))]
    about = yaml.safe_load((folder / "MLmodel").read_text())
    assert about["signature"]["inputs"]
    assert about["saved_input_example_info"]
    assert "torch==" in (folder / "requirements.txt").read_text()


def test_the_same_weights_are_not_registered_tagged_or_released_twice(first, project):
    run, _, _, places = first
    before = tags.read(project)
    again = released(places, replace(run, id="again", tag="run/again"))
    assert [(one.version, one.new) for one in again.registered] == [(1, False)] * 4
    assert {one.family: one.state for one in again.outcomes} == {"depth": "refused", "images": "standing"}
    assert tags.read(project) == before


def test_a_tag_that_was_made_and_not_noted_is_found_again(first, settings, project):
    """As after a stop between the two."""
    _, _, _, places = first
    client(settings).delete_model_version_tag("maskgit", "1", tags.GTO_TAG)
    before = tags.read(project)
    run = first[0]
    again = of_run.register(places, run, [], [])
    assert {one.tags[tags.GTO_TAG] for one in again.registered} >= {"maskgit@v1.0.0"}
    assert client(settings).get_model_version("maskgit", "1").tags[tags.GTO_TAG] == "maskgit@v1.0.0"
    assert tags.read(project) == before


def test_an_assignment_that_was_deleted_is_made_again(first, project):
    _, _, _, places = first
    git(project, "tag", "-d", "maskgit#production#1")
    found = [one for one in checks.examine(places, repair=True) if one.finding.subject.startswith("maskgit")]
    assert [(one.finding.subject, one.repaired) for one in found] == [("maskgit#production", True)]
    assert "maskgit#production#1" in tags.read(project)


def test_a_second_run_replaces_the_pair(first, settings, project):
    *_, places = first
    made = released(places, finished_run(project, 2))
    assert {one.family: one.state for one in made.outcomes} == {"depth": "refused", "images": "released"}
    assert tags.read(project).keys() >= {"tokenizer@v2.0.0", "maskgit@v2.0.0", "tokenizer#production#2"}
    aliases = {m.name: {k: int(v) for k, v in m.aliases.items()} for m in client(settings).search_registered_models()}
    assert aliases["tokenizer"] == aliases["maskgit"] == {"production": 2, "previous": 1}
