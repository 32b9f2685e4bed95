"""What Alembic runs around migrations: on the connection that `flows.catalogue.migrate` hands over, or, for a developer
who types `alembic upgrade head` and `alembic revision --autogenerate -m "..."`, on the catalogue of the settings.
"""

from alembic import context
from sqlalchemy import Connection

from flows.catalogue import database, migrate, schema


def run(connection: Connection) -> None:
    context.configure(
        connection=connection,
        target_metadata=schema.Base.metadata,
        version_table=migrate.VERSION_TABLE,
        render_as_batch=connection.dialect.name == "sqlite",  # it changes a table by copying it
        compare_type=True,
    )
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    run(given)
else:
    from flows import settings

    with database.connect(settings.here()).begin() as connection:
        run(connection)
