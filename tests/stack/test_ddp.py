"""A training over several nodes: the Kubernetes job asks for what torchrun needs, and the script on two processes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.stack import manifests

ROOT = Path(__file__).parents[2]
(SERVICE,) = [entry for entry in manifests.written("ddp") if entry["kind"] == "Service"]
(JOB,) = [entry for entry in manifests.written("ddp") if entry["kind"] == "Job"]
(NODE,) = JOB["spec"]["template"]["spec"]["containers"]
VALUES = {entry["name"]: entry.get("value") for entry in NODE["env"]}


def test_the_nodes_are_told_how_many_they_are_and_have_as_many_gpus_as_they_start_processes():
    assert JOB["spec"]["completions"] == JOB["spec"]["parallelism"] == int(VALUES["NODES"])
    assert NODE["resources"]["limits"]["nvidia.com/gpu"] == int(VALUES["GPUS"])


def test_they_meet_at_the_first_pod_s_name():
    assert JOB["spec"]["completionMode"] == "Indexed"
    pod = JOB["spec"]["template"]["spec"]
    assert VALUES["MASTER"] == f"{JOB['metadata']['name']}-0.{SERVICE['metadata']['name']}"
    assert pod["subdomain"] == SERVICE["metadata"]["name"]
    assert (SERVICE["spec"]["clusterIP"], SERVICE["spec"]["publishNotReadyAddresses"]) == ("None", True)
    assert SERVICE["spec"]["selector"] == {"job-name": JOB["metadata"]["name"]}
    assert SERVICE["spec"]["ports"][0]["port"] == NODE["ports"][0]["containerPort"]
    assert f"MASTER_PORT:-{NODE['ports'][0]['containerPort']}" in (ROOT / "infra" / "docker" / "ddp.sh").read_text()


TRAIN = '''\
"""Two processes add up their ranks + 1; the first writes the sum and what it read."""
import sys
from pathlib import Path
from torch import distributed, ones
distributed.init_process_group("gloo")
found = ones(1) * (distributed.get_rank() + 1)
distributed.all_reduce(found)
if distributed.get_rank() == 0:
    Path(sys.argv[2]).write_text(f"{int(found)} {Path(sys.argv[1]).read_text()}")
distributed.destroy_process_group()
'''
GRAPH = """\
stages:
  before:
    cmd: python -c "open('input.txt', 'w').write('here')"
    outs: [input.txt]
  training:
    cmd: python -m train input.txt model.txt
    deps: [train.py, input.txt]
    outs: [model.txt]
"""


@pytest.mark.soak
@pytest.mark.integration
def test_two_nodes_train_together_and_the_run_cache_has_what_came_out(tmp_path):
    def run(*command, cwd, **variables):
        subprocess.run(command, cwd=cwd, env={**os.environ, **variables}, check=True, timeout=200)

    bin_folder = Path(sys.executable).parent
    environment = {"PATH": f"{bin_folder}:{os.environ['PATH']}", "REMINT_REMOTE": str(tmp_path / "remote")}
    first = tmp_path / "first"
    first.mkdir()
    (first / "train.py").write_text(TRAIN)
    (first / "dvc.yaml").write_text(GRAPH)
    for command in (
        ("git", "init", "--quiet"),
        ("dvc", "init", "--quiet"),
        ("dvc", "repro", "--quiet", "before"),
        ("dvc", "remote", "add", "--local", "--default", "there", str(tmp_path / "remote")),
        ("dvc", "push", "--quiet", "before"),
        ("git", "add", "--all"),
        ("git", "commit", "--quiet", "--message", "Start"),
    ):
        run(*command, cwd=first, **environment)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=first, capture_output=True, text=True, check=True).stdout
    scripts = ROOT / "infra" / "docker"
    nodes = [
        subprocess.Popen(
            [str(scripts / "worker.sh"), str(scripts / "ddp.sh")],
            env={
                **{key: value for key, value in os.environ.items() if not key.startswith("AWS_")},
                **environment,
                **{"REMINT_ORIGIN": str(first), "REMINT_CLONE": str(tmp_path / f"node{number}")},
                **{"REMINT_CACHE": str(tmp_path / f"cache{number}"), "STAGE": "training", "COMMIT": head.strip()},
                **{"NODES": "2", "NODE": str(number), "GPUS": "1", "MASTER": "127.0.0.1", "MASTER_PORT": "29571"},
            },
        )
        for number in (0, 1)
    ]
    assert [node.wait(200) for node in nodes] == [0, 0]
    assert (tmp_path / "node0" / "model.txt").read_text() == "3 here"
    assert not (tmp_path / "node1" / "model.txt").exists()
    run("dvc", "pull", "--quiet", "before", cwd=first, **environment)
    run("dvc", "repro", "--quiet", "--pull", "training", cwd=first, CUDA_VISIBLE_DEVICES="", **environment)
    assert (first / "model.txt").read_text() == "3 here"  # alone it could not: there is nobody to meet
