"""Commands of ``ironbeat`` passed on to one host: ``fab task|cancel|schedule.*``.

What the command prints is printed and its exit status is kept. It is run once, on the first host
that is reached, and never tried again elsewhere: it may change something.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Sequence

from scripts.ops import output, suite
from scripts.ops.failures import OK, USAGE, OpsError
from scripts.ops.inventory import Host
from scripts.ops.reach import Reach

# A schedule may be run with --wait.
ERRAND_SECONDS = 960.0


def run(
    hosts: Sequence[Host],
    arguments: Sequence[str],
    *,
    as_json: bool,
    seconds: float = ERRAND_SECONDS,
    live: bool = False,
) -> int:
    """Run ``ironbeat`` with ``arguments`` on one of the hosts, for at most so many seconds.

    ``live``: what it says on the way is shown as it comes.
    """
    return _pass_on(suite.first_reached(hosts), arguments, as_json, seconds, live)


def change(
    hosts: Sequence[Host],
    arguments: Sequence[str],
    *,
    before: Sequence[str],
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run a command that changes something; a dry run shows it, and what ``before`` shows now."""
    if not dry_run:
        return run(hosts, arguments, as_json=as_json)
    reached = suite.first_reached(hosts)
    now = suite.document(reached, before) if before else None
    command = shlex.join(["ironbeat", *arguments])
    if as_json:
        output.document({"dry_run": True, "host": reached.host.name, "run": command, "now": now})
        return OK
    print(f"would run on {reached.host.name}: {command}")
    if before:
        return _pass_on(reached, before, as_json=False)
    return OK


def options(pairs: Sequence[str]) -> list[str]:
    """``name=value`` pairs as options of ``ironbeat``: ``catch_up=all`` is ``--catch-up all``.

    Raises :class:`OpsError` for what is no pair.
    """
    found = []
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not re.fullmatch(r"[a-z][a-z_-]*", name):
            raise OpsError(
                f"--set {pair!r} is not NAME=VALUE",
                "As in --set cron='0 3 * * *' --set timezone=UTC.",
                USAGE,
            )
        found += [f"--{name.replace('_', '-')}", value]
    return found


def _pass_on(
    reached: Reach,
    arguments: Sequence[str],
    as_json: bool,
    seconds: float = ERRAND_SECONDS,
    live: bool = False,
) -> int:
    flag = ["--json"] if as_json else []
    answer = suite.run(reached, [*arguments, *flag], seconds, output.hear if live else None)
    sys.stdout.write(answer.out)
    sys.stdout.flush()
    if not live:
        sys.stderr.write(answer.err)
    return answer.status
