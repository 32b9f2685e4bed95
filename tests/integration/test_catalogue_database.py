"""The catalogue's database on SQLite and PostgreSQL: opened by many at once, migrated, cut off, of another version."""

import multiprocessing
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from multiprocessing.synchronize import Event
from pathlib import Path
from random import Random

import pytest
from sqlalchemy import inspect, select, text

from data.core.params import UserError
from flows.catalogue import database, journal, migrate, schema
from flows.catalogue.schema import Base, Edge, Entry
from flows.settings import Settings
from tests.postgres import Server

pytestmark = pytest.mark.integration
ROOT = Path(__file__).parents[2]


@pytest.fixture
def settings(tmp_path: Path, database_address: str) -> Settings:
    return Settings(root=tmp_path, catalogue=database_address)


def on_server(server: Server, tmp_path: Path) -> Settings:
    return Settings(root=tmp_path, catalogue=server.empty_database())


def at_once(count: int, work: Callable[[int], None]) -> list[int | None]:
    """Do `work` in so many processes that all begin at the same moment; their exit codes."""
    fork = multiprocessing.get_context("fork")
    gate = fork.Barrier(count)

    def body(number: int) -> None:
        gate.wait()
        work(number)

    processes = [fork.Process(target=body, args=(number,)) for number in range(count)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    return [process.exitcode for process in processes]


def note(session, number: int) -> Entry:
    return journal.append(session, "release", "images", {"number": number})


def numbers(catalogue: database.Catalogue) -> list[int]:
    with catalogue.read() as session:
        assert journal.verify(session) == []
        return list(session.scalars(select(Entry.seq).order_by(Entry.seq)))


def test_the_migrations_make_exactly_the_tables_of_the_schema(settings):
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with database.open(settings).engine.connect() as connection:
        options = {"version_table": migrate.VERSION_TABLE, "compare_type": True}
        context = MigrationContext.configure(connection, opts=options)
        assert compare_metadata(context, Base.metadata) == []


def test_the_schema_names_the_newest_migration_and_each_file_its_own_revision():
    from alembic.script import ScriptDirectory

    scripts = ScriptDirectory(migrate.SCRIPTS)
    assert scripts.get_current_head() == schema.REVISION
    for script in scripts.walk_revisions():
        assert Path(script.path).name.startswith(f"{script.revision}_")


def test_a_developer_can_type_alembic(tmp_path):
    """`alembic check` compares the schema with a database that `alembic upgrade head` has just made."""
    known = {**os.environ, "REMINT_CATALOGUE": f"sqlite:///{tmp_path / 'catalogue.db'}"}
    for words in (["upgrade", "head"], ["check"]):
        command = [sys.executable, "-m", "alembic", *words]
        done = subprocess.run(command, cwd=ROOT, env=known, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    assert "No new upgrade operations detected" in done.stdout


def test_eight_processes_that_open_an_empty_database_at_once_all_succeed(settings):
    def work(number: int) -> None:
        with database.open(settings).begin() as session:
            note(session, number)

    assert at_once(8, work) == [0] * 8
    assert numbers(database.open(settings)) == list(range(1, 9))


def test_eight_writers_leave_one_chain_without_a_gap(settings):
    database.open(settings).close()

    def work(number: int) -> None:
        catalogue = database.open(settings)
        for turn in range(10):
            with catalogue.begin() as session:
                note(session, 10 * number + turn)

    assert at_once(8, work) == [0] * 8
    assert numbers(database.open(settings)) == list(range(1, 81))


@pytest.mark.parametrize("kills", [4, pytest.param(50, marks=pytest.mark.soak)])
def test_writers_that_are_killed_leave_whole_transactions_and_one_chain(settings, kills):
    """Each transaction writes two entries; a kill at any instant leaves both or none."""
    database.open(settings).close()
    random = Random(0)
    fork = multiprocessing.get_context("fork")

    def work(number: int, begun: Event) -> None:
        catalogue = database.open(settings)
        while True:
            with catalogue.begin() as session:
                note(session, number)
                note(session, number)
            begun.set()

    for number in range(kills):
        begun = fork.Event()
        process = fork.Process(target=work, args=(number, begun))
        process.start()
        assert begun.wait(60)
        process.join(random.random() / 20)
        process.kill()
        process.join()
    seqs = numbers(database.open(settings))
    assert seqs == list(range(1, len(seqs) + 1))
    assert len(seqs) >= 2 * kills
    assert len(seqs) % 2 == 0


def test_what_a_writer_read_stays_true_until_it_has_committed(settings):
    """Read, think, write: without turns two of eight would read the same number."""
    database.open(settings).close()

    def work(number: int) -> None:
        catalogue = database.open(settings)
        for _ in range(5):
            with catalogue.begin() as session:
                found = session.execute(text("SELECT count(*) FROM journal")).scalar()
                session.execute(text("SELECT 1"))
                assert note(session, number).seq == found + 1

    assert at_once(8, work) == [0] * 8
    assert len(numbers(database.open(settings))) == 40


def test_an_error_in_a_transaction_leaves_nothing_of_it(settings):
    catalogue = database.open(settings)

    def work(session) -> None:
        note(session, 1)
        raise RuntimeError("killed")

    with pytest.raises(RuntimeError):
        catalogue.write(work)
    assert numbers(catalogue) == []


def test_readers_do_not_wait_for_a_writer_and_see_one_state(settings):
    catalogue = database.open(settings)
    with catalogue.read() as reading:
        assert reading.scalars(select(Entry)).all() == []
        with catalogue.begin() as session:
            note(session, 1)
        assert reading.scalars(select(Entry)).all() == []
    assert numbers(catalogue) == [1]


def test_a_row_that_belongs_to_nothing_is_refused(settings):
    from sqlalchemy.exc import IntegrityError

    catalogue = database.open(settings)
    with pytest.raises(IntegrityError), catalogue.begin() as session:
        session.add(Edge(version_id=7, kind="data", name="scenes", digest="d"))


def test_a_migration_that_is_broken_off_leaves_an_empty_database_and_is_done_the_next_time(settings, monkeypatch):
    upgrade = migrate._upgrade

    def broken_off(connection) -> None:
        upgrade(connection)
        raise KeyboardInterrupt

    monkeypatch.setattr(migrate, "_upgrade", broken_off)
    with pytest.raises(KeyboardInterrupt):
        database.open(settings)
    monkeypatch.setattr(migrate, "_upgrade", upgrade)
    assert inspect(database.connect(settings)).get_table_names() == []
    with database.open(settings).begin() as session:
        note(session, 1)


def test_a_catalogue_of_a_newer_version_is_refused_by_name(settings):
    catalogue = database.open(settings)
    with catalogue.begin() as session:
        session.execute(text(f"UPDATE {migrate.VERSION_TABLE} SET version_num = '9999'"))
    says = f"is of revision 9999, this checkout knows them up to {schema.REVISION}; update the checkout"
    with pytest.raises(UserError, match=says):
        database.open(settings)


def test_alembic_is_not_imported_for_a_catalogue_that_is_up_to_date(settings):
    database.open(settings).close()
    code = (
        "import sys; from flows.catalogue import database; from flows.settings import Settings;"
        f"database.open(Settings(root='.', catalogue={settings.catalogue!r}));"
        "sys.exit('alembic' in sys.modules or 'mlflow' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_tables_of_another_program_in_the_same_database_are_left_alone(settings):
    """MLflow and Prefect keep their own `alembic_version`."""
    with database.connect(settings).begin() as connection:
        connection.execute(text("CREATE TABLE alembic_version (version_num VARCHAR(32))"))
        connection.execute(text("INSERT INTO alembic_version VALUES ('1b5f0d9ad7c1')"))
    catalogue = database.open(settings)
    with catalogue.read() as session:
        assert session.execute(text("SELECT version_num FROM alembic_version")).scalar() == "1b5f0d9ad7c1"


def test_a_server_that_restarted_between_two_transactions_is_connected_to_again(postgres_server, tmp_path):
    catalogue = database.open(on_server(postgres_server, tmp_path))
    with catalogue.begin() as session:
        note(session, 1)
    postgres_server.restart()
    with catalogue.begin() as session:
        note(session, 2)
    assert numbers(catalogue) == [1, 2]


def test_a_transaction_that_a_restart_cuts_leaves_nothing_half_done(postgres_server, tmp_path):
    catalogue = database.open(on_server(postgres_server, tmp_path))

    def work(session) -> None:
        note(session, 1)
        postgres_server.restart()
        note(session, 2)

    with pytest.raises(UserError, match="went away in the middle"):
        catalogue.write(work)  # also the second time
    assert numbers(catalogue) == []


def test_work_that_bears_repetition_survives_a_restart_in_its_middle(postgres_server, tmp_path):
    catalogue = database.open(on_server(postgres_server, tmp_path))
    cuts = iter([postgres_server.restart])

    def work(session) -> int:
        note(session, 1)
        next(cuts, lambda: None)()
        return note(session, 2).seq

    assert catalogue.write(work) == 2
    assert numbers(catalogue) == [1, 2]


def test_a_server_that_stays_away_is_an_error_that_names_it(postgres_server, tmp_path, monkeypatch):
    catalogue = database.open(on_server(postgres_server, tmp_path))
    monkeypatch.setattr(database, "RESTART_SECONDS", 0.5)
    postgres_server.stop()
    try:
        with pytest.raises(UserError, match="postgresql"), catalogue.begin():
            pass
        with pytest.raises(UserError, match="cannot open the catalogue .* see REMINT_CATALOGUE"):
            database.open(Settings(root=tmp_path, catalogue=catalogue.engine.url.render_as_string(False)))
    finally:
        postgres_server.start()


def test_a_password_is_in_no_message(tmp_path):
    for address in (
        "postgresql://me:hidden-word@127.0.0.1:9/db?connect_timeout=2",
        "postgresql://me@127.0.0.1:9/db?password=hidden-word",
    ):
        with pytest.raises(UserError) as error:
            database.open(Settings(root=tmp_path, catalogue=address))
        assert "hidden-word" not in str(error.value)
        assert "127.0.0.1" in str(error.value)


@pytest.mark.parametrize(
    ("address", "says"),
    [
        ("nonsense", "REMINT_CATALOGUE is not the address of a database"),
        ("mysql://host/db", "REMINT_CATALOGUE names a database of kind 'mysql'"),
        ("sqlite://", "names no file"),
    ],
)
def test_an_address_that_cannot_be_a_catalogue_says_what_is_expected(tmp_path, address, says):
    with pytest.raises(UserError, match=says):
        database.open(Settings(root=tmp_path, catalogue=address))


def test_a_file_that_is_no_database_is_named(tmp_path):
    path = tmp_path / "catalogue.db"
    path.write_text("this is no database, but long enough to be looked at" * 20)
    with pytest.raises(UserError, match="catalogue.db: file is not a database"):
        database.open(Settings(root=tmp_path, catalogue=f"sqlite:///{path}"))


def test_a_writer_that_holds_sqlite_for_too_long_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(database, "WAIT_SECONDS", 0.2)
    path = tmp_path / "catalogue.db"
    catalogue = database.open(Settings(root=tmp_path, catalogue=f"sqlite:///{path}"))
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UserError, match="catalogue.db: database is locked"), catalogue.begin():
        pass
    other.close()
    assert numbers(catalogue) == []
