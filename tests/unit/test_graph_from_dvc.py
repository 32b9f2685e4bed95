"""The graph as DVC reads it becomes small frozen stages in topological order."""

import pytest

from data.core.params import UserError
from flows.pipeline import graph
from flows.pipeline.graph import Meta, Stage

DVC_YAML = """\
stages:
  report:
    cmd: make report
    deps: [out/models]
    outs: [out/report.html]
  train:
    foreach: [small, base]
    do:
      cmd: make ${item}
      deps: [out/data, train.py]
      params: [seed, "net.${item}"]
      outs: ["out/models/${item}/model"]
      metrics: ["out/models/${item}/metrics.json"]
      meta: {pool: gpu, retries: 2, timeout: 60, model: "net-${item}"}
  data:
    cmd: make data
    deps: [data.py]
    outs: [out/data]
"""


@pytest.fixture
def repo(tmp_path):
    from dvc.repo import Repo

    (tmp_path / "params.yaml").write_text("seed: 1\nnet: {small: {width: 8}, base: {width: 16}}\n")
    (tmp_path / "dvc.yaml").write_text(DVC_YAML)
    with Repo.init(str(tmp_path), no_scm=True) as made:
        yield made


def test_stages_come_in_the_order_in_which_they_can_run(repo):
    names = [stage.name for stage in graph.read(repo)]
    assert sorted(names) == ["data", "report", "train@base", "train@small"]
    assert names[0] == "data"
    assert names[-1] == "report"


def test_what_a_stage_needs_is_found_through_every_step():
    stages = [Stage("a", ""), Stage("b", "", upstream=("a",)), Stage("other", ""), Stage("c", "", upstream=("b",))]
    assert graph.upstream(stages, ["c"]) == {"a", "b"}
    assert graph.upstream(stages, ["a"]) == set()


def test_a_foreach_stage_has_its_own_values(repo):
    train = next(stage for stage in graph.read(repo) if stage.name == "train@small")
    assert train == Stage(
        name="train@small",
        cmd="make small",
        deps=("out/data", "train.py"),
        params=("seed", "net.small"),
        outs=("out/models/small/model", "out/models/small/metrics.json"),
        metrics=("out/models/small/metrics.json",),
        meta=Meta(pool="gpu", retries=2, timeout=60, model="net-small"),
        upstream=("data",),
    )


def test_a_dependency_on_a_folder_of_outputs_waits_for_all_of_them(repo):
    report = graph.read(repo)[-1]
    assert sorted(report.upstream) == ["train@base", "train@small"]


def test_an_unknown_meta_key_names_the_near_one(repo, tmp_path):
    (tmp_path / "dvc.yaml").write_text(DVC_YAML.replace("retries:", "retrys:"))
    repo._reset()
    with pytest.raises(UserError, match=r"meta.retrys is not known; did you mean 'retries'"):
        graph.read(repo)


def test_a_graph_that_dvc_refuses_is_a_user_error(repo, tmp_path):
    (tmp_path / "dvc.yaml").write_text(DVC_YAML.replace("out/report.html", "out/data"))
    repo._reset()
    with pytest.raises(UserError, match=r"out/data"):
        graph.read(repo)


CHAIN = (
    Stage("a", "a"),
    Stage("b", "b", upstream=("a",)),
    Stage("c", "c", upstream=("b",)),
    Stage("lone", "lone", upstream=("a",)),
)


def test_what_lies_behind_a_stage_is_found_through_others():
    assert graph.downstream(CHAIN, ["a"]) == {"b", "c", "lone"}
    assert graph.downstream(CHAIN, ["lone"]) == set()


def test_the_longest_chain_behind_a_stage_is_counted():
    assert graph.chain_lengths(CHAIN) == {"a": 2, "b": 1, "c": 0, "lone": 0}
