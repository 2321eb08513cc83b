"""What Alembic runs for each command: our connection, and the version table of the branch."""

from __future__ import annotations

from alembic import context

context.configure(
    connection=context.config.attributes["connection"],
    version_table=context.config.attributes["version_table"],
    version_table_schema="public",
    # Each revision commits by itself, so that one may build an index concurrently.
    transaction_per_migration=True,
)

with context.begin_transaction():
    context.run_migrations()
