"""What the suite needs where there is no broker: drawing runs, keeping results, counting chords."""

from __future__ import annotations

from pathlib import Path

from alembic import op

revision = "0003_brokerless"
down_revision = "0002_overload"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create the index and the tables."""
    # Sent as it is: a colon in it is no parameter.
    op.get_bind().exec_driver_sql(Path(__file__).with_suffix(".sql").read_text())


def downgrade() -> None:
    """Remove them; results and unfinished chords are lost."""
    down = Path(__file__).with_name("0003_brokerless_down.sql")
    op.get_bind().exec_driver_sql(down.read_text())
