"""The house stays what it has become: no circles, few floors, and not one line more than its bar."""

import ast
import subprocess
import sys

import pytest

from tests import house


@pytest.fixture(scope="module")
def measured() -> house.House:
    return house.measure()


def test_no_module_and_no_room_reaches_itself(measured: house.House) -> None:
    assert (measured.circles, measured.mutual, measured.tangled) == ([], [], [])


def test_there_are_few_floors(measured: house.House) -> None:
    assert len(measured.floors) <= 11, measured.floors


def test_flows_has_no_more_lines_modules_and_long_files_than_it_had(measured: house.House) -> None:
    """The bars are what was reached; who makes the house smaller lowers them."""
    assert sum(measured.lines.values()) <= 22_810
    assert len(measured.lines) <= 171
    assert {name: lines for name, lines in measured.lines.items() if lines > 295} == {}


def test_a_circle_is_seen(tmp_path) -> None:
    for name, text in {"a": "from flows import b\n", "b": "def f():\n    from flows import a\n"}.items():
        (tmp_path / "flows").mkdir(exist_ok=True)
        (tmp_path / "flows" / f"{name}.py").write_text(text)
    (tmp_path / "flows" / "__init__.py").write_text("")
    found = house.measure(tmp_path)
    assert found.circles == [["flows.a", "flows.b"]]
    assert found.mutual == [("flows.a", "flows.b")]


def test_a_run_with_nothing_to_do_loads_no_database_no_network_and_no_tracking() -> None:
    loaded = "import sys, flows.retrain.job, flows.retrain.launch; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", loaded], cwd=house.ROOT, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) & {"sqlalchemy", "mlflow", "prefect", "torch", "boto3", "dvc", "pandas"} == set()


def test_nothing_private_of_prefect_or_dvc_is_imported() -> None:
    found = []
    for path in sorted((house.ROOT / "flows").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("prefect", "dvc", "dvc_data"):
                names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
                found += [f"{path.name}: {name}" for name in names if name.startswith("_")]
    assert found == []
