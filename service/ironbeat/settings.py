"""Every setting: its type, its default, and the environment names that set it."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class Settings(BaseSettings):
    """The platform's settings, read from the environment and from ``IRONBEAT_ENV_FILE``."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    database_url: SecretStr = Field(
        SecretStr("postgresql://localhost/ironbeat"),
        validation_alias=AliasChoices("IRONBEAT_DATABASE_URL", "DATABASE_URL"),
    )
    broker_url: SecretStr = Field(
        SecretStr("redis://localhost:6379/1"),
        validation_alias=AliasChoices("CELERY_BROKER_URL", "REDIS_URL"),
    )
    result_backend: SecretStr = Field(
        SecretStr("redis://localhost:6379/2"), validation_alias="CELERY_RESULT_BACKEND"
    )
    use_redis: bool = Field(True, validation_alias="USE_REDIS")
    timezone: str = Field("Asia/Taipei", validation_alias="IRONBEAT_TIMEZONE")
    workloads: str = Field("", validation_alias="IRONBEAT_WORKLOADS")
    state_dir: Path = Field(Path("var"), validation_alias="IRONBEAT_STATE_DIR")
    lease_seconds: float = Field(6.0, validation_alias="IRONBEAT_LEASE_SECONDS")
    lease_renew_seconds: float = Field(2.0, validation_alias="IRONBEAT_LEASE_RENEW_SECONDS")


@lru_cache(maxsize=1)
def get_settings() -> Settings:
    """The settings of this process, read once."""
    return Settings()  # type: ignore[call-arg]
