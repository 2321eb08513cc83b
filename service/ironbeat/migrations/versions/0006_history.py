"""Indexes for what the first screen asks, however long the history is.

Since when a queue waits or a limit is broken, without reading a day of looks; and the dead letters
nobody has dealt with, of which there are few among all that did not succeed.
"""

from __future__ import annotations

from alembic import op

revision = "0006_history"
down_revision = "0005_dashboard"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Create them."""
    op.execute("CREATE INDEX queue_samples_queue ON ironbeat.queue_samples (queue, at)")
    op.execute("CREATE INDEX limit_samples_name ON ironbeat.limit_samples (name, at)")
    op.execute(
        "CREATE INDEX run_history_dead ON ironbeat.run_history (ended_at)"
        " WHERE state = 'dead' AND handled IS NULL"
    )


def downgrade() -> None:
    """Remove them."""
    op.execute(
        "DROP INDEX ironbeat.limit_samples_name, ironbeat.queue_samples_queue,"
        " ironbeat.run_history_dead"
    )
