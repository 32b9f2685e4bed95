"""What happens to a run on workers while its orchestrator, servers and stores die, hang or lie: it ends with the bytes
of an undisturbed one, and what was finished is not made again."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import yaml

from flows.release import recorded
from tests import postgres, released, workers
from tests.proxy import Proxy

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(1800)]

STAGE = '''\
"""A stage: says that it runs, waits while it is held, goes on where it was ended, and writes what it read."""
import os, signal, sys, time
from pathlib import Path
import yaml

name, *inputs = sys.argv[1:]
kept = Path(os.environ["TOY"], f"{name}.kept")
with Path(os.environ["TOY"], "ran").open("a") as ran:
    ran.write(f"{name} {kept.read_text()}\\n" if kept.exists() else f"{name}\\n")
if kept.exists():
    print("going on from step 1", flush=True)

def save(number, frame):
    kept.write_text("again")
    sys.exit(143)

signal.signal(signal.SIGTERM, save)
print(name, "works", flush=True)
while Path(os.environ["TOY"], f"{name}.hold").exists():
    time.sleep(0.05)
kept.unlink(missing_ok=True)
read = "".join(Path(i, "text").read_text() for i in inputs)
Path("artifacts", name).mkdir(parents=True)
Path("artifacts", name, "text").write_text(f"{name} {yaml.safe_load(Path('params.yaml').read_text())[name]} {read}")
Path("artifacts", name, "bytes").write_bytes(name.encode() * 300_000)
'''
LINE = ("one", "two")
PATIENCE = 400.0  # seconds: on a busy machine


def make(root: Path) -> None:
    """A line of two stages, each with a parameter of its own."""
    from dvc.repo import Repo

    root.mkdir(parents=True)
    released.git(root, "init", "--quiet", "--initial-branch=main")
    Repo.init(str(root)).close()
    stages = {}
    for before, name in zip(("", *LINE), LINE, strict=False):
        read = [f"artifacts/{before}"] if before else []
        stages[name] = {
            "cmd": " ".join(["python stage.py", name, *read]),
            "deps": ["stage.py", *read],
            "params": [name],
            "outs": [f"artifacts/{name}"],
        }
    (root / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    (root / "params.yaml").write_text("one: 0\ntwo: 0\n")
    (root / "stage.py").write_text(STAGE)
    (root / ".gitignore").write_text("/.remint/\n/artifacts/\n")
    (root / "mlflow").mkdir()
    (root / "mlflow/promotion.yaml").write_text("{}\n")
    released.git(root, "add", "--all")
    released.git(root, "commit", "--quiet", "--message", "A line of stages")


@dataclass
class Stack:
    """Two workers of pool cpu, PostgreSQL under Prefect's server and the catalogue, S3 behind a proxy."""

    farm: workers.Farm
    database: postgres.Server
    prefect: workers.PrefectServer
    s3: Proxy
    number: int = 0
    runs: list[subprocess.Popen] = field(default_factory=list)

    @property
    def toy(self) -> Path:
        return self.farm.folder / "toy"

    def hold(self, name: str) -> Path:
        (self.toy / f"{name}.hold").touch()
        return self.toy / f"{name}.hold"

    def fresh(self) -> str:
        """A parameter that no run has had, so that all stages are to run."""
        self.number += 1
        for left in self.toy.glob("*"):
            left.unlink()
        return f"one={self.number}"

    def retrain(self, *words: str, clone: str = "desk", before: str = "pass") -> subprocess.Popen:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "start_new_session": True}
        command = [sys.executable, "-c", f"{before}; from flows.cli import main; main()", "retrain", *words]
        environment = workers.foreign(os.environ) | self.farm.environment
        run = subprocess.Popen(command, cwd=self.farm.clone(clone), env=environment, **pipes)
        self.runs.append(run)
        return run

    def ran(self) -> list[str]:
        path = self.toy / "ran"
        return path.read_text().splitlines() if path.exists() else []

    def works(self, name: str, process: subprocess.Popen | None = None) -> None:
        """Wait until a stage works."""

        def begun() -> bool | None:
            assert process is None or process.poll() is None, process.communicate()[1]
            return name in [line.split()[0] for line in self.ran()] or None

        self.farm.wait(begun, f"stage {name}", PATIENCE)

    def over(self, name: str) -> None:
        """Wait until a worker has said what came of the stage."""

        def said() -> bool | None:
            keys = self.farm.orders.store.list(f"stages/{name}/")
            return any(key.endswith("outcome.json") for key in keys) or None

        self.farm.wait(said, f"outcome of {name}", PATIENCE)

    def left(self) -> list[str]:
        refs = released.git(self.farm.origin, "for-each-ref", "--format=%(refname)", "refs/heads/remint/").split()
        return [*self.farm.orders.store.list(""), *refs]


def ended(process: subprocess.Popen, code: int = 0) -> str:
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == code, err
    assert "Traceback" not in err, err
    return err


@pytest.fixture(scope="module")
def stack(s3_server, tmp_path_factory):
    import boto3
    import psycopg

    if postgres.programs() is None:
        pytest.skip("PostgreSQL is not installed; .ci/run names the package")
    folder = tmp_path_factory.mktemp("faults")
    make(folder / "project")
    proxy = Proxy(int(s3_server["AWS_ENDPOINT_URL"].rsplit(":", 1)[1]))
    with contextlib.ExitStack() as open_:
        open_.enter_context(recorded.environment(s3_server))
        boto3.session.Session().client("s3", region_name="us-east-1").create_bucket(Bucket="faults")
        database = open_.enter_context(postgres.server())
        with psycopg.connect(f"host={database.folder} user=postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE catalogue")
        prefect = workers.PrefectServer(
            folder / "prefect", f"postgresql+asyncpg://postgres@/postgres?host={database.folder}"
        )
        open_.callback(prefect.stop)
        prefect.start()
        variables = {
            **s3_server,
            "AWS_ENDPOINT_URL": proxy.url,
            "REMINT_CATALOGUE": f"postgresql+psycopg://postgres@/catalogue?host={database.folder}",
            "REMINT_CHECKPOINTS": str(folder / "checkpoints"),
            "TOY": str(folder / "farm" / "toy"),
        }
        farm = open_.enter_context(
            workers.farm(folder / "farm", folder / "project", prefect.api, "s3://faults/shared", **variables)
        )
        made = Stack(farm, database, prefect, proxy)
        made.toy.mkdir()
        farm.start("cpu", "one", wait=False), farm.start("cpu", "two", wait=False)
        for worker in farm.workers:
            worker.says("started!", 180)
        yield made


@pytest.fixture(autouse=True)
def as_before(stack):
    """Nothing of a test that failed disturbs the next one."""
    yield
    for run in stack.runs:
        if run.poll() is None:
            os.killpg(run.pid, signal.SIGKILL)
    for held in stack.toy.glob("*.hold"):
        held.unlink()
    stack.s3.canned = None
    stack.runs.clear()


def test_an_orchestrator_that_is_killed_finds_its_attempts_again_and_nothing_runs_twice(stack):
    """Killed while a stage works, and killed again, to find that one finished meanwhile."""
    seed, one, two = stack.fresh(), stack.hold("one"), stack.hold("two")
    first = stack.retrain("--set", seed)
    stack.works("one", first)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait()
    second = stack.retrain("--set", seed)
    _said(second, "one: started", PATIENCE)
    os.killpg(second.pid, signal.SIGKILL)
    second.wait()
    one.unlink()
    stack.over("one")
    third = stack.retrain("--set", seed)
    stack.works("two", third)
    two.unlink()
    ended(third)
    assert stack.ran() == list(LINE)
    assert stack.left() == []
    assert _lock(stack, "desk") == _undisturbed(stack, one=int(seed.partition("=")[2]))


def test_a_run_and_its_stages_outlive_a_prefect_server_that_hangs_and_one_that_is_started_anew(stack):
    seed, one = stack.fresh(), stack.hold("one")
    run = stack.retrain("--set", seed)
    stack.works("one", run)
    stack.prefect.process.send_signal(signal.SIGSTOP)
    one.unlink()  # and ends, and the next one is submitted to a server that does not answer
    stack.over("one")
    time.sleep(20)
    stack.prefect.process.send_signal(signal.SIGCONT)
    stack.works("two", run)
    stack.prefect.stop()
    stack.prefect.start()
    ended(run)
    assert stack.ran() == list(LINE)


@pytest.mark.soak
def test_a_prefect_server_that_stays_away_ends_the_run_with_one_line_and_the_next_goes_on(stack):
    seed, one = stack.fresh(), stack.hold("one")
    run = stack.retrain("--set", seed, before="from flows.workers import watch; watch.AWAY_SECONDS = 10.0")
    stack.works("one", run)
    stack.prefect.stop()
    said = ended(run, 1 if run.wait(PATIENCE) == 1 else 2)
    assert (
        "REMINT_PREFECT_API: the Prefect server does not answer" in said or "Prefect's server does not answer" in said
    )
    stack.prefect.start()
    one.unlink()
    stack.farm.wait(lambda: stack.farm.online("cpu") or None, "worker", PATIENCE)
    ended(stack.retrain("--set", seed))
    assert stack.ran() == list(LINE)
    assert stack.left() == []


@pytest.mark.soak
def test_two_minutes_without_prefect_s_server_cost_a_run_nothing(stack):
    seed, one = stack.fresh(), stack.hold("one")
    run = stack.retrain("--set", seed)
    stack.works("one", run)
    stack.prefect.stop()
    one.unlink()
    time.sleep(120)
    stack.prefect.start()
    ended(run)
    assert stack.ran() == list(LINE)


def test_a_database_server_that_is_restarted_costs_a_run_nothing(stack):
    seed, one, two = stack.fresh(), stack.hold("one"), stack.hold("two")
    run = stack.retrain("--set", seed)
    stack.works("one", run)
    stack.database.stop("immediate")
    one.unlink()  # its worker's outcome lies in the bucket, its state is told later
    time.sleep(4)
    stack.database.start()
    stack.works("two", run)
    stack.database.restart()
    two.unlink()
    ended(run)
    assert stack.ran() == list(LINE)
    assert stack.left() == []


FULL = b"HTTP/1.1 507 Insufficient Storage\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
REFUSED = b"HTTP/1.1 503 Slow Down\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


def test_s3_that_refuses_is_full_is_slow_or_cuts_off_under_dispatch_and_upload_costs_a_run_nothing(stack):
    seed, holds = stack.fresh(), {name: stack.hold(name) for name in LINE}
    run = stack.retrain("--set", seed)
    _said(run, "bringing up its records", PATIENCE)  # from here on it has something to lose
    stack.s3.canned = REFUSED
    _said(run, "one: started", PATIENCE)
    time.sleep(5)
    stack.s3.canned = None
    stack.works("one", run)
    with _answering(stack.s3, lambda position, data: None):  # it hangs up on whatever it is asked
        holds["one"].unlink()
        time.sleep(5)
    stack.works("two", run)
    stack.s3.canned = FULL
    holds["two"].unlink()
    time.sleep(5)
    stack.s3.canned = None
    with _answering(stack.s3, _late):
        ended(run)
    assert stack.ran() == list(LINE)
    assert stack.left() == []


def test_two_runs_that_want_the_same_stage_at_once_have_it_made_once_and_both_end(stack):
    seed, one = stack.fresh(), stack.hold("one")
    first = stack.retrain("--set", seed, clone="desk")
    stack.works("one", first)  # in another second: the ids of runs have those, and of one commit they would be one
    second = stack.retrain("--set", seed, "--set", "two=1", clone="other")
    _said(second, "one: started", PATIENCE)
    one.unlink()
    ended(first), ended(second)
    assert sorted(stack.ran()) == ["one", "two", "two"]
    number = int(seed.partition("=")[2])
    assert _lock(stack, "desk") == _undisturbed(stack, one=number)
    assert _lock(stack, "other") == _undisturbed(stack, one=number, two=1)


@pytest.mark.parametrize("how", ["budget", "Ctrl-C"])
def test_a_run_that_is_ended_has_its_stage_save_a_checkpoint_from_which_the_next_goes_on(stack, how):
    seed, one = stack.fresh(), stack.hold("one")
    words = ("--budget", "40s") if how == "budget" else ()
    run = stack.retrain("--set", seed, *words)
    stack.works("one", run)
    if how == "Ctrl-C":
        os.kill(run.pid, signal.SIGINT)
    said = ended(run, 1 if how == "budget" else 130)
    assert ("The budget ends this run" in said) == (how == "budget")
    stack.farm.wait(lambda: (stack.toy / "one.kept").exists() or None, "checkpoint", PATIENCE)
    one.unlink()
    ended(stack.retrain("--set", seed))
    assert stack.ran() == ["one", "one again", "two"]
    log = max((stack.farm.clone("desk") / ".remint/runs").iterdir()) / "logs/one.log"
    assert "going on from step 1" in log.read_text()
    assert stack.left() == []


def _said(process: subprocess.Popen, text: str, seconds: float) -> str:
    """What a run has said until it says this."""
    lines: list[str] = []

    def read() -> None:
        for line in process.stderr:
            lines.append(line)
            if text in line:
                return

    reading = threading.Thread(target=read)
    reading.start()
    reading.join(seconds)
    assert lines, f"'{text}' was not said"
    assert text in lines[-1], lines
    return lines[-1]


@contextlib.contextmanager
def _answering(proxy: Proxy, change):
    plain, proxy.answer = proxy.answer, change
    try:
        yield
    finally:
        proxy.answer = plain


def _late(position: int, data: bytes) -> bytes:
    time.sleep(0.3)
    return data


def _lock(stack: Stack, clone: str) -> dict:
    """dvc.lock of the newest run of a clone."""
    root = stack.farm.clone(clone)
    tag = max(tag for tag in released.git(root, "tag", "--list", "run/*").split() if _of(root, tag))
    return yaml.safe_load(released.git(root, "show", f"{tag}:dvc.lock"))


def _of(root: Path, tag: str) -> bool:
    return (root / ".remint/runs" / tag.removeprefix("run/")).exists()


def _undisturbed(stack: Stack, **parameters: int) -> dict:
    """What DVC alone writes."""
    root = stack.farm.clone("undisturbed")
    values = dict.fromkeys(LINE, 0) | parameters
    (root / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    apart = stack.farm.folder / "apart"
    apart.mkdir(exist_ok=True)
    environment = workers.foreign(os.environ) | {"TOY": str(apart)}
    subprocess.run([sys.executable, "-m", "dvc", "repro", "-q"], cwd=root, env=environment, check=True)
    return yaml.safe_load((root / "dvc.lock").read_text())
