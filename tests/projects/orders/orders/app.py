"""The project's Celery application, with its own names, queues, schedule and configuration."""

import os
from datetime import timedelta

from celery import Celery
from celery.schedules import crontab, schedule, solar

import ironbeat

app = Celery(
    "orders",
    broker=os.environ.get("ORDERS_BROKER", "redis://localhost:6379/0"),
    backend=os.environ.get("ORDERS_BACKEND", "redis://localhost:6379/1"),
)
app.conf.update(
    timezone="Europe/Berlin",
    task_default_queue="orders",
    beat_schedule={
        "collect-payments": {"task": "orders.collect", "schedule": 1.0, "args": (7,)},
        "remind": {"task": "orders.remind", "schedule": timedelta(minutes=5)},
        "report": {
            "task": "orders.report",
            "schedule": crontab(minute=30, hour=3, day_of_week="mon-fri"),
            "options": {"expires": 600, "priority": 3},
        },
        "close-shop": {"task": "orders.close", "schedule": solar("sunset", 52.5, 13.4)},
        "tidy": {"task": "orders.tidy", "schedule": schedule(run_every=90)},
    },
)


@app.task(name="orders.collect")
def collect(customer):
    return f"collected from {customer}"


@app.task(name="orders.remind")
def remind():
    return None


@app.task(name="orders.report", bind=True, max_retries=5)
def report(self, day=None):
    return day


@app.task(name="orders.close")
def close():
    return None


@app.task(name="orders.tidy")
def tidy():
    return None


ironbeat.adopt(app)
