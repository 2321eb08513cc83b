"""The platform's tables: schedules, fires, runs and their history, leases.

The tables themselves are in the SQL file beside this one.
"""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001_platform"
down_revision = None
branch_labels = ("ironbeat",)
depends_on = None


def upgrade() -> None:
    """Create the schema and everything in it."""
    op.execute("CREATE SCHEMA ironbeat")
    # Sent as it is: a colon in it is no parameter.
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    """Remove the schema and everything in it."""
    op.execute("DROP SCHEMA ironbeat CASCADE")
