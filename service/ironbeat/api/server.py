"""The server of ``ironbeat api``: uvicorn, with as many processes as the settings say."""

from __future__ import annotations

from ironbeat.observability import logs, metrics
from ironbeat.settings import Settings, SettingsError, get_settings

# How long open requests may take to end when the server is told to stop.
STOP_SECONDS = 15


def run(
    settings: Settings | None = None,
    *,
    host: str | None = None,
    port: int | None = None,
    workers: int | None = None,
) -> None:
    """Serve the API until told to stop. Raises :class:`SettingsError` when there is no token."""
    settings = settings or get_settings()
    if settings.api_token is None or not settings.api_token.get_secret_value():
        raise SettingsError(
            "the API has no token, and would refuse everybody: set IRONBEAT_API_TOKEN in the file "
            "that IRONBEAT_ENV_FILE names; `./scripts/up` and the Ansible role generate one"
        )
    processes = workers or settings.api_workers
    if processes > 1:
        metrics.share(settings.run_dir / "api-metrics")
    logs.configure("api", settings=settings, replace=False)
    import uvicorn

    uvicorn.run(
        "ironbeat.api.application:serve_api",
        factory=True,
        host=host or settings.api_host,
        port=settings.api_port if port is None else port,
        workers=processes,
        timeout_graceful_shutdown=min(STOP_SECONDS, settings.api_timeout),
        timeout_worker_healthcheck=30,
        # Ours, which write JSON and never wait.
        log_config=None,
        server_header=False,
        h11_max_incomplete_event_size=64 * 1024,
    )
