"""A stage's key before it runs is the one DVC gives its execution, also where dvc.lock does not know its deps yet."""

import subprocess

import pytest
from dvc.repo import Repo

from flows.pipeline import keys
from flows.pipeline.store import Store

pytestmark = pytest.mark.integration
GRAPH = """\
stages:
  copy:
    cmd: cat old.txt new.txt > out.txt
    deps: [new.txt, old.txt]
    outs: [out.txt]
"""


def test_a_dep_that_was_added_since_the_last_run_gives_the_key_that_the_run_will_have(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    monkeypatch.chdir(tmp_path)
    for name in ("old", "new"):
        (tmp_path / f"{name}.txt").write_text(name)
    (tmp_path / "dvc.yaml").write_text(GRAPH.replace("new.txt, ", "").replace(" new.txt", ""))
    with Repo.init(str(tmp_path)) as repo:
        repo.reproduce()
    (tmp_path / "dvc.yaml").write_text(GRAPH)
    store = Store(tmp_path)
    try:
        (stage,) = store.stages
        before = store.key(stage, {dep: store.content(stage, dep, {}) for dep in stage.deps})
    finally:
        store.close()
    with Repo(str(tmp_path)) as repo:
        repo.reproduce()
        (ran,) = repo.stage.collect("copy")
        assert before == keys.of_entry(keys._written(ran))
