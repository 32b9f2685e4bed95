"""What comes out of a store is data: no call in the code base could run what it loads, but for named exceptions."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
UNPICKLING = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "marshal", "shelve"}
CALLS = {  # by the last two parts of a call's name
    "torch.load": "unpickles; use safetensors",
    "torch.jit.load": "runs code",
    "yaml.unsafe_load": "makes any object",
    "yaml.full_load": "makes many objects",
    "pd.read_pickle": "unpickles",
    "pandas.read_pickle": "unpickles",
    "shutil.unpack_archive": "writes wherever the archive says",
    "os.system": "starts a shell",
    "os.popen": "starts a shell",
    "importlib.__import__": "hides what is imported",
}
BUILTINS = {"eval", "exec", "compile", "__import__"}
METHODS = {"extractall": "writes wherever the archive says", "extract": "writes wherever the archive says"}


def dangers(source: str) -> Iterator[str]:
    """What in a module could run loaded data as code, or write where an archive says."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"import of {name}" for name in names if name.partition(".")[0] in UNPICKLING)
        elif isinstance(node, ast.Call):
            yield from _call(node)


def _call(node: ast.Call) -> Iterator[str]:
    named = {keyword.arg: keyword.value for keyword in node.keywords}
    name = ast.unparse(node.func)
    if name in BUILTINS or name in CALLS:
        yield name
    if isinstance(node.func, ast.Attribute) and node.func.attr in METHODS:
        yield node.func.attr
    if name in ("np.load", "numpy.load") and not _is(named.get("allow_pickle"), False):
        yield f"{name} without allow_pickle=False"
    if name in ("yaml.load", "yaml.load_all") and not _is_safe(node, named):
        yield f"{name} without a safe loader"
    if "shell" in named and not _is(named["shell"], False):
        yield "shell=True"
    yield from (f"{flag}=True" for flag in ("allow_pickle", "trust_remote_code") if _is(named.get(flag), True))
    if _is(named.get("weights_only"), False):
        yield "weights_only=False"


def _is(value: ast.expr | None, constant: bool) -> bool:
    return isinstance(value, ast.Constant) and value.value is constant


def _is_safe(node: ast.Call, named: dict) -> bool:
    loader = named.get("Loader") or (node.args[1] if len(node.args) > 1 else None)
    words = {part.attr for part in ast.walk(loader) if isinstance(part, ast.Attribute)} if loader else set()
    return "SafeLoader" in words and words <= {"SafeLoader", "CSafeLoader"}


def test_nothing_in_data_models_and_flows_can_run_what_it_loads():
    found = {
        (path.relative_to(ROOT).as_posix(), danger)
        for package in ("data", "models", "flows")
        for path in sorted((ROOT / package).rglob("*.py"))
        for danger in dangers(path.read_text())
    }
    assert found == set()


@pytest.mark.parametrize(
    "source",
    [
        "import pickle",
        "from joblib import load",
        "import torch\ntorch.load(path)",
        "torch.load(path, weights_only=False)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "yaml.load(text)",
        "yaml.load(text, Loader=yaml.Loader)",
        "yaml.load(text, Loader=getattr(yaml, 'CLoader', yaml.Loader))",
        "yaml.unsafe_load(text)",
        "with tarfile.open(path) as archive:\n    archive.extractall(folder)",
        "tarfile.open(path).extract('a')",
        "subprocess.run(words, shell=True)",
        "subprocess.run(words, shell=shell)",
        "eval(text)",
        "def f():\n    exec(text)",
        "os.system('ls')",
        "AutoModel.from_pretrained(folder, trust_remote_code=True)",
    ],
)
def test_each_way_to_run_loaded_data_is_noticed(source):
    assert list(dangers(source))


@pytest.mark.parametrize(
    "source",
    [
        "net.eval()",
        "np.load(path, allow_pickle=False)",
        "yaml.safe_load(text)",
        "yaml.load(text, Loader=getattr(yaml, 'CSafeLoader', yaml.SafeLoader))",
        "archive.extractfile(member).read()",
        "re.compile(text)",
        "safetensors.torch.load_file(path)",
        "subprocess.run(words)",
        "json.load(file)",
    ],
)
def test_what_is_harmless_passes(source):
    assert not list(dangers(source))
