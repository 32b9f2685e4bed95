"""Whatever a person has told git: a worktree has its commit's bytes, a commit those that were written."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from flows import repository, settings
from flows.pipeline import environment, workspace
from flows.release import origin, tags
from flows.retrain import job
from flows.show.diff import commits

pytestmark = pytest.mark.integration

FILES = {
    "windows.txt": b"one\r\ntwo\r\n",
    "unix.txt": b"one\ntwo\n",
    "mixed.txt": b"one\r\ntwo\n",
    "ident.txt": b"$Id$ aaa\n",
    "binary.bin": bytes(range(256)),
    "data/\xfcber den \xe9tang.csv": b"a,b\n",
    "two\nlines": b"a",
    "deep/er/script.sh": b"#!/bin/sh\n",
    "attributes/.gitattributes": b"*.dat text eol=crlf\n*.big filter=evil\n",
    "attributes/a.dat": b"one\ntwo\n",
    "attributes/a.big": b"version https://git-lfs.github.com/spec/v1\naaa\n",
}
CHANGED = ("data/\xfcber den \xe9tang.csv", 1, 0)
SUBJECT = "Awkward files: \xfc"
EVIL = '[filter "evil"]\n smudge = tr a b\n clean = tr a c\n required = true\n'
PROGRAM = "[core]\n %s = {home}/program\n"
CONFIGURATIONS = {
    "nothing": "",
    "autocrlf": "[core]\n autocrlf = true\n",
    "autocrlf-input": "[core]\n autocrlf = input\n safecrlf = true\n",
    "eol": "[core]\n eol = crlf\n attributesFile = {home}/text\n",
    "filter": f"[core]\n attributesFile = {{home}}/filter\n{EVIL}",
    "encoding": "[core]\n attributesFile = {home}/encoding\n",
    "ident": "[core]\n attributesFile = {home}/ident\n",
    "no-links": "[core]\n symlinks = false\n fileMode = false\n ignoreCase = true\n",
    "hooks": "[core]\n hooksPath = {home}\n",
    "fsmonitor": PROGRAM % "fsmonitor",
    "editor": PROGRAM % "editor" + " pager = {home}/program\n commentChar = R\n[commit]\n cleanup = strip\n",
    "template": "[commit]\n template = {home}/gone\n verbose = true\n[init]\n templateDir = {home}/gone\n",
    "signing": "[gpg]\n program = false\n[commit]\n gpgSign = true\n[tag]\n gpgSign = true\n"
    " forceSignAnnotated = true\n[log]\n showSignature = true\n",
    "colours": "[color]\n ui = always\n[column]\n ui = always\n[core]\n quotePath = true\n",
    "order": "[tag]\n sort = -version:refname\n[log]\n date = relative\n follow = true\n[versionsort]\n suffix = run\n",
    "status": "[status]\n short = true\n branch = true\n showUntrackedFiles = no\n relativePaths = true\n"
    " showStash = true\n renames = copies\n",
    "diff": "[diff]\n external = {home}/program\n noprefix = true\n renames = copies\n relative = true\n"
    " orderFile = {home}/text\n",
    "words": '[i18n]\n commitEncoding = UTF-16\n logOutputEncoding = ISO-8859-1\n[trailer]\n separators = "="\n'
    "[format]\n pretty = oneline\n",
    "name": "[user]\n useConfigOnly = true\n[author]\n name = Someone\n",
    "sparse": "[core]\n sparseCheckout = true\n sparseCheckoutCone = true\n[index]\n sparse = true\n",
    "submodules": "[submodule]\n recurse = true\n[fetch]\n prune = true\n pruneTags = true\n",
}
AT_ONCE = (  # as many as go together
    "autocrlf+hooks+signing+colours+order+status+diff+words+name+editor+submodules",
    "filter+no-links+fsmonitor+template+sparse",
)
FILTERED = "* filter=evil text eol=crlf ident\n"  # .git/info/attributes, which no option sets aside


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A person's files that the configurations name."""
    made = tmp_path_factory.mktemp("home")
    (made / "text").write_text("* text=auto eol=crlf\n")
    (made / "filter").write_text("* filter=evil\n")
    (made / "encoding").write_text("*.txt text working-tree-encoding=UTF-16\n")
    (made / "ident").write_text("* ident\n")
    for name in ("program", "post-checkout", "pre-commit", "post-commit", "reference-transaction"):
        (made / name).write_text(f"#!/bin/sh\ntouch {made}/was-run\nexit 1\n")
        (made / name).chmod(0o755)
    return made


@pytest.fixture(scope="module")
def project(make_toy, tmp_path_factory: pytest.TempPathFactory):
    """The small repository with awkward files, a recorded run of its graph, and what a person can put into .git."""
    toy = make_toy(tmp_path_factory.mktemp("project"))
    for name, data in FILES.items():
        path = toy.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    (toy.root / "deep/er/script.sh").chmod(0o755)
    (toy.root / "link").symlink_to("deep/er")
    (toy.root / "nowhere").symlink_to("\xfc/gone")
    subprocess.run([sys.executable, "-m", "dvc", "repro", "--quiet"], cwd=toy.root, check=True)
    for words in (["add", "--all"], ["commit", "--quiet", "--message", SUBJECT]):
        toy.git("-c", "core.autocrlf=false", *words)
    (toy.root / ".git" / "info" / "attributes").write_text(FILTERED)
    (toy.root / ".git" / "info" / "sparse-checkout").write_text("/mlflow/\n")
    toy.git("config", "filter.evil.smudge", "tr a b")
    toy.git("config", "filter.evil.clean", "tr a c")
    replaced = toy.git("rev-parse", "HEAD:unix.txt")
    toy.git("replace", replaced, toy.git("rev-parse", "HEAD:windows.txt"))
    return toy


def raw(root: Path, *words: str) -> bytes:
    """What git has, asked for past every setting."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    command = ["git", "--no-replace-objects", "-C", str(root), *words]
    return subprocess.run(command, env=environment, capture_output=True, check=True).stdout


def stored(root: Path, commit: str) -> dict[str, tuple[str, bytes]]:
    """Mode and bytes by path, as git has them."""
    found = {}
    for line in raw(root, "ls-tree", "-r", "-z", commit).decode().split("\0")[:-1]:
        about, _, path = line.partition("\t")
        found[path] = (about[:6], raw(root, "cat-file", "blob", about[12:]))
    return found


def lying(root: Path) -> dict[str, tuple[str, bytes]]:
    """The same of the files in a checkout, but for what a run puts beside them."""
    found = {}
    for path in sorted(root.rglob("*")):
        name = path.relative_to(root).as_posix()
        if path.is_symlink():
            found[name] = ("120000", os.fsencode(path.readlink()))
        elif path.is_file() and name not in (".git", ".dvc/config.local"):
            found[name] = ("100755" if path.stat().st_mode & 0o111 else "100644", path.read_bytes())
    return {name: one for name, one in found.items() if not name.startswith(".dvc/tmp/")}


@pytest.fixture(scope="module")
def commit(project) -> str:
    return project.git("rev-parse", "HEAD")


@pytest.fixture(scope="module")
def expected(project, commit: str) -> dict[str, tuple[str, bytes]]:
    return stored(project.root, commit)


@pytest.fixture
def configured(request, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The configurations of these names are this person's."""
    text = "".join(CONFIGURATIONS[name] for name in request.param.split("+"))
    (tmp_path / "gitconfig").write_text(text.format(home=home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_EXTERNAL_DIFF"):
        monkeypatch.setenv(name, str(home / "program"))  # as inside a hook of another repository
    return request.param


@pytest.mark.parametrize("configured", CONFIGURATIONS, indirect=True)
def test_a_worktree_has_the_bytes_of_its_commit_and_a_commit_those_of_its_files(
    project, commit, expected, configured, home
):
    chosen, name = settings.load(project.root), f"20260101T000000Z-{configured}"
    with workspace.opened(chosen, commit, name) as root:
        assert lying(root) == expected
        (root / "dvc.lock").write_bytes(b"aaa\r\nbbb\n")
        (root / "artifacts").mkdir()
        (root / "artifacts" / "metrics.json").write_bytes(b"{}")
        here = environment.Environment("", "Python", "", "", "", "Prozessor Nr. \xfc", "")
        words = f"Record R\n\nRun\n# not a comment\n\n{environment.trailer(here)}"
        made = repository.commit(root, words, ["dvc.lock", "artifacts/metrics.json"])
        repository.tag(root, f"odd/{configured}", f"Run {configured}\n# not a comment", made)
    listed = dict.fromkeys(raw(project.root, "ls-tree", "-r", commit).splitlines())
    now = raw(project.root, "ls-tree", "-r", made).splitlines()
    assert [line.split(b"\t")[1] for line in now if line not in listed] == [b"artifacts/metrics.json", b"dvc.lock"]
    assert len(now) == len(listed) + 1
    assert raw(project.root, "cat-file", "blob", f"{made}:dvc.lock") == b"aaa\r\nbbb\n"
    head, _, message = raw(project.root, "cat-file", "commit", made).decode().partition("\n\n")
    assert message == f"{words}\n"
    assert [line.split()[0] for line in head.splitlines()] == ["tree", "parent", "author", "committer"]
    tag = raw(project.root, "cat-file", "tag", f"odd/{configured}")
    assert tag.decode().partition("\n\n")[2] == f"Run {configured}\n# not a comment\n"
    assert environment.of_commit(project.root, made) == here
    assert not (home / "was-run").exists()


@pytest.mark.parametrize("configured", AT_ONCE, indirect=True)
def test_what_git_says_has_one_form(project, commit, configured, home):
    (project.root / "uncommitted \xfc").write_text("x")
    try:
        found = repository.find(project.root / "deep")
    finally:
        (project.root / "uncommitted \xfc").unlink()
    assert (found.top, found.main, found.head) == (project.root, project.root, commit)
    assert "uncommitted \xfc" in found.uncommitted
    assert repository.file_at(project.root, commit, "mixed.txt") == "one\r\ntwo\n"
    assert repository.file_at(project.root, commit, "unix.txt") == "one\ntwo\n"
    assert repository.file_at(project.root, commit, "gone") is None
    first = repository.git(project.root, "rev-list", "--max-parents=0", "HEAD")
    assert tags.read(project.root).keys() <= {f"odd/{name}" for name in CONFIGURATIONS}
    between = commits.between(project.root, first, commit)
    assert [(one.path, one.added, one.removed) for one in between.files] == [CHANGED]
    assert [(one.hash, one.subject) for one in between.gained] == [(commit, SUBJECT)]
    assert not (home / "was-run").exists()


@pytest.mark.parametrize("configured", AT_ONCE, indirect=True)
def test_a_run_plans_the_same_under_every_configuration(project, configured, home):
    with job.prepared(project.root) as ready:
        assert {step.action for step in ready.plan.steps} == {"current"}
    assert not (home / "was-run").exists()


def test_fetching_the_tags_of_others_removes_none_of_ours(make_toy, tmp_path):
    (tmp_path / "toy").mkdir()
    toy = make_toy(tmp_path / "toy")
    toy.git("clone", "--quiet", "--bare", ".", str(tmp_path / "origin.git"))
    toy.git("remote", "add", "origin", str(tmp_path / "origin.git"))
    for name in ("fetch.prune", "fetch.pruneTags", "remote.origin.prune", "remote.origin.pruneTags"):
        toy.git("config", name, "true")
    toy.git("tag", "-a", "-m", "x", "run/20260101T000000Z-0000000")
    origin.fetch_tags(toy.root)
    assert toy.git("tag", "--list") == "run/20260101T000000Z-0000000"
