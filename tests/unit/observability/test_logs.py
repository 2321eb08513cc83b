"""One line per record, in order, from every kind of logger; never a wait."""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import time

import pytest
import structlog

from ironbeat.observability import context, logs
from ironbeat.observability.masking import Masker
from ironbeat.settings import Settings, log_levels


@pytest.fixture(autouse=True)
def _undo():
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    hooks = sys.excepthook, threading.excepthook
    yield
    for handler in set(root.handlers) - set(handlers):
        root.removeHandler(handler)
        handler.close()
    for handler in handlers:
        root.addHandler(handler)
    root.setLevel(level)
    sys.excepthook, threading.excepthook = hooks
    logs._handler = None
    context._process.clear()
    structlog.reset_defaults()


def configured(path, **fields):
    handler = logs.configure("test", file=path, settings=Settings(**fields))
    return handler


def lines(handler, path):
    """What was written, but for what a thread says that an earlier test has left behind."""
    assert handler.drain()
    found = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in found if not line["logger"].startswith("ironbeat.runs.")]


def test_a_line_tells_when_who_and_what(tmp_path):
    path = tmp_path / "logs" / "worker.log"
    handler = configured(path)
    with context.bound(run_id="r1", schedule="nightly", workload="billing", attempt=2):
        logging.getLogger("acme.billing").warning("charged %d", 7, extra={"customer": 3})
        logs.get_logger("acme.orders").info("shipped", order=4, pid="mine")
    first, second = lines(handler, path)
    assert first["timestamp"].endswith("+00:00")
    assert {key: first[key] for key in ("level", "logger", "event", "program", "customer")} == {
        "level": "warning",
        "logger": "acme.billing",
        "event": "charged 7",
        "program": "test",
        "customer": 3,
    }
    for line in (first, second):
        assert (line["run_id"], line["schedule"], line["workload"]) == ("r1", "nightly", "billing")
        assert line["attempt"] == 2 and line["pid"] == os.getpid()
    assert (second["event"], second["order"], second["pid_"]) == ("shipped", 4, "mine")
    assert oct(path.stat().st_mode & 0o777) == "0o640"


def test_the_context_is_that_of_the_caller_not_of_the_writer(tmp_path):
    path = tmp_path / "x.log"
    handler = configured(path)
    log = logging.getLogger("t")

    def work(number):
        with context.bound(run_id=number):
            for _ in range(50):
                log.info("number %d", number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = lines(handler, path)
    assert len(found) == 400
    assert all(line["event"] == f"number {line['run_id']}" for line in found)


def test_structlogs_own_context_is_kept(tmp_path):
    path = tmp_path / "x.log"
    handler = configured(path)
    with structlog.contextvars.bound_contextvars(request="q"):
        logs.get_logger("t").info("x")
    assert lines(handler, path)[0]["request"] == "q"


def test_errors_carry_their_traceback(tmp_path):
    path = tmp_path / "x.log"
    handler = configured(path)
    try:
        raise ValueError("boom")
    except ValueError:
        logging.getLogger("a").exception("failed")
        logs.get_logger("b").exception("failed too", n=1)
    for line in lines(handler, path):
        assert line["level"] == "error"
        assert "ValueError: boom" in line["exception"] and "test_logs.py" in line["exception"]


def test_what_json_cannot_say_is_still_written(tmp_path):
    path = tmp_path / "x.log"
    handler = configured(path)
    logs.get_logger("t").info("odd", a=object, b={1: 2**80}, c=b"x", d={1, 2}, e="\ud800")
    logging.getLogger("t").info("x" * 100_000)
    odd, long = lines(handler, path)
    assert odd["event"] == "odd"
    assert len(long["event"]) < 33_000 and long["event"].endswith("(100000 characters)")


def test_arguments_are_read_when_the_line_is_logged(tmp_path):
    path = tmp_path / "x.log"
    handler = configured(path)
    changing = ["before"]
    logging.getLogger("t").info("it is %s", changing)
    changing[0] = "after"
    assert lines(handler, path)[0]["event"] == "it is ['before']"


def test_secrets_are_masked(tmp_path):
    path = tmp_path / "x.log"
    handler = configured(path, api_token="t0p-secret-token")
    logs.get_logger("t").info("with t0p-secret-token", password="x", inner={"token": 8315550199})
    logging.getLogger("t").info("see redis://:hunter2@r/1")
    text = json.dumps(lines(handler, path))
    for secret in ("t0p-secret-token", "hunter2", '"x"', "8315550199"):
        assert secret not in text


def test_levels_by_module(tmp_path):
    path = tmp_path / "x.log"
    handler = configured(path, log_level="20", log_levels="loud=DEBUG, quiet.inner=ERROR")
    for name in ("loud.part", "quiet.inner", "plain", "httpx"):
        logging.getLogger(name).debug("debug")
        logging.getLogger(name).info("info")
    assert [(line["logger"], line["event"]) for line in lines(handler, path)] == [
        ("loud.part", "debug"),
        ("loud.part", "info"),
        ("plain", "info"),
    ]
    logging.getLogger("loud").setLevel(logging.NOTSET)
    logging.getLogger("quiet.inner").setLevel(logging.NOTSET)


@pytest.mark.parametrize("text", ["celery", "celery=LOUD", "=INFO", "a=INFO,b"])
def test_a_bad_level_is_refused(text):
    with pytest.raises(ValueError, match="is not `module=LEVEL`"):
        log_levels(text)


def test_libraries_that_put_up_handlers_of_their_own_are_taken_over(tmp_path):
    logger = logging.getLogger("uvicorn.access")
    logger.addHandler(logging.StreamHandler())
    logger.propagate = False
    path = tmp_path / "x.log"
    handler = configured(path)
    logger.info("GET /health")
    assert [line["event"] for line in lines(handler, path)] == ["GET /health"]


def test_a_reader_that_stops_reading_holds_up_nobody():
    read, write = os.pipe()
    handler = logs.QueueingHandler(
        lambda: logs.Stream(write), logs.json_renderer(Masker()), length=1000
    )
    logger = logging.getLogger("flood")
    logger.propagate = False
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    slowest = 0.0
    for number in range(5000):
        started = time.perf_counter()
        logger.info("line %d %s", number, "x" * 100)
        slowest = max(slowest, time.perf_counter() - started)
    # The pipe takes 64 kB, the queue a thousand lines; nobody waited for the rest.
    assert slowest < 0.5
    assert handler.dropped > 3000
    assert not handler.drain(0.05)

    reader = threading.Thread(target=lambda: received.extend(read_all(read)))
    received: list[str] = []
    reader.start()
    assert handler.drain(5)
    logger.info("after")
    assert handler.drain(5)
    handler.close()
    os.close(write)
    reader.join(5)
    logger.removeHandler(handler)
    events = [json.loads(line) for line in received]
    notices = [line["dropped"] for line in events if "dropped" in line]
    assert sum(notices) == handler.dropped
    assert len(events) - len(notices) + handler.dropped == 5001
    assert events[-1]["event"] == "after"


def read_all(descriptor):
    with os.fdopen(descriptor) as stream:
        return stream.read().splitlines()


def test_files_are_rotated_and_old_ones_go(tmp_path):
    path = tmp_path / "x.log"
    sink = logs.RotatedFile(path, size=100, kept=2)
    for number in range(20):
        sink.write(b"%02d%s\n" % (number, b"." * 37))
    sink.close()
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["x.log", "x.log.1", "x.log.2"]
    kept = "".join((tmp_path / name).read_text() for name in reversed(names))
    assert [int(line[:2]) for line in kept.splitlines()] == [14, 15, 16, 17, 18, 19]


def test_two_processes_never_share_a_file_not_even_after_rotation(tmp_path):
    path = tmp_path / "x.log"
    one = logs.RotatedFile(path, size=50)
    two = logs.RotatedFile(path, size=50)
    assert (one.path, two.path) == (path, tmp_path / "x-1.log")
    for _ in range(3):
        one.write(b"." * 40 + b"\n")
    three = logs.RotatedFile(path)
    assert three.path == tmp_path / "x-2.log"
    one.close()
    assert logs.RotatedFile(path).path == path


def test_a_forked_child_writes_to_a_file_of_its_own(tmp_path):
    path = tmp_path / "x.log"
    handler = configured(path)
    log = logging.getLogger("t")
    log.info("parent before")
    assert handler.drain()
    child = os.fork()
    if child == 0:
        log.info("child")
        drained = logs.flush(5)
        os._exit(0 if drained else 1)
    assert os.waitpid(child, 0)[1] == 0
    log.info("parent after")
    assert [line["event"] for line in lines(handler, path)] == ["parent before", "parent after"]
    (line,) = (tmp_path / "x-1.log").read_text().splitlines()
    assert json.loads(line)["event"] == "child"
    assert json.loads(line)["pid"] == child


def test_uncaught_errors_are_logged(tmp_path):
    path = tmp_path / "x.log"
    handler = configured(path)

    def fail():
        raise ValueError("lost")

    thread = threading.Thread(target=fail, name="worker-bee")
    thread.start()
    thread.join()
    (line,) = lines(handler, path)
    assert line["logger"] == "ironbeat.uncaught"
    assert "worker-bee" in line["event"] and "ValueError: lost" in line["exception"]


def test_people_get_one_readable_line():
    record = logging.makeLogRecord(
        {"msg": "shipped", "name": "acme", "levelname": "INFO", "created": 0.0, "order": 4}
    )
    text = logs.console_renderer(Masker(), colors=False)(logs._frozen(record))
    assert text.count("\n") == 1
    assert "shipped" in text and "order=4" in text and "acme" in text
