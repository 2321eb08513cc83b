"""What the marketplace declares is what its owners call by name."""

from __future__ import annotations

import importlib

import pytest
from celery import current_app

from ironbeat import load_queries
from ironbeat.workload import discover

# REQUIREMENTS of the owners: schedule -> (cadence, task).
OWNERS = {
    "process-customer-service-queue": (("interval", "30s"), "process_customer_service_queue"),
    "auto-end-timeout-chats": (("interval", "30s"), "auto_end_timeout_chats"),
    "send-timeout-warnings": (("interval", "30s"), "send_timeout_warnings"),
    "cancel-expired-tasks": (("interval", "60s"), "cancel_expired_tasks"),
    "check-expired-coupons": (("interval", "300s"), "check_expired_coupons"),
    "check-expired-invitation-codes": (("interval", "300s"), "check_expired_invitation_codes"),
    "check-expired-points": (("interval", "300s"), "check_expired_points"),
    "check-and-end-activities": (("interval", "300s"), "check_and_end_activities"),
    "update-all-users-statistics": (("interval", "600s"), "update_all_users_statistics"),
    "cleanup-long-inactive-chats": (("cron", "0 2 * * *"), "cleanup_long_inactive_chats"),
    "update-featured-task-experts-response-time": (
        ("cron", "0 3 * * *"),
        "update_featured_task_experts_response_time",
    ),
}


def test_schedules_are_those_of_the_owners() -> None:
    (workload,) = discover(["marketplace"])
    declared = {spec.name: (spec.cadence(), spec.task) for spec in workload.schedules}
    assert declared == {
        name: (cadence, f"app.celery_tasks.{task}") for name, (cadence, task) in OWNERS.items()
    }


def test_daily_schedules_follow_the_clock_of_taipei() -> None:
    (workload,) = discover(["marketplace"])
    daily = [spec for spec in workload.schedules if spec.cron]
    assert {spec.timezone for spec in daily} == {"Asia/Taipei"}


def test_an_interval_expires_before_it_comes_again() -> None:
    (workload,) = discover(["marketplace"])
    intervals = [spec for spec in workload.schedules if spec.every]
    assert all(spec.expires == spec.every for spec in intervals)


def test_every_schedule_has_its_task_and_every_task_its_schedule() -> None:
    (workload,) = discover(["marketplace"])
    for module in workload.tasks:
        importlib.import_module(module)
    registered = {name for name in current_app.tasks if name.startswith("app.celery_tasks.")}
    assert registered == {spec.task for spec in workload.schedules}


@pytest.mark.parametrize("filename", ["queries.sql", "sample.sql"])
def test_every_query_says_what_it_does(filename: str) -> None:
    for name, text in load_queries("ironbeat.workloads.marketplace", filename).items():
        heading = text.splitlines()[0]
        assert len(heading.removeprefix(f"-- {name}: ")) > 5, name


def test_queries_that_two_workers_could_meet_in_skip_what_is_locked() -> None:
    sql = load_queries("ironbeat.workloads.marketplace", "queries.sql")
    batches = [name for name, text in sql.items() if "LIMIT %(batch)s" in text]
    unlocked = {name for name in batches if "SKIP LOCKED" not in sql[name]}
    # That one only reads where the next range of users ends.
    assert unlocked == {"users_range"}
