"""The Alembic branch of the schema ``assistant``."""
