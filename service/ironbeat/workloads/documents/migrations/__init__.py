"""The Alembic branch of the schema ``documents``."""
