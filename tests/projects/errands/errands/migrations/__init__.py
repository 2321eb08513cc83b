"""The Alembic branch of the schema ``errands``."""
