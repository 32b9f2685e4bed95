"""The description of an environment: what it holds, how two differ, and how a commit carries it."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from flows import environment, repository

ROOT = Path(__file__).parents[2]


def test_the_description_names_what_is_installed_here():
    here = environment.describe(ROOT)
    assert here.torch == metadata.version("torch")
    assert here.python.endswith(".".join(map(str, sys.version_info[:3])))
    assert len(here.lock) == 64
    assert here.machine.split(" ")[0] == here.arch


def test_two_descriptions_of_one_machine_have_one_digest():
    assert environment.describe(ROOT).digest == environment.describe(ROOT).digest


def test_the_kernels_are_those_that_torch_chooses():
    import torch

    capability = torch.backends.cpu.get_cpu_capability().lower()
    assert environment.describe(ROOT).kernels == capability


def test_describing_imports_no_torch_and_is_quick():
    code = "import sys; from pathlib import Path; from flows import environment\n"
    code += "environment.describe(Path()); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
    began = time.process_time()
    environment.describe(ROOT)
    assert time.process_time() - began < 0.5


def test_a_package_that_is_not_as_locked_is_named(tmp_path):
    (tmp_path / "requirements.lock").write_text(
        f"# a comment\nnumpy=={metadata.version('numpy')}\n"
        "PyYAML==0.1\nno-such.package==1.0  # why\ntorch==2.13.0+cu999\n"
    )
    found = environment.describe(tmp_path).unlocked
    assert found["pyyaml"] == f"{metadata.version('PyYAML')}, locked 0.1"
    assert found["no-such-package"] == "not installed, locked 1.0"
    assert "numpy" not in found
    assert ("torch" in found) == (not metadata.version("torch").startswith("2.13.0"))


def test_every_difference_is_named_with_both_values():
    here = replace(environment.describe(ROOT), variables={})
    then = replace(
        here,
        torch="2.9.0+cu128",
        features=(*here.features, "amx_tile"),
        variables={"OMP_NUM_THREADS": "3"},
        unlocked={"numpy": "1.0, locked 2.0"},
    )
    assert environment.differences(here, here) == []
    said = [str(one) for one in environment.differences(then, here)]
    assert said == [
        f"torch: 2.9.0+cu128 then, {here.torch} now",
        "processor features: amx_tile then, none now",
        "OMP_NUM_THREADS: 3 then, none now",
        "numpy: 1.0, locked 2.0 then, none now",
    ]
    assert then.digest != here.digest


def test_thread_variables_are_part_of_it(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    assert environment.describe(ROOT).variables["OMP_NUM_THREADS"] == "7"


def test_a_machine_without_a_lock_or_a_proc_filesystem_is_described_too(tmp_path, monkeypatch):
    monkeypatch.setattr(environment, "_processor", dict)
    here = environment.describe(tmp_path)
    assert (here.lock, here.unlocked, here.features) == ("", {}, ())


def test_a_commit_carries_the_environment_of_its_run(tmp_path):
    here = environment.describe(ROOT)
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True, env=os.environ)
    (tmp_path / "dvc.lock").write_text("stages: {}\n")
    first = repository.commit(tmp_path, f"Record a run\n\n{environment.trailer(here)}", ["dvc.lock"])
    second = repository.commit(tmp_path, "Without", ["dvc.lock"], allow_empty=True)
    assert environment.of_commit(tmp_path, first) == here
    assert environment.of_commit(tmp_path, second) is None


def test_a_description_of_another_version_is_read_as_far_as_it_goes():
    here = environment.describe(ROOT)
    line = environment.text(here).replace('"gpu"', '"from_the_future"')
    assert environment.parse(line) == replace(here, gpu="")
