"""What a stage can read of the processes around it, with real processes of one user."""

import ctypes
import os
import subprocess
import sys

import pytest

from flows.stage import confined

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(not confined.possible(), reason="this kernel has no Landlock, or the container forbids it"),
]
READ = "import sys; print(open(f'/proc/{sys.argv[1]}/environ', 'rb').read().count(b'hunter2'))"
PEEK = "import sys; open(f'/proc/{sys.argv[1]}/mem', 'rb')"
TRACE = "import ctypes, sys; sys.exit(ctypes.CDLL(None).ptrace(0x4206, int(sys.argv[1]), 0, 0) != 0)"  # PTRACE_SEIZE


@pytest.fixture
def worker():
    """A process with a secret in its variables, which lives until its input is closed."""
    process = subprocess.Popen(
        [sys.executable, "-c", "print('ready', flush=True); input()"],
        env={**os.environ, "SECRET": "hunter2"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.communicate("\n")


def ran(*command):
    return subprocess.run([*command], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("code", [READ, PEEK, TRACE])
def test_a_confined_process_cannot_read_or_trace_another_of_its_user_which_it_could_otherwise(worker, code):
    command = [sys.executable, "-c", code, str(worker.pid)]
    assert ran(*command).returncode == 0
    assert ran(*confined.command(command)).returncode != 0


def test_nor_can_what_it_starts(worker):
    inner = [sys.executable, "-c", READ, str(worker.pid)]
    outer = [sys.executable, "-c", "import subprocess, sys; sys.exit(subprocess.run(sys.argv[1:]).returncode)", *inner]
    assert ran(*outer).stdout == "1\n"
    done = ran(*confined.command(outer))
    assert "PermissionError" in done.stderr
    assert done.returncode == 1


def test_it_works_with_its_own_children_and_files_as_before(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    code = """
import os, subprocess, sys
from pathlib import Path
child = subprocess.Popen(["sh", "-c", "echo ready; read x"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
child.stdout.readline()  # before its program runs it has no variables
assert Path(f"/proc/{child.pid}/environ").read_bytes() and Path("/proc/self/environ").read_bytes()
child.kill()
Path("one/file").write_text("here")
os.link("one/file", "two/linked")
Path("one/file").rename("two/file")
sys.exit(7)
"""
    done = subprocess.run(confined.command([sys.executable, "-c", code]), cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 7, done.stderr
    assert sorted(path.name for path in (tmp_path / "two").iterdir()) == ["file", "linked"]


def test_its_package_is_not_looked_for_where_it_starts(tmp_path):
    (tmp_path / "ctypes.py").write_text("raise SystemExit('the worktree s own')")
    done = subprocess.run(confined.command(["true"]), cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(tmp_path)})
    assert done.returncode == 0


def test_where_a_kernel_cannot_the_command_runs_all_the_same():
    """A process that is denied the system call, as an old container's filter does."""
    deny = f"""
import os, sys
sys.path.insert(0, {str(confined.__file__).removesuffix("confined.py")!r})
import confined
confined.CREATE_RULESET = 9999
try:
    confined.confine()
except OSError as error:
    print(error.errno)
"""
    assert ran(sys.executable, "-c", deny).stdout.strip() == str(ctypes.c_int(38).value)  # ENOSYS
