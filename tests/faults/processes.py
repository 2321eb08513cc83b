"""Faults of the suite's own processes: told to stop, stopped in their tracks, cut off, killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

from tests.faults import elsewhere
from tests.faults.accounting import Traces
from tests.faults.network import network
from tests.faults.scenario import DIED_SECONDS, Scenario
from tests.faults.suite import ROOT, Suite, wait_until

ONE_EACH = "one a worker process that was cut off in the middle of a task: its concurrency"
PROGRAMS = ("beat", "worker", "api", "flower", "watchdog", "scaler")


# -- workers ---------------------------------------------------------------------------------------


def worker_killed(suite: Suite) -> float:
    """`kill -9` of one of two workers, in the middle of a task."""
    id = suite.submit("counting.work", 4)
    suite.kill("worker", index=suite.pids("worker").index(suite.worker_of(id)))
    return begins_again(suite, id)


def every_worker_killed(suite: Suite) -> float:
    """`kill -9` of all workers at once."""
    id = suite.submit("counting.work", 4)
    suite.worker_of(id)
    suite.kill("worker")
    return begins_again(suite, id)


def worker_told_to_stop(suite: Suite) -> float:
    """SIGTERM of one of two workers; supervisord starts it again."""
    [pid] = suite.kill("worker", signal.SIGTERM, index=0)

    def replaced() -> bool:
        pids = suite.pids("worker")
        return pid not in pids and len(pids) == 2

    return wait_until(replaced, 60)


def worker_stopped_beyond_its_lease(suite: Suite) -> float:
    """SIGSTOP of a worker in the middle of a task for 15 s: the task moves, and then it goes on."""
    id = suite.submit("counting.work", 4)
    pid = suite.worker_of(id)
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        seconds = begins_again(suite, id)
        time.sleep(max(0.0, 15 - (time.monotonic() - began)))
    finally:
        os.kill(pid, signal.SIGCONT)
    # Its own execution ends too; the outcome is refused.
    wait_until(lambda: len(Traces.read(suite.traces).ends[id]) == 2, 30)
    return seconds


def every_worker_stopped(suite: Suite) -> float:
    """SIGSTOP of all workers for 12 s, then SIGCONT."""
    with suite.frozen("worker"):
        time.sleep(12)
    back_at = suite.now()
    return wait_until(lambda: suite.begun_since(back_at), 60)


def worker_and_watchdog_killed(suite: Suite) -> float:
    """`kill -9` of a worker elsewhere, whose death no watchdog sees: its lease has to lapse."""
    with elsewhere.program(suite, "worker") as other:
        id = run_on(suite, other.pid, 4)
        other.kill()
        return begins_again(suite, id)


def host_vanishes(suite: Suite) -> float:
    """All processes of a host stand still for 20 s in the middle of a task, and then go on."""
    with (
        elsewhere.program(suite, "beat", "vanishing-beat") as beat,
        elsewhere.program(suite, "worker") as other,
    ):
        id = run_on(suite, other.pid, 4)
        began = time.monotonic()
        other.suspend()
        beat.suspend()
        seconds = begins_again(suite, id)
        time.sleep(max(0.0, 20 - (time.monotonic() - began)))
        other.resume()
        beat.resume()
        wait_until(lambda: len(Traces.read(suite.traces).ends[id]) == 2, 30)
        return seconds


def host_dies(suite: Suite) -> float:
    """All processes of a host are killed at once in the middle of a task."""
    with (
        elsewhere.program(suite, "beat", "dying-beat") as beat,
        elsewhere.program(suite, "worker") as other,
    ):
        id = run_on(suite, other.pid, 4)
        other.kill()
        beat.kill()
        return begins_again(suite, id)


def worker_cut_off(suite: Suite) -> float:
    """A host's cable is pulled for 20 s in the middle of a task, which goes on all the same."""
    with (
        network(suite) as net,
        elsewhere.program(suite, "worker", environment=net.environment) as other,
    ):
        # Nobody else works on one that lasts: a worker that is busy could not take it over.
        suite.hold("worker")
        try:
            id = suite.submit("counting.work", 18)
            assert suite.worker_of(id) == other.pid
        finally:
            suite.release("worker")
        suite.worker_of(suite.submit("counting.work", 0))
        began = time.monotonic()
        net.pull()
        seconds = begins_again(suite, id)
        time.sleep(max(0.0, 20 - (time.monotonic() - began)))
        net.pull(pulled=False)
        wait_until(lambda: len(Traces.read(suite.traces).ends[id]) == 2, 60)
        return seconds


def network_slow(suite: Suite) -> float:
    """The only worker and the only beat reach both stores a tenth of a second late each way."""
    with network(suite) as net:
        for relay in net.relays:
            relay.delay = 0.1
        with (
            elsewhere.program(suite, "beat", "far-beat", net.environment),
            elsewhere.program(suite, "worker", environment=net.environment),
        ):
            suite.hold("beat")
            suite.hold("worker")
            try:
                return longest_without_fire(suite, 15)
            finally:
                suite.release("worker")
                suite.release("beat")


def network_flaps(suite: Suite) -> float:
    """All connections of the only worker and the only beat are cut each second, for 15 s."""
    with (
        network(suite) as net,
        elsewhere.program(suite, "beat", "far-beat", net.environment),
        elsewhere.program(suite, "worker", environment=net.environment),
    ):
        suite.hold("beat")
        suite.hold("worker")
        try:
            for _ in range(15):
                for relay in net.relays:
                    relay.cut()
                time.sleep(1)
            healed_at = suite.now()
            return wait_until(lambda: suite.begun_since(healed_at), 30)
        finally:
            suite.release("worker")
            suite.release("beat")


# -- beats -----------------------------------------------------------------------------------------


def beat_killed(suite: Suite) -> float:
    """`kill -9` of the only beat."""
    before = suite.fires()
    suite.kill("beat")
    return wait_until(lambda: suite.fires() > before + 20, 30)


def beat_told_to_stop(suite: Suite) -> float:
    """SIGTERM of the only beat."""
    before = suite.fires()
    suite.kill("beat", signal.SIGTERM)
    return wait_until(lambda: suite.fires() > before + 20, 60)


def beat_stopped_for_a_while(suite: Suite) -> float:
    """SIGSTOP of the only beat for five seconds, then SIGCONT."""
    with suite.frozen("beat"):
        time.sleep(5)
        before = suite.fires()
    return wait_until(lambda: suite.fires() > before + 20, 30)


def one_of_two_beats_killed(suite: Suite) -> float:
    """`kill -9` of one of two beats."""
    with elsewhere.program(suite, "beat") as other:
        time.sleep(3)
        other.kill()
        return longest_without_fire(suite, 10)


def one_of_two_beats_stopped_for_a_minute(suite: Suite) -> float:
    """SIGSTOP of one of two beats for a minute, then SIGCONT."""
    with elsewhere.program(suite, "beat") as other:
        time.sleep(3)
        other.suspend()
        seconds = longest_without_fire(suite, 60)
        other.resume()
        return max(seconds, longest_without_fire(suite, 5))


def beat_stopped_in_its_transaction(suite: Suite) -> float:
    """SIGSTOP of one of two beats for a minute while it holds its schedules' rows."""
    with elsewhere.program(suite, "beat") as other:
        # The suite's own stands still for a moment, so that the other one has the rows.
        with suite.frozen("beat"), suite.locked("ironbeat.fires"):
            # It has taken its rows, and waits for the table that the runs are noted in.
            wait_until(lambda: waits_for_lock(suite, "ironbeat beat"), 10)
            other.suspend()
        # The server has done what it was asked for; the transaction is open, and nobody ends it.
        before = suite.fires()
        began = time.monotonic()
        seconds = wait_until(lambda: suite.fires() > before + 40, 60)
        time.sleep(max(0.0, 60 - (time.monotonic() - began)))
        other.resume()
        return max(seconds, longest_without_fire(suite, 5))


def beat_cut_off(suite: Suite) -> float:
    """The cable of one of two beats is pulled for 20 s."""
    with network(suite) as net, elsewhere.program(suite, "beat", environment=net.environment):
        time.sleep(3)
        net.pull()
        seconds = longest_without_fire(suite, 20)
        net.pull(pulled=False)
        return max(seconds, longest_without_fire(suite, 5))


# -- the others ------------------------------------------------------------------------------------


def api_killed(suite: Suite) -> float:
    """`kill -9` of the API's processes."""
    suite.signal_family(signal.SIGKILL, "api")
    return suite.until_healthy()


def every_program_killed(suite: Suite) -> float:
    """`kill -9` of everything but the stores at once."""
    id = suite.submit("counting.work", 4)
    suite.worker_of(id)
    suite.signal_family(signal.SIGKILL, *PROGRAMS)
    again = begins_again(suite, id)
    suite.until_healthy(120)
    return again


def submitter_killed(suite: Suite) -> float:
    """`kill -9` of a program in the middle of its submissions: what returned is in the ledger."""
    submitting = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.load", "5000", "2000", "0"],
        env=suite.environment, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
        text=True,
    )  # fmt: skip
    assert submitting.stdout is not None
    told = [submitting.stdout.readline().split()[0] for _ in range(200)]
    submitting.kill()
    # Every fourth is a plain `.delay()`, which promises no more than Celery's.
    told += [line.split()[0] for line in submitting.stdout if line.endswith("\n")]
    submitting.wait()
    durable = [id for number, id in enumerate(told) if number % 4]

    def ended() -> bool:
        rows = suite.rows(
            "SELECT count(*) FROM ironbeat.run_history WHERE id = ANY(%s) AND state = 'succeeded'",
            durable,
        )
        return bool(rows[0][0] == len(durable))

    return wait_until(ended, 60)


SCENARIOS = {
    "worker-killed": Scenario(
        "worker", "`kill -9` of one of two, in the middle of a task", worker_killed,
        "its task begins again", within=DIED_SECONDS,
    ),
    "every-worker-killed": Scenario(
        "worker", "`kill -9` of all at once, in the middle of a task", every_worker_killed,
        "the task begins again", within=DIED_SECONDS,
    ),
    "worker-terminated": Scenario(
        "worker", "SIGTERM of one of two", worker_told_to_stop, "a new one is there", lasts=4,
    ),
    "worker-paused": Scenario(
        "worker", "SIGSTOP for 15 s in the middle of a task, then SIGCONT",
        worker_stopped_beyond_its_lease, "its task begins elsewhere", lasts=18,
        within=DIED_SECONDS, overlaps=1, why=ONE_EACH,
    ),
    "every-worker-paused": Scenario(
        "worker", "SIGSTOP of all for 12 s, then SIGCONT", every_worker_stopped,
        "tasks begin again after SIGCONT", lasts=13, within=DIED_SECONDS, overlaps=2, why=ONE_EACH,
    ),
    "worker-killed-unseen": Scenario(
        "worker", "`kill -9` where no watchdog sees it", worker_and_watchdog_killed,
        "its task begins again", lasts=15, within=DIED_SECONDS,
    ),
    "host-vanishes": Scenario(
        "host", "a worker and a beat stand still for 20 s in the middle of a task, and go on",
        host_vanishes, "its task begins elsewhere", lasts=30, within=DIED_SECONDS, overlaps=1,
        why=ONE_EACH,
    ),
    "host-dies": Scenario(
        "host", "a worker and a beat are killed in the middle of a task, nobody is left to see it",
        host_dies, "its task begins elsewhere", lasts=15, within=DIED_SECONDS,
    ),
    "host-cut-off": Scenario(
        "network", "a worker's cable is pulled for 20 s in the middle of a task", worker_cut_off,
        "its task begins elsewhere", lasts=35, within=DIED_SECONDS, overlaps=1, why=ONE_EACH,
    ),
    "network-slow": Scenario(
        "network", "0.1 s late each way, for the only worker and the only beat", network_slow,
        "longest time without a fire", lasts=30,
    ),
    "network-flaps": Scenario(
        "network", "all connections of worker and beat are cut each second for 15 s",
        network_flaps, "tasks begin again", lasts=30, within=DIED_SECONDS, overlaps=1, why=ONE_EACH,
    ),
    "beat-killed": Scenario(
        "beat", "`kill -9` of the only one", beat_killed, "it fires again", within=DIED_SECONDS,
    ),
    "beat-terminated": Scenario(
        "beat", "SIGTERM of the only one", beat_told_to_stop, "it fires again", lasts=4,
    ),
    "beat-stopped": Scenario(
        "beat", "SIGSTOP of the only one for 5 s, then SIGCONT", beat_stopped_for_a_while,
        "it fires again after SIGCONT", lasts=6,
    ),
    "one-of-two-beats-killed": Scenario(
        "beat", "`kill -9` of one of two", one_of_two_beats_killed,
        "longest time without a fire", lasts=20, within=2,
    ),
    "one-of-two-beats-stopped": Scenario(
        "beat", "SIGSTOP of one of two for a minute, then SIGCONT",
        one_of_two_beats_stopped_for_a_minute, "longest time without a fire", lasts=75, within=2,
    ),
    "beat-stopped-in-transaction": Scenario(
        "beat", "SIGSTOP of one of two for a minute while it holds its rows",
        beat_stopped_in_its_transaction, "its schedules are fired by the other", lasts=80,
        within=DIED_SECONDS,
    ),
    "beat-cut-off": Scenario(
        "network", "the cable of one of two beats is pulled for 20 s", beat_cut_off,
        "longest time without a fire", lasts=35, within=2,
    ),
    "api-killed": Scenario(
        "API", "`kill -9` of all its processes", api_killed, "healthy", within=DIED_SECONDS,
    ),
    "every-program-killed": Scenario(
        "host", "`kill -9` of everything but the stores", every_program_killed,
        "the task begins again", lasts=10, within=DIED_SECONDS,
    ),
    "submitter-killed": Scenario(
        "submitter", "`kill -9` among its submissions", submitter_killed,
        "what was promised has ended", lasts=8,
    ),
}  # fmt: skip


# -- looking ---------------------------------------------------------------------------------------


def begins_again(suite: Suite, id: str) -> float:
    """Wait until a second execution of a run begins; how many seconds from now that was."""
    began = suite.now()
    wait_until(lambda: len(Traces.read(suite.traces).begins[id]) > 1, 60)
    return max(0.0, Traces.read(suite.traces).begins[id][1] - began)


def run_on(suite: Suite, pid: int, seconds: float) -> str:
    """Submit tasks of so many seconds until a certain worker executes one; that one's id."""
    for _ in range(15):
        ids = suite.submit_each("counting.work", 3, seconds)
        wait_until(lambda ids=ids: set(ids) <= suite_begins(suite), 60)  # type: ignore[misc]
        for id in ids:
            if suite.worker_of(id) == pid and not Traces.read(suite.traces).ends[id]:
                return id
    raise AssertionError(f"worker {pid} got none of the tasks")


def suite_begins(suite: Suite) -> set[str]:
    """The runs that have begun."""
    return set(Traces.read(suite.traces).begins)


def longest_without_fire(suite: Suite, seconds: float) -> float:
    """The longest time in which no slot was fired, from now on for so long."""
    last, longest, seen = time.monotonic(), 0.0, suite.fires()
    until = last + seconds
    while time.monotonic() < until:
        time.sleep(0.1)
        now = suite.fires()
        longest = max(longest, time.monotonic() - last)
        if now != seen:
            last, seen = time.monotonic(), now
    return longest


def waits_for_lock(suite: Suite, application: str) -> bool:
    """Whether a program's transaction waits for somebody else's lock."""
    rows = suite.rows(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s"
        " AND wait_event_type = 'Lock'",
        application,
    )
    return bool(rows[0][0])
