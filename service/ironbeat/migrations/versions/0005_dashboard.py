"""What the dashboard needs: people, sessions, the audit, and how queues and limits went."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0005_dashboard"
down_revision = "0004_rq"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the tables."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    """Remove them; people, the audit and the history of queues are lost."""
    down = Path(__file__).with_name("0005_dashboard_down.sql")
    op.get_bind().exec_driver_sql(down.read_text())
