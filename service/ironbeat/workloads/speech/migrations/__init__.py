"""The Alembic branch of the schema ``speech``."""
