"""A repository with a few stages for workers: quick, slow with checkpoints, broken, mistaken."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path

STAGE = '''\
"""A stage of these tests: `python stage.py NAME OUT INPUT...`; it can count slowly and go on where it was stopped."""
import hashlib, os, signal, sys, time
from pathlib import Path

name, out, *inputs = sys.argv[1:]
kept = Path(os.environ["REMINT_CHECKPOINTS"], f"{name}.txt")
steps, digest = 0, ""
if kept.exists():
    steps, digest = kept.read_text().split()
    steps = int(steps)
    print("going on from step", steps, flush=True)

def save(number, frame):
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(f"{steps} {digest}")
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
wanted = 60 if name == "slow" else 1
while steps < wanted:
    data = "".join(p.read_text() for i in inputs for p in sorted(Path(i).rglob("*")) if p.is_file())
    digest = hashlib.sha256((digest + data + str(steps)).encode()).hexdigest()
    steps += 1
    if wanted > 1:
        print(f"step {steps}", flush=True)
        time.sleep(0.05)
    while wanted > 1 and (kept.with_name("hold").exists() or Path(os.environ.get("TOY_HOLD", "/nowhere")).exists()):
        time.sleep(0.05)
if part := os.environ.get("REMINT_PART"):
    shard = Path(os.environ["REMINT_CHECKPOINTS"], f"{name}-{part.replace('/', '-of-')}")
    shard.parent.mkdir(parents=True, exist_ok=True)
    shard.write_text(digest)
    sys.exit()
if name == "broken":
    print("no such thing")
    sys.exit(3)
if name == "mistaken":
    sys.exit(2)
Path(out).mkdir(parents=True)
Path(out, "digest.txt").write_text(digest)
if name == "first":
    Path(out, "more.bin").write_bytes(bytes(2_000_000))
kept.unlink(missing_ok=True)
'''

NAMES = ("slow", "broken", "mistaken")
DVC_YAML = "stages:\n" + "".join(
    f"  {name}:\n    cmd: python stage.py {name} artifacts/{name} {inputs}\n"
    f"    deps: [stage.py, {inputs or 'file.txt'}]\n    outs: [artifacts/{name}]\n"
    for name, inputs in [("first", ""), ("second", "artifacts/first"), ("third", "data"), *((n, "") for n in NAMES)]
)


def make(root: Path) -> Path:
    """The repository, whose stage `first` has run; to be cloned, not changed."""
    from dvc.repo import Repo

    root.mkdir(parents=True)

    def git(*words: str) -> None:
        subprocess.run(["git", *words], cwd=root, check=True)

    git("init", "--quiet", "--initial-branch=main")
    (root / "data").mkdir()
    (root / "data" / "photo with spaces.txt").write_text("a photograph")
    with contextlib.chdir(root), Repo.init() as repo:
        repo.add("data")
    (root / "stage.py").write_text(STAGE)
    (root / "dvc.yaml").write_text(DVC_YAML)
    (root / "file.txt").write_text("source\n")
    (root / "params.yaml").write_text("{}\n")
    (root / ".gitignore").write_text("/artifacts/\n/.remint/\n")
    git("add", "--all")
    git("commit", "--quiet", "--message", "Start")
    environment = os.environ | {"REMINT_CHECKPOINTS": str(root / ".remint" / "checkpoints")}
    done = subprocess.run(
        [sys.executable, "-m", "dvc", "repro", "first"], cwd=root, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return root
