"""``ironbeat status|health|report``: how the suite is doing."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from zoneinfo import ZoneInfo

import typer

from ironbeat.cli.failures import CommandError, ExitStatus
from ironbeat.cli.output import JsonFlag, show
from ironbeat.cli.when import ACCEPTED, span

if TYPE_CHECKING:
    from ironbeat.watch import Report, Status

app = typer.Typer()


def judged(status: Status) -> ExitStatus:
    """Whether all is well: not when the suite is unhealthy or a critical limit is broken."""
    critical = any(limit.severity == "critical" for limit in status.broken)
    return ExitStatus.FAILED if critical or status.health.status == "unhealthy" else ExitStatus.OK


def status_fields(status: Status) -> dict[str, Any]:
    """The status as JSON shows it, with the limits that are broken named."""
    from ironbeat.watch import plain

    fields: dict[str, Any] = plain(status)
    fields["broken"] = [limit.name for limit in status.broken]
    return fields


@app.command()
def health(as_json: JsonFlag = False) -> None:
    """Say in under a second whether the suite works; exit status 1 when it does not."""
    from ironbeat.watch import check_health

    found = check_health()

    def render() -> Any:
        from ironbeat.cli.views import headline

        return headline(found)

    show(found.body(), as_json, render)
    if found.status == "unhealthy":
        raise typer.Exit(ExitStatus.FAILED)


@app.command()
def status(
    window: Annotated[int, typer.Option(min=1, help="Judge the runs of so many minutes.")] = 60,
    schedules: Annotated[int, typer.Option(min=0, help="Show at most so many schedules.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show limits with their measured figures, processes, queues, schedules and failures."""
    from ironbeat.watch import status as read

    found = read(window_seconds=window * 60.0, schedule_limit=schedules)

    def render() -> Any:
        from ironbeat.cli.views import status_page

        return status_page(found)

    show(status_fields(found) if as_json else None, as_json, render)
    raise typer.Exit(judged(found))


@app.command()
def report(
    since: Annotated[str | None, typer.Option(help=f"The period's beginning: {ACCEPTED}.")] = None,
    until: Annotated[str | None, typer.Option(help="The period's end; as --since.")] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write it to this file instead, as a page with plots.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the status, what waits, what a period brought (a day by default), which tasks import."""
    from ironbeat.settings import get_settings
    from ironbeat.watch import plain
    from ironbeat.watch import report as read

    zone = ZoneInfo(get_settings().timezone)
    start, end = span(since, until, now=datetime.now(UTC), zone=zone)
    found = read(since=start, until=end)
    if html is not None:
        _write_page(html, found, zone, as_json)
        raise typer.Exit(judged(found.status))

    def render() -> Any:
        from ironbeat.cli.views import report_page

        return report_page(found)

    fields = plain(found) | {"status": status_fields(found.status)} if as_json else None
    show(fields, as_json, render)
    raise typer.Exit(judged(found.status))


def _write_page(path: Path, found: Report, zone: ZoneInfo, as_json: bool) -> None:
    """Write the report as a page that needs nothing else. Raises :class:`CommandError`."""
    from ironbeat.observability.masking import Masker, secrets_of
    from ironbeat.settings import get_settings
    from ironbeat.watch.webpage import page

    text = page(found, zone, Masker(secrets_of(get_settings())))
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise CommandError(
            f"{path} cannot be written: {error.strerror}", "Name another file.", ExitStatus.USAGE
        ) from error
    show({"written": str(path)}, as_json, lambda: f"Written: {path}")
