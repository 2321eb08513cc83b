"""The traces."""

from alembic import op

revision = "0001_errands"
down_revision = None
branch_labels = ("errands",)
depends_on = None


def upgrade() -> None:
    """Create the schema and its table."""
    op.execute("CREATE SCHEMA errands")
    op.execute(
        """
        CREATE TABLE errands.traces (
            id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
            run_id text NOT NULL,
            event text NOT NULL CHECK (event IN ('begin', 'end')),
            at timestamptz NOT NULL DEFAULT clock_timestamp(),
            host text NOT NULL,
            pid integer NOT NULL
        )
        """
    )
    op.execute("CREATE INDEX traces_run_id ON errands.traces (run_id)")


def downgrade() -> None:
    """Remove the schema and everything in it."""
    op.execute("DROP SCHEMA errands CASCADE")
