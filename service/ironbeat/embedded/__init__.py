"""PostgreSQL and Valkey (a Redis-compatible server) from the package index, run as they are.

A laptop needs no database, no Docker and no root: ``python -m ironbeat.embedded postgres`` (or
``redis``) prepares a data directory and then *becomes* the server, so that supervisord's process
is the server itself. Both listen on a unix socket and on loopback, with a generated password.
For tests, :func:`temporary_postgres` and :func:`temporary_redis` run throw-away servers.

Nothing here is used on hosts, where Debian's own packages run.
"""

from __future__ import annotations

from ironbeat.embedded.process import EmbeddedError, ServerProcess
from ironbeat.embedded.temporary import temporary_postgres, temporary_redis

__all__ = ["EmbeddedError", "ServerProcess", "temporary_postgres", "temporary_redis"]
