"""The Alembic branch of the schema ``marketplace``."""
