"""``ironbeat audit``: who changed what."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated
from zoneinfo import ZoneInfo

import typer

from ironbeat.cli.output import JsonFlag, moment, show, table
from ironbeat.cli.when import ACCEPTED, span

app = typer.Typer()


@app.command("audit")
def list_audit(
    who: Annotated[str | None, typer.Option(help="Only of this person or `token`.")] = None,
    action: Annotated[
        str | None, typer.Option(help="Only these: `schedule.pause`, or `schedule.`")
    ] = None,
    subject: Annotated[str | None, typer.Option(help="Only done to this.")] = None,
    since: Annotated[str | None, typer.Option(help=f"From then on: {ACCEPTED}.")] = None,
    until: Annotated[str | None, typer.Option(help="Before then; as --since.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=10_000, help="At most so many.")] = 50,
    as_json: JsonFlag = False,
) -> None:
    """List who changed what, when, and how that went: over pages, the API and commands."""
    from ironbeat import database
    from ironbeat.access import audit
    from ironbeat.settings import get_settings

    settings = get_settings()
    url, zone = settings.database_url.get_secret_value(), ZoneInfo(settings.timezone)
    start, end = span(since, until, now=datetime.now(UTC), zone=zone)
    with database.connection(url) as connection:
        found = audit.entries(
            connection,
            who=who,
            action=action,
            subject=subject,
            since=start,
            until=end,
            limit=limit,
        )
    show(
        found,
        as_json,
        lambda: (
            table(
                None,
                ["!when", "!who", "!via", "!what", "of what", "outcome"],
                [
                    (
                        moment(each.at),
                        each.who,
                        each.via,
                        each.action,
                        each.subject,
                        each.outcome or "unfinished",
                    )
                    for each in found
                ],
            )
            if found
            else "Nothing was changed."
        ),
    )
