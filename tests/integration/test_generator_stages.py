"""The generator's stages from tokens to evaluation, as their commands run them, at a size of seconds."""

import json
import multiprocessing
import os
import runpy
import sys

import pyarrow.parquet as pq
import pytest

from models.core.saved import weights_digest
from models.metrics import metric
from tests import code, tokenized

pytestmark = pytest.mark.integration

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["models.generator.train", "models.generator.evaluate"])
PARAMS = {
    "seed": 0,
    "threads": 1,
    "generator": {
        "maskgit": {
            "net": {"dim": 16, "depth": 1, "heads": 2, "dropout": 0.1},
            "sampler": {"steps": 4, "guidance": 1.0, "decay": "linear", "temperature": 1.0, "anneal": True},
            "steps": 6,
            "batch": 8,
            "warmup": 2,
            "muon_lr": 0.02,
            "lr": 0.003,
            "weight_decay": 0.03,
            "label_drop": 0.1,
            "ema": 0.9,
            "clip": 1.0,
            "precision": "auto",
        }
    },
    "evaluate": {"maskgit": {"samples_per_class": 8, "probe_steps": 12, "probe_batch": 8}},
}
SIZE = {"dim": 16, "depth": 2, "heads": 2, "mlp": 24, "dropout": 0.1, "stream": 1}
DECODERS = {"samba": {**SIZE, "window": 3, "state": 4}, "llama": SIZE}
for kind, net in DECODERS.items():
    same = PARAMS["generator"]["maskgit"]
    PARAMS["generator"][kind] = {**same, "net": net, "sampler": {"guidance": 1.0, "temperature": 0.9}}
    PARAMS["evaluate"][kind] = PARAMS["evaluate"]["maskgit"]


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    """A folder with tiny scenes, an untrained tokenizer, its tokens, and two trainings on them."""
    folder = tmp_path_factory.mktemp("generator")
    (folder / "params.yaml").write_text(json.dumps(PARAMS))
    tokenized.make_scenes(folder / "scenes")
    tokenized.make_tokenizer(folder / "tokenizer" / "model", seed=0)
    tokenized.make_tokens(folder / "tokens", weights_digest(folder / "tokenizer"))
    for out in ("once", "twice"):
        assert stage(folder, "train", tokens="tokens", tokenizer="tokenizer/model", kind="maskgit", out=out)[0] == 0
    return folder


def stage(folder, verb, **arguments):
    words = [word for name, value in arguments.items() for word in (f"--{name}", str(value))]
    process = FORKS.Process(target=command, args=(folder, f"models.generator.{verb}", words))
    process.start()
    process.join()
    return process.exitcode, (folder / "stderr").read_text()


def command(folder, module, words):
    """A stage as its command runs it, in this process: forked from one that has imported it already."""
    os.chdir(folder)
    code.put(folder)
    os.environ["MLFLOW_TRACKING_URI"] = ""
    os.dup2(os.open("stderr", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), 2)
    sys.argv = [module, *words]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def files(folder):
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_training_twice_writes_the_same_bytes(workplace):
    once, twice = files(workplace / "once"), files(workplace / "twice")
    assert {"model/model.safetensors", "model/config.json", "metrics.json", "curves.csv", "figures/samples.png"} == (
        once.keys()
    )
    assert once == twice


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_is_trained_to_the_same_bytes_twice_and_evaluated(workplace, kind):
    for out in (f"{kind}-once", f"{kind}-twice"):
        code, err = stage(workplace, "train", tokens="tokens", tokenizer="tokenizer/model", kind=kind, out=out)
        assert code == 0, err
    assert files(workplace / f"{kind}-once") == files(workplace / f"{kind}-twice")
    given = {"model": f"{kind}-once/model", "tokenizer": "tokenizer/model", "scenes": "scenes"}
    code, err = stage(workplace, "evaluate", **given, out=f"{kind}-judged")
    assert code == 0, err
    metrics = json.loads((workplace / f"{kind}-judged/metrics.json").read_text())
    assert {"gfwd", "recall", "class_agreement"} <= metrics.keys()


def test_the_model_names_its_tokenizer_and_its_way_to_draw(workplace):
    config = json.loads((workplace / "once/model/config.json").read_text())
    assert config["tokenizer"] == weights_digest(workplace / "tokenizer")
    assert config["sampler"]["steps"] == 4
    assert config["classes"] == tokenized.CLASSES


def test_evaluation_writes_declared_metrics_and_a_row_per_sample(workplace):
    code, err = stage(
        workplace, "evaluate", model="once/model", tokenizer="tokenizer/model", scenes="scenes", out="judged"
    )
    assert code == 0, err
    metrics = json.loads((workplace / "judged/metrics.json").read_text())
    for name in metrics:
        assert metric(name).better in ("higher", "lower")
    assert {"gfwd", "real_fwd", "precision", "recall", "class_agreement", "probe_accuracy"} <= metrics.keys()
    rows = pq.read_table(workplace / "judged/per_sample.parquet")
    assert rows.column("class_asked").to_pylist() == [c for c in range(3) for _ in range(8)]
    assert {p.name for p in (workplace / "judged/figures").iterdir()} == {"samples.png", "nearest.png"}


def test_another_tokenizer_is_refused_with_both_digests(workplace):
    tokenized.make_tokenizer(workplace / "other" / "model", seed=1)
    code, err = stage(
        workplace, "evaluate", model="once/model", tokenizer="other/model", scenes="scenes", out="refused"
    )
    assert code == 2
    assert weights_digest(workplace / "tokenizer") in err
    assert weights_digest(workplace / "other") in err
    assert "Traceback" not in err


def test_missing_tokens_are_one_line(workplace):
    code, err = stage(workplace, "train", tokens="tokenizer", tokenizer="tokenizer", kind="maskgit", out="nothing")
    assert code == 2
    assert "tokenizer/tokens.safetensors does not exist; run the tokens stage first" in err
    assert "Traceback" not in err


def test_tokens_of_another_codebook_are_refused(workplace):
    tokenized.make_tokens(workplace / "foreign", "0" * 64)
    code, err = stage(workplace, "train", tokens="foreign", tokenizer="tokenizer", kind="maskgit", out="nothing")
    assert code == 2
    assert f"made by the tokenizer {'0' * 64}, but tokenizer holds" in err
