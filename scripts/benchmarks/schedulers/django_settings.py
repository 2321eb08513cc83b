"""The smallest Django project that django-celery-beat runs in."""

from __future__ import annotations

from urllib.parse import unquote, urlsplit

from benchmarks.schedulers import database

_url = urlsplit(database())

SECRET_KEY = "benchmark"  # noqa: S105 (it signs nothing)
USE_TZ = True
TIME_ZONE = "UTC"
INSTALLED_APPS = ["django_celery_beat"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": _url.path.strip("/"),
        "USER": _url.username,
        "PASSWORD": unquote(_url.password or ""),
        "HOST": _url.hostname,
        "PORT": _url.port,
    }
}
