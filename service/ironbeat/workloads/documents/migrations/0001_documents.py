"""The workload's tables."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0001_documents"
down_revision = None
branch_labels = ("documents",)
depends_on = None


def _run(filename: str) -> None:
    text = Path(__file__).with_name(filename).read_text(encoding="utf-8")
    # Without parameters, so that psycopg sends the file as it is, percent signs included.
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(text)


def upgrade() -> None:
    """Create everything in the schema ``documents``."""
    _run("0001_documents.sql")


def downgrade() -> None:
    """Remove it again, with its rows."""
    _run("0001_documents_down.sql")
