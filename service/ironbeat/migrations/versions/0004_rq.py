"""Workers of RQ's hold leases, too.

They are a kind of their own: whether a worker of Celery's is there must not depend on them.
"""

from __future__ import annotations

from alembic import op

revision = "0004_rq"
down_revision = "0003_brokerless"
branch_labels = None
depends_on = None

_KINDS = ("worker", "beat", "scheduler", "api", "watchdog", "scaler")


def _allow(*kinds: str) -> None:
    named = ", ".join(f"'{kind}'" for kind in kinds)
    op.drop_constraint("leases_kind_check", "leases", schema="ironbeat")
    op.create_check_constraint(
        "leases_kind_check", "leases", f"kind IN ({named})", schema="ironbeat"
    )


def upgrade() -> None:
    """Allow the kind ``rq``."""
    _allow(*_KINDS, "rq")


def downgrade() -> None:
    """Forget the leases of RQ's workers, and refuse new ones."""
    op.execute("DELETE FROM ironbeat.leases WHERE kind = 'rq'")
    _allow(*_KINDS)
