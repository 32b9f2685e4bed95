"""MLflow's embedded store: any folder's name may be in its addresses, and a moved one finds its files again."""

import shutil
from pathlib import Path

import pytest

from models.tracking import embedded, training_run

ODD = "öde ?%41#&;:$x 'y' \"z\""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A store in an oddly named folder, with a run that has a file."""
    home = tmp_path_factory.mktemp("store") / ODD / ".remint"
    home.mkdir(parents=True)
    client, reason = training_run.connect(embedded.database_uri(home / "mlflow.db"))
    assert client, reason
    run = client.create_run(training_run.experiment(client, "depth")).info.run_id
    client.log_text(run, "words", "a.txt")
    return home, run


def text(client, run):
    from mlflow.artifacts import load_text

    return load_text(f"{client.get_run(run).info.artifact_uri}/a.txt")


def test_an_oddly_named_folder_holds_all_of_its_store(made):
    home, run = made
    assert (home / "mlflow" / "depth" / run / "artifacts" / "a.txt").read_text() == "words"
    client, _ = training_run.connect(embedded.database_uri(home / "mlflow.db"))
    assert text(client, run) == "words"
    assert [path.name for path in home.parents[1].iterdir()] == [ODD]  # nothing beside it under an escaped name


@pytest.mark.parametrize("away", ["moved", "copied"])
def test_a_store_that_was_moved_or_copied_finds_its_own_files(made, tmp_path, away):
    home, run = made
    elsewhere = tmp_path / "other" / ".remint"
    shutil.copytree(home, elsewhere)
    if away == "moved":
        shutil.move(home / "mlflow", home / "gone")
    try:
        client, _ = training_run.connect(embedded.database_uri(elsewhere / "mlflow.db"))
        assert client.get_run(run).info.artifact_uri == str(elsewhere / "mlflow" / "depth" / run / "artifacts")
        assert text(client, run) == "words"
        second = client.create_run(training_run.experiment(client, "depth")).info.run_id
        client.log_text(second, "more", "b.txt")
        assert (elsewhere / "mlflow" / "depth" / second / "artifacts" / "b.txt").exists()
    finally:
        if away == "moved":
            shutil.move(home / "gone", home / "mlflow")
    assert embedded.find_files_again(embedded.database_uri(elsewhere / "mlflow.db")) == ""  # once is enough


def test_a_store_that_is_reached_through_a_link_is_left_as_it_is(made, tmp_path):
    home, _ = made
    (tmp_path / "link").symlink_to(home, target_is_directory=True)
    assert embedded.find_files_again(embedded.database_uri(tmp_path / "link" / "mlflow.db")) == ""


@pytest.mark.parametrize(
    ("name", "uri"),
    [("plain ö#;&", "sqlite:////a/plain ö#;&"), ("?%#", "sqlite+pysqlite:///file:/a/%3F%25%23?uri=true")],
)
def test_only_what_must_be_is_escaped_and_read_back(name, uri):
    assert embedded.database_uri(Path("/a") / name) == uri
    assert embedded.database_file(uri) == Path("/a") / name


def test_other_databases_have_no_file():
    assert embedded.database_file("postgresql://host/mlflow") is None
    assert embedded.database_file("http://127.0.0.1:5000") is None
