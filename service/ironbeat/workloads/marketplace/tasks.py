"""The marketplace's eleven tasks, under the names by which its owners call them.

Each may be run at any time, any number of times and by several workers at once: it changes only
what is due, and what it has changed is no longer due. A run works in bounded batches
(:mod:`.batches`) and returns what it did as counts; ``more`` says that its time was spent before
everything due was done, so that the next run goes on. Losing the database is retried three times.
"""

from __future__ import annotations

from typing import Any

import psycopg
import sqlalchemy.exc
import structlog
from celery import shared_task

from ironbeat.workloads.marketplace.batches import (
    BUDGET_SECONDS,
    Budget,
    drain,
    exclusively,
    one,
    transaction,
    written,
)

log = structlog.get_logger()

# Nobody waits for these, and they have a day until the next run, but the platform's soft limit
# (600 s) must not end them.
LONG_BUDGET_SECONDS = 480.0

# A chat that nobody wrote in for so long is removed with its messages.
INACTIVE_DAYS = 30

# To open a chat writes ten indexes and four tables.
CUSTOMERS_BATCH = 500

# Nobody else writes statistics, so that this many rows locked at once keep nobody waiting; the sums
# run along indexes and need no memory.
STATISTICS_BATCH_USERS = 50_000

# Beyond every user: what a bigint can hold.
LAST_ID = 2**63 - 1

# An expert has many chats, and a chat many messages.
EXPERTS_BATCH = 200

_RETRIED: dict[str, Any] = {
    # What passes: the server restarts, a lock or a connection is waited for too long, a deadlock.
    "autoretry_for": (
        psycopg.OperationalError,
        sqlalchemy.exc.OperationalError,
        sqlalchemy.exc.TimeoutError,
    ),
    "max_retries": 3,
    "retry_backoff": 2,
    "retry_backoff_max": 20,
    "retry_jitter": True,
}


def _done(action: str, counts: dict[str, Any]) -> dict[str, Any]:
    log.info("marketplace housekeeping done", action=action, **counts)
    return counts


@shared_task(name="app.celery_tasks.process_customer_service_queue", **_RETRIED)
def process_customer_service_queue() -> dict[str, Any]:
    """Open chats for waiting customers, in order of arrival, with the least busy free agents.

    ``assigned``: how many; ``more``: some still wait, for lack of a free agent or of time;
    ``elsewhere``: another run is doing this at the moment, and this one leaves it to that.
    """
    budget = Budget(BUDGET_SECONDS)
    assigned = 0
    while True:
        with transaction() as cursor:
            # Alone, because two at once could give the free agents to those further back.
            if not exclusively(cursor, "customer_queue"):
                result = {"assigned": assigned, "more": True, "elsewhere": True}
                return _done("process_customer_service_queue", result)
            row = one(cursor, "assign_customers", batch=CUSTOMERS_BATCH)
        assigned += row["assigned"]
        waiting = row["picked"] == CUSTOMERS_BATCH or row["assigned"] < row["picked"]
        if row["assigned"] < CUSTOMERS_BATCH or budget.spent:
            return _done(
                "process_customer_service_queue",
                {"assigned": assigned, "more": waiting, "elsewhere": False},
            )


@shared_task(name="app.celery_tasks.auto_end_timeout_chats", **_RETRIED)
def auto_end_timeout_chats() -> dict[str, Any]:
    """End open chats that were idle for their limit; their agents' places become free."""
    return _done("auto_end_timeout_chats", drain("end_chats"))


@shared_task(name="app.celery_tasks.send_timeout_warnings", **_RETRIED)
def send_timeout_warnings() -> dict[str, Any]:
    """Notify both sides of chats that will be ended soon, once for each idle period."""
    return _done("send_timeout_warnings", drain("warn_chats"))


@shared_task(name="app.celery_tasks.cancel_expired_tasks", **_RETRIED)
def cancel_expired_tasks() -> dict[str, Any]:
    """Cancel open marketplace tasks whose deadline has come."""
    return _done("cancel_expired_tasks", drain("cancel_tasks"))


@shared_task(name="app.celery_tasks.check_expired_coupons", **_RETRIED)
def check_expired_coupons() -> dict[str, Any]:
    """Expire unused coupons whose time is over."""
    return _done("check_expired_coupons", drain("expire_coupons"))


@shared_task(name="app.celery_tasks.check_expired_invitation_codes", **_RETRIED)
def check_expired_invitation_codes() -> dict[str, Any]:
    """Expire invitation codes whose time is over."""
    return _done("check_expired_invitation_codes", drain("expire_invitation_codes"))


@shared_task(name="app.celery_tasks.check_expired_points", **_RETRIED)
def check_expired_points() -> dict[str, Any]:
    """Expire what remains of points whose time is over, with a ledger entry for each lot.

    Accounts in use at this moment are left to the next run.
    """
    return _done("check_expired_points", drain("expire_points"))


@shared_task(name="app.celery_tasks.check_and_end_activities", **_RETRIED)
def check_and_end_activities() -> dict[str, Any]:
    """End activities that are over."""
    return _done("check_and_end_activities", drain("end_activities"))


@shared_task(name="app.celery_tasks.update_all_users_statistics", **_RETRIED)
def update_all_users_statistics() -> dict[str, Any]:
    """Recompute every user's statistics; rows whose figures are still true are not written.

    ``users``: looked at; ``changed``: written; ``removed``: of users who are gone; ``elsewhere``:
    another run is doing this at the moment, and this one leaves it to that.
    """
    budget = Budget(LONG_BUDGET_SECONDS)
    users = changed = removed = after_id = 0
    more, elsewhere = True, False
    while more and not budget.spent:
        with transaction() as cursor:
            # Who finds another at work leaves; so one of two always goes on to the last user.
            if not exclusively(cursor, "user_statistics"):
                elsewhere = True
                break
            batch = one(cursor, "users_range", after_id=after_id, batch=STATISTICS_BATCH_USERS)
            more = batch["last_id"] is not None
            span = {"after_id": after_id, "last_id": batch["last_id"] if more else LAST_ID}
            removed += written(cursor, "forget_user_statistics", **span)
            changed += written(cursor, "update_user_statistics", **span)
        users += batch["users"]
        after_id = span["last_id"]
    result = {"users": users, "changed": changed, "removed": removed, "more": more}
    return _done("update_all_users_statistics", result | {"elsewhere": elsewhere})


@shared_task(name="app.celery_tasks.cleanup_long_inactive_chats", **_RETRIED)
def cleanup_long_inactive_chats(inactive_days: int = INACTIVE_DAYS) -> dict[str, Any]:
    """Remove chats without activity for ``inactive_days`` days, with all their messages."""
    if inactive_days < 1:
        raise ValueError(f"inactive_days is {inactive_days}; it must be at least 1")
    counts = drain("remove_chats", budget_seconds=LONG_BUDGET_SECONDS, inactive_days=inactive_days)
    return _done("cleanup_long_inactive_chats", counts)


@shared_task(name="app.celery_tasks.update_featured_task_experts_response_time", **_RETRIED)
def update_featured_task_experts_response_time() -> dict[str, Any]:
    """Recompute how long featured experts take to answer, from the messages of their chats.

    ``experts``: looked at; ``responses``: answers measured; ``updated``: rows written.
    """
    counts = drain("update_response_times", batch=EXPERTS_BATCH, budget_seconds=LONG_BUDGET_SECONDS)
    return _done("update_featured_task_experts_response_time", counts)
