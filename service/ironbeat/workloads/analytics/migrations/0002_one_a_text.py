"""Search finds each text once: the index has one vector of those of equal texts."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002_one_a_text"
down_revision = "0001_analytics"
branch_labels = None
depends_on = None


def _run(filename: str) -> None:
    text = Path(__file__).with_name(filename).read_text(encoding="utf-8")
    # Without parameters, so that psycopg sends the file as it is, percent signs included.
    op.get_bind().execution_options(no_parameters=True).exec_driver_sql(text)


def upgrade() -> None:
    """Choose one vector a text; the index of them is made by the next ``rebuild_chat_vectors``."""
    _run("0002_one_a_text.sql")


def downgrade() -> None:
    """Forget which ones they were; the next rebuild makes the index of all."""
    _run("0002_one_a_text_down.sql")
