"""The description of an environment: what it holds, how two differ, and how a commit carries it."""

import os
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

from flows import repository
from flows.pipeline import environment
from flows.pipeline.environment import Environment
from flows.pipeline.run import RunInfo, StageResult
from flows.retrain import finalise
from flows.settings import Settings

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
    code = "import sys; from pathlib import Path; from flows.pipeline import environment\n"
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


def test_thread_counts_are_as_they_were_and_chosen_kernels_too():
    variables = {"OMP_NUM_THREADS": "7", "ATEN_CPU_CAPABILITY": "avx512", "HOME": "/home/ann"}
    assert environment.surroundings(variables, None) == variables
    then = environment.surroundings(variables, {"MKL_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default"})
    assert then == {"HOME": "/home/ann", "MKL_NUM_THREADS": "2", "ATEN_CPU_CAPABILITY": "default"}
    found = environment.describe(ROOT, then)
    assert (found.variables, found.kernels) == ({k: v for k, v in then.items() if k != "HOME"}, "default")


def test_every_difference_is_named_with_both_values():
    here = replace(environment.describe(ROOT), variables={}, unlocked={}, features=("avx2", "fma"))
    then = replace(
        here,
        torch="2.9.0+cu128",
        features=("amx_tile", "avx2", "fma"),
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


def test_a_run_on_workers_carries_the_environment_of_each_stage_and_says_nothing_of_what_it_does_not_know(tmp_path):
    here = environment.describe(ROOT)
    gpu = replace(here, gpu="NVIDIA H200, driver 570.1")
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True, env=os.environ)
    chosen = Settings(root=tmp_path, stages="workers")
    ran = RunInfo("id", "run/id", "", "", tmp_path, False, "", datetime.now(UTC), "retrain")
    names = ("scenes", "tokenizer", "maskgit", "report")

    def commit(results, newest=None):
        words = finalise._where(chosen, ran, results, newest)
        return repository.commit(tmp_path, f"Record a run\n\n{words}", [], allow_empty=True)

    worker = environment.text(gpu)
    first = commit([StageResult("tokenizer", "ran", 1.0, environment=worker), StageResult("maskgit", "restored", 1.0)])
    assert environment.of_stages(tmp_path, first, names) == {"tokenizer": gpu}
    assert environment.of_commit(tmp_path, first) is not None  # of the machine that ordered them
    results = [StageResult(name, "current", 0.0) for name in ("tokenizer", "maskgit")]
    second = commit([*results, StageResult("scenes", "ran", 1.0, environment=environment.text(here))], first)
    assert environment.of_stages(tmp_path, second, names) == {"tokenizer": gpu, "scenes": here}
    alone = repository.commit(tmp_path, f"On one machine\n\n{environment.trailer(here)}", [], allow_empty=True)
    assert environment.of_stages(tmp_path, alone, names) == dict.fromkeys(names, here)


def test_a_description_of_another_version_is_read_as_far_as_it_goes():
    here = environment.describe(ROOT)
    line = environment.text(here).replace('"gpu"', '"from_the_future"')
    assert environment.parse(line) == replace(here, gpu="")


def test_the_short_name_tells_apart_processors_whose_bfloat16_differs():
    plain = Environment("", "", "", "", "x86_64", "GenuineIntel family 6 model 85", "avx512", features=("avx512f",))
    rounding = replace(plain, features=("avx512_bf16", "avx512f"))
    tiles = replace(plain, features=("amx_bf16", "avx512_bf16", "avx512f"))
    assert [one.machine for one in (plain, rounding, tiles)] == [
        "x86_64 GenuineIntel avx512",
        "x86_64 GenuineIntel avx512 bf16",
        "x86_64 GenuineIntel avx512 bf16 amx",
    ]
    assert replace(tiles, kernels="avx2").machine == "x86_64 GenuineIntel avx2"
    assert replace(tiles, portable=True).machine == "x86_64 portable"


def test_where_stages_are_portable_no_processor_makes_a_difference(tmp_path):
    (tmp_path / "params.yaml").write_text("portable: true\n")
    here = environment.describe(tmp_path, {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_ENABLE_INSTRUCTIONS": "AVX2"})
    assert here.portable
    assert here.kernels == "avx2"
    assert here.variables["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert "MKL_ENABLE_INSTRUCTIONS" not in here.variables
    other = replace(here, cpu="GenuineIntel family 6 model 143", features=("amx_bf16",), gpu="NVIDIA H100")
    assert environment.differences(here, other) == []
    assert len(environment.differences(replace(here, portable=False), replace(other, portable=False))) == 3
    assert environment.parse(environment.text(here)) == here
