"""What each execution of a stage cost.

Executions that are there already ran on the machine of their run: their seconds are machine seconds. The rest of what
they cost was not measured and stays NULL.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

COLUMNS = {
    "machine_seconds": sa.Double(),
    "cpu_seconds": sa.Double(),
    "gpu_seconds": sa.Double(),
    "bytes_in": sa.BigInteger(),
    "bytes_out": sa.BigInteger(),
    "peak_memory": sa.BigInteger(),
}


def upgrade() -> None:
    for name, kind in COLUMNS.items():
        op.add_column("execution", sa.Column(name, kind, nullable=True))
    op.create_index("execution_newest", "execution", ["stage", "action", "id"])
    op.execute("UPDATE execution SET machine_seconds = seconds WHERE seconds > 0")
