"""Dead letters that were dealt with, throttles, and the leases of watchdog and scaler."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0002_overload"
down_revision = "0001_platform"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Add what the SQL file beside this one says."""
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    """Take it away again; leases of the two programs lapse with it."""
    op.get_bind().exec_driver_sql(Path(__file__).with_name("0002_overload_down.sql").read_text())
