"""The Alembic branch of the schema ``analytics``."""
