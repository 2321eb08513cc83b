"""Logs of every process as JSON lines (or, on a terminal, for people), written by a thread.

Whoever logs puts a record on a bounded queue and goes on: a slow disk, or a reader that has stopped
reading, never holds up a task. What does not fit is dropped and counted, and the count is logged as
soon as there is room. Rendering, masking and writing happen on the writer's thread.

Celery's, uvicorn's and every other library's loggers end in the same place:
:func:`hook_celery` keeps Celery from putting up its own handlers.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import logging
import os
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import orjson
import structlog

from ironbeat.observability import context
from ironbeat.observability.masking import Masker, masked, secrets_of
from ironbeat.settings import Settings, get_settings, log_levels

QUEUE_LENGTH = 10_000
ROTATE_BYTES = 20_000_000
ROTATE_KEPT = 5
# Lines of so many seconds are written at once. What a process logs in its last moment before a
# `kill -9` is lost; one that ends by itself waits for its lines.
GATHER_SECONDS = 0.02
GATHER_LINES = 200
# How long an ending process waits for its last lines to be written.
FLUSH_SECONDS = 2.0
# A record longer than this is cut: one line must not fill the disk.
LONGEST_EVENT = 32_000

# Loggers that put up handlers of their own when their library starts.
_TAKEN_OVER = (
    *("celery", "celery.task", "celery.redirected", "celery.worker", "celery.beat", "kombu"),
    *("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi"),
    *("flower", "tornado.access", "tornado.application", "tornado.general", "py.warnings"),
)
_PROGRAMS = ("worker", "beat", "flower", "api")
# These tell of every request, statement or message at INFO; of a task's message its end tells.
_QUIET = dict.fromkeys(
    (
        "celery.worker.strategy",
        "asyncio",
        "httpx",
        "httpcore",
        "urllib3",
        "sqlalchemy.engine",
        "alembic",
    ),
    logging.WARNING,
)

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Sink(Protocol):
    """Where finished lines go."""

    def write(self, lines: bytes) -> None:
        """Write whole lines, each with its line break."""

    def close(self) -> None:
        """Let go of the file."""


class Stream:
    """A sink that writes to an open file descriptor, such as standard error's."""

    def __init__(self, descriptor: int):
        self._descriptor = descriptor

    def write(self, lines: bytes) -> None:
        """Write whole lines."""
        _write_all(self._descriptor, lines)

    def close(self) -> None:
        """Leave the descriptor open: it is not ours."""


class RotatedFile:
    """A sink that writes to a file of this process alone, rotated by size.

    Where another living process (a second worker, a forked child) has the file, ``NAME-1.log``,
    ``NAME-2.log``… are tried: two processes that rotate one file lose each other's lines.
    """

    def __init__(self, path: Path, size: int = ROTATE_BYTES, kept: int = ROTATE_KEPT):
        path.parent.mkdir(parents=True, exist_ok=True)
        self._size = size
        self._kept = kept
        self.path, self._descriptor = self._claim(path)
        self._length = os.fstat(self._descriptor).st_size

    def write(self, lines: bytes) -> None:
        """Write whole lines, into a new file if this one is full."""
        if self._length and self._length + len(lines) > self._size:
            self._rotate()
        _write_all(self._descriptor, lines)
        self._length += len(lines)

    def close(self) -> None:
        """Close the file, which frees it for another process."""
        os.close(self._descriptor)

    @staticmethod
    def _claim(path: Path) -> tuple[Path, int]:
        for number in range(1000):
            candidate = path.with_stem(f"{path.stem}-{number}") if number else path
            descriptor = RotatedFile._open(candidate)
            if RotatedFile._lock(descriptor):
                return candidate, descriptor
            os.close(descriptor)
        raise OSError(f"{path} and a thousand files beside it are in use")

    @staticmethod
    def _open(path: Path) -> int:
        return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    @staticmethod
    def _lock(descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return False
        return True

    def _rotate(self) -> None:
        # The new file is locked under a name of its own before it takes over the old one's.
        fresh = self.path.with_name(f"{self.path.name}.new")
        fresh.unlink(missing_ok=True)
        descriptor = self._open(fresh)
        self._lock(descriptor)
        for number in range(self._kept - 1, 0, -1):
            older = self.path.with_name(f"{self.path.name}.{number}")
            if older.exists():
                older.rename(self.path.with_name(f"{self.path.name}.{number + 1}"))
        self.path.rename(self.path.with_name(f"{self.path.name}.1"))
        fresh.rename(self.path)
        os.close(self._descriptor)
        self._descriptor = descriptor
        self._length = 0


def _write_all(descriptor: int, line: bytes) -> None:
    # Past Python's own buffers, whose locks a fork may leave locked. One call appends one line.
    while line:
        line = line[os.write(descriptor, line) :]


class QueueingHandler(logging.Handler):
    """Hands records to a writer thread and never waits, not even for a lock.

    The thread is started at the first record of each process, so a forked child gets its own.
    """

    def __init__(
        self,
        open_sink: Callable[[], Sink],
        render: Callable[[logging.LogRecord], str],
        length: int = QUEUE_LENGTH,
    ):
        super().__init__()
        self._open_sink = open_sink
        self._render = render
        self._length = length
        self._sink: Sink | None = None
        self._reset()
        os.register_at_fork(after_in_child=self._forked)

    def _forked(self) -> None:
        # The parent's file is locked by all who hold it open: the child must not.
        if self._sink is not None:
            self._sink.close()
            self._sink = None
        self._reset()

    def _reset(self) -> None:
        # After a fork the parent's queue may be locked for ever by a thread that is not here.
        self._records: deque[logging.LogRecord | threading.Event | None] = deque()
        # Rung only while the writer dozes: waking a thread for each line costs more than the line.
        self._bell: SimpleQueue[None] = SimpleQueue()
        self._dozing = False
        self._starting = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._dropped = 0
        self._told = 0

    @property
    def dropped(self) -> int:
        """How many records this process has dropped."""
        return self._dropped

    def handle(self, record: logging.LogRecord) -> bool:
        """Queue ``record`` unless a filter refuses it; takes no lock."""
        accepted = self.filter(record)
        if isinstance(accepted, logging.LogRecord):
            record = accepted
        if accepted:
            self.emit(record)
        return bool(accepted)

    def emit(self, record: logging.LogRecord) -> None:
        """Put down what only this thread knows, and queue the record."""
        if len(self._records) >= self._length or self._closed:
            self._dropped += 1
            return
        try:
            self._put(_frozen(record))
        except Exception:
            self.handleError(record)
            return
        if self._thread is None:
            self._start()

    def _put(self, item: logging.LogRecord | threading.Event | None) -> None:
        # No lock: a signal handler may log while this thread is just here.
        self._records.append(item)
        if self._dozing:
            self._dozing = False
            self._bell.put(None)

    def flush(self) -> None:
        """Wait until all that was queued is written, for a bounded time."""
        self.drain()

    def drain(self, seconds: float = FLUSH_SECONDS) -> bool:
        """Wait until all that was queued is written, at most ``seconds``; whether it was."""
        if self._thread is None:
            return True
        written = threading.Event()
        self._put(written)
        return written.wait(seconds)

    def close(self) -> None:
        """Write what is queued, for a bounded time, and end the thread."""
        if not self._closed and self._thread is not None:
            self.drain()
            self._closed = True
            self._put(None)
            self._thread.join(FLUSH_SECONDS)
        super().close()

    def _start(self) -> None:
        # A logger that comes while another starts the thread need not wait: its record is queued.
        if not self._starting.acquire(blocking=False):
            return
        try:
            if self._thread is None:
                thread = threading.Thread(target=self._write, name="ironbeat-logs", daemon=True)
                thread.start()
                self._thread = thread
        except RuntimeError:
            # The interpreter is ending and starts no more threads.
            self._dropped += 1
        finally:
            self._starting.release()

    def _write(self) -> None:
        while True:
            batch = self._next_batch()
            lines: list[bytes] = []
            for item in batch:
                if isinstance(item, logging.LogRecord):
                    self._render_into(lines, item)
                    continue
                self._write_lines(lines)
                lines = []
                if item is None:
                    if self._sink is not None:
                        self._sink.close()
                        self._sink = None
                    return
                item.set()
            self._write_lines(lines)

    def _next_batch(self) -> list[logging.LogRecord | threading.Event | None]:
        """What has come since the last time; waits for something to come."""
        records = self._records
        if not records:
            self._dozing = True
            # What came before the flag was up has rung no bell.
            if not records:
                self._bell.get()
            self._dozing = False
        # Lines that come close together are written together.
        if all(isinstance(each, logging.LogRecord) for each in tuple(records)):
            time.sleep(GATHER_SECONDS)
        return [records.popleft() for _ in range(min(len(records), GATHER_LINES))]

    def _render_into(self, lines: list[bytes], record: logging.LogRecord) -> None:
        try:
            lines.append(self._line(record))
        except Exception:
            # Nobody is left to tell.
            self._dropped += 1

    def _write_lines(self, lines: list[bytes]) -> None:
        if not lines:
            return
        try:
            if self._sink is None:
                self._sink = self._open_sink()
            self._sink.write(b"".join(lines))
            if self._dropped > self._told:
                self._sink.write(self._line(self._notice()))
        except Exception:
            # Standard error may be the very thing that is broken.
            self._dropped += len(lines)

    def _line(self, record: logging.LogRecord) -> bytes:
        return self._render(record).encode("utf-8", "backslashreplace")

    def _notice(self) -> logging.LogRecord:
        dropped, self._told = self._dropped - self._told, self._dropped
        record = logging.makeLogRecord(
            {
                "name": __name__,
                "levelno": logging.WARNING,
                "levelname": "WARNING",
                "msg": "log lines were dropped: they came faster than they could be written",
                "dropped": dropped,
            }
        )
        return _frozen(record)


def _frozen(record: logging.LogRecord) -> logging.LogRecord:
    """``record`` made independent of its thread and of objects that may change."""
    record.ironbeat = context.current()
    if isinstance(record.msg, dict):
        # A structlog event; its values are rendered later.
        record.msg = dict(record.msg)
    else:
        record.msg = record.getMessage()
        record.args = None
    if record.exc_info:
        record.exc_text = record.exc_text or logging.Formatter().formatException(
            _exception(record.exc_info)
        )
        record.exc_info = None
    return record


def _exception(info: Any) -> Any:
    return sys.exc_info() if info is True else info


def event_of(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of one line: when, how grave, who, what it is about, what happened."""
    found: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(),
        "level": record.levelname.lower(),
        "logger": record.name,
    }
    if isinstance(record.msg, dict):
        fields = {key: value for key, value in record.msg.items() if not key.startswith("_")}
        found["event"] = fields.pop("event", "")
    else:
        fields = {key: value for key, value in vars(record).items() if key not in _STANDARD}
        fields.pop("ironbeat", None)
        # uvicorn's message again, coloured for a terminal.
        fields.pop("color_message", None)
        found["event"] = record.msg
    for key, value in getattr(record, "ironbeat", {}).items():
        found.setdefault(key, value)
    if record.name.startswith("celery.") and isinstance(fields.get("data"), dict):
        # Celery says here which task a line is about, and repeats the traceback and arguments.
        data = fields.pop("data")
        for key, name in (("task", "name"), ("task_id", "id"), ("run_id", "id")):
            if data.get(name):
                found.setdefault(key, data[name])
    for key, value in fields.items():
        # A field of the caller's must not hide what the line is about.
        found[key if key not in found else f"{key}_"] = value
    if record.exc_text:
        found["exception"] = record.exc_text
    if record.stack_info:
        found["stack"] = record.stack_info
    for key in ("event", "exception"):
        text = found.get(key)
        if isinstance(text, str) and len(text) > LONGEST_EVENT:
            found[key] = f"{text[:LONGEST_EVENT]}… ({len(text)} characters)"
    return found


def json_renderer(masker: Masker) -> Callable[[logging.LogRecord], str]:
    """Renders a record as one line of JSON without secrets."""

    def render(record: logging.LogRecord) -> str:
        event = masked(event_of(record))
        try:
            text = orjson.dumps(event, default=repr, option=orjson.OPT_NON_STR_KEYS).decode()
        except (TypeError, ValueError):
            text = json.dumps(event, default=repr, skipkeys=True)
        return f"{masker(text)}\n"

    return render


def console_renderer(masker: Masker, colors: bool) -> Callable[[logging.LogRecord], str]:
    """Renders a record for people."""
    console = structlog.dev.ConsoleRenderer(colors=colors)

    def render(record: logging.LogRecord) -> str:
        event = masked(event_of(record))
        event.pop("run_id", None)
        event["timestamp"] = datetime.fromtimestamp(record.created).strftime("%H:%M:%S.%f")[:-3]
        return f"{masker(str(console(None, '', event)))}\n"

    return render


_handler: QueueingHandler | None = None


def configure(
    program: str,
    *,
    level: str | int | None = None,
    file: Path | str | None = None,
    settings: Settings | None = None,
    worker: str | None = None,
    replace: bool = True,
) -> QueueingHandler:
    """Set up this process's logs; ``level`` and ``file`` replace those of the settings.

    Without a file, lines go to standard error, where supervisord picks them up. With ``replace``
    off, a process that is set up already stays as it is.
    """
    global _handler
    if _handler is not None and not replace:
        context.set_process(worker=worker)
        return _handler
    settings = settings or get_settings()
    context.set_process(program=program, worker=worker)
    masker = Masker(secrets_of(settings))
    path = file or settings.log_file
    if path is not None:
        handler = QueueingHandler(lambda: RotatedFile(Path(path)), json_renderer(masker))
    else:
        stream = sys.stderr
        terminal = stream.isatty()
        render = console_renderer(masker, terminal) if terminal else json_renderer(masker)
        handler = QueueingHandler(lambda: Stream(stream.fileno()), render)
    root = logging.getLogger()
    for former in list(root.handlers):
        root.removeHandler(former)
        former.close()
    root.addHandler(handler)
    root.setLevel(_number(level) if level is not None else _number(settings.log_level))
    for name in _TAKEN_OVER:
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.NOTSET)
    if root.level > logging.DEBUG:
        for name in _QUIET:
            logging.getLogger(name).setLevel(logging.WARNING)
    for name, text in log_levels(settings.log_levels).items():
        logging.getLogger(name).setLevel(_number(text))
    # No line names the place in the code that wrote it; finding it out costs 10 µs a line.
    logging._srcfile = None
    logging.captureWarnings(True)
    _configure_structlog()
    _hook_uncaught()
    if _handler is None:
        atexit.register(_close)
    _handler = handler
    return handler


def dropped() -> int:
    """How many log lines this process has dropped."""
    return _handler.dropped if _handler is not None else 0


def flush(seconds: float = FLUSH_SECONDS) -> bool:
    """Wait until what was logged is written, at most ``seconds``; for those who end abruptly."""
    return _handler.drain(seconds) if _handler is not None else True


def get_logger(name: str) -> Any:
    """A structlog logger: ``log.info("what happened", key=value)``."""
    return structlog.stdlib.get_logger(name)


def hook_celery() -> None:
    """Keep Celery from setting up logs of its own; ours take the level and file it was given."""
    from celery import signals

    signals.setup_logging.connect(_for_celery, weak=False, dispatch_uid="ironbeat-logs")
    signals.celeryd_init.connect(_name_worker, weak=False, dispatch_uid="ironbeat-logs-worker")
    # Pool children end without the interpreter's own clean-up.
    signals.worker_process_shutdown.connect(
        _flush_child, weak=False, dispatch_uid="ironbeat-logs-child"
    )


def _for_celery(loglevel: int | str | None = None, logfile: str | None = None, **_: Any) -> None:
    program = next((word for word in sys.argv[1:] if word in _PROGRAMS), "celery")
    configure(program, level=loglevel, file=logfile, replace=False)


def _name_worker(sender: str | None = None, **_: Any) -> None:
    context.set_process(worker=sender)


def _flush_child(**_: Any) -> None:
    flush()


def _close() -> None:
    if _handler is not None:
        _handler.close()


def _number(level: str | int) -> int:
    if isinstance(level, int):
        return level
    if level.isdigit():
        return int(level)
    return int(logging.getLevelNamesMapping()[level.upper()])


def _configure_structlog() -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            _to_record,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def _to_record(
    _logger: Any, _name: str, event: Any
) -> tuple[tuple[Mapping[str, Any]], dict[str, Any]]:
    """Hand a structlog event to the standard library whole: our handler renders it."""
    event = dict(event)
    options = {"exc_info": event.pop("exc_info", None), "stack_info": False}
    if "stack" in event:
        event["stack_trace"] = event.pop("stack")
    return (event,), options


def _hook_uncaught() -> None:
    log = logging.getLogger("ironbeat.uncaught")

    def process(kind: Any, error: Any, traceback: Any) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
            return
        log.critical("the process ends: %r", error, exc_info=(kind, error, traceback))
        flush()

    def thread(arguments: threading.ExceptHookArgs) -> None:
        if arguments.exc_type is SystemExit or arguments.exc_value is None:
            return
        name = arguments.thread.name if arguments.thread else "?"
        log.error(
            "thread %s ended: %r",
            name,
            arguments.exc_value,
            exc_info=(arguments.exc_type, arguments.exc_value, arguments.exc_traceback),
        )

    sys.excepthook = process
    threading.excepthook = thread
