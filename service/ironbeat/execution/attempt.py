"""One attempt of a run: through the guard, the body, and the outcome into the ledger.

:func:`guarded` wraps ``Task.__call__``, because that alone can veto a task in every pool: signals
swallow their own errors, and the tracer stores ``STARTED`` before them. What a copy gets:

* of a run that succeeded: the stored value, so that the tracer sends links and chain again and
  counts a chord's part (both are idempotent by id); dropping it would hang a chord;
* of a run that was cancelled: it is marked revoked, as a worker's own revocation would;
* of anything else that ended, or that runs elsewhere: nothing; it is acknowledged and gone.

A direct call, a recursive one, and an eager one pass: they are no executions of a run.
"""

from __future__ import annotations

import functools
import logging
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

import orjson
from celery import states
from celery.exceptions import Ignore, Reject, Retry, WorkerShutdown, WorkerTerminate
from kombu.utils.json import dumps as kombu_dumps

from ironbeat.execution import header, runtime, sealing
from ironbeat.execution.custody import consumption
from ironbeat.execution.interruption import Abandoned, Cancelled
from ironbeat.runs import suspicion
from ironbeat.runs.model import Claim, LedgerUnavailable, Outcome, State, Verdict

logger = logging.getLogger(__name__)

TRACEBACK_CHARACTERS = 20_000
ERROR_CHARACTERS = 2_000
_MARK = "_ironbeat_attempt"
_CLAIM = "_ironbeat_claim"
_RESENT = "_ironbeat_resent"
_RETRY_OF = "_ironbeat_retry_of"
_hard_limits: WeakKeyDictionary[Any, float | None] = WeakKeyDictionary()


def guarded(call: Callable[..., Any]) -> Callable[..., Any]:
    """``Task.__call__`` with the guard in front and the ledger behind it."""

    @functools.wraps(call)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:
        request = self.request
        if request.called_directly or request.is_eager or _MARK in request.__dict__:
            return call(self, *args, **kwargs)
        active = runtime.current()
        if active is None:
            args, kwargs = _opened(self, args, kwargs)
            return call(self, *args, **kwargs)
        return _attempt(active, self, request, call, args, kwargs)

    __call__.__ironbeat_guarded__ = True  # type: ignore[attr-defined]
    return __call__


def retrying(retry: Callable[..., Any]) -> Callable[..., Any]:
    """``Task.retry``, remembering the exception: the ledger notes why before the retry is sent."""

    @functools.wraps(retry)
    def retry_noting(self: Any, *args: Any, **options: Any) -> Any:
        exc = options.get("exc", args[2] if len(args) > 2 else None)
        self.request.__dict__[_RETRY_OF] = exc or sys.exc_info()[1]
        return retry(self, *args, **options)

    return retry_noting


def retry_reason(request: Any) -> BaseException | None:
    """The exception for which the current attempt is retried, if it is."""
    found: BaseException | None = request.__dict__.get(_RETRY_OF)
    return found


def mark_resent(request: Any, retries: int, replacements: int, *, recorded: bool) -> None:
    """Note that this attempt published its own id again: a retry or a replacement follows.

    ``recorded``: the ledger has been told already, so the attempt's end is not recorded again.
    """
    request.__dict__[_RESENT] = (retries, replacements, recorded)


def attempt_of(request: Any) -> int | None:
    """The attempt number of the execution that ``request`` belongs to, if it passed the guard."""
    verdict: Verdict | None = request.__dict__.get(_MARK)
    return verdict.attempt if verdict is not None else None


def claim_of(request: Any) -> Claim | None:
    """The claim by which the execution that ``request`` belongs to was admitted."""
    found: Claim | None = request.__dict__.get(_CLAIM)
    return found


def _attempt(
    active: runtime.Runtime,
    task: Any,
    request: Any,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    delivery = request.delivery_info or {}
    if header.read(request.__dict__).get("drawn"):
        # A pool's child has a guard of its own that has not seen the drawing.
        active.guard.drawn.add(request.id)
    held = active.guard.held(header.key(request.__dict__))
    if held is not None:
        claim, verdict = held
    else:
        claim = header.claim(
            request.__dict__, delivery.get("routing_key") or "", delivery.get("priority")
        )
        verdict = active.guard.admit(claim, give_up=lambda: active.stopping)
    if verdict.refusal == "running" and not active.batched and delivery.get("redelivered"):
        # A pool's child died and its parent put the message back: nobody else holds this claim.
        active.ledger.release_crashed(claim.id, lease=active.guard.lease)
        verdict = active.guard.admit(claim, give_up=lambda: active.stopping)
    if verdict.attempt is None:
        return _refused(active, task, request, claim, verdict)
    if verdict.crashes >= active.poison_limit:
        _bury(active, task, request, claim, verdict)
    turn = _turn(active, task, request, claim, verdict, args, kwargs)
    try:
        return _execute(active, task, request, claim, verdict, call, args, kwargs)
    finally:
        if turn is not None and active.turns is not None:
            active.turns.leave(turn, claim.id)


def _turn(
    active: runtime.Runtime,
    task: Any,
    request: Any,
    claim: Claim,
    verdict: Verdict,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> str | None:
    """Wait for nothing: begin now, or go back to the ledger until it is this run's turn.

    Returns the name of the throttle whose place has to be left afterwards, if there is one.
    """
    throttle = active.turns.throttle_of(task) if active.turns is not None else None
    if throttle is None or active.turns is None:
        return None
    name = active.turns.name(throttle, task, args, kwargs)
    if active.turns.enter(
        throttle,
        name,
        claim.id,
        verdict.attempt or 0,
        lambda: message_json(request, claim),
        lambda: active.stopping,
    ):
        return name if throttle.concurrency is not None else None
    logger.debug("run %s goes back until the throttle %s lets it begin", claim.id, name)
    raise Ignore


def _execute(
    active: runtime.Runtime,
    task: Any,
    request: Any,
    claim: Claim,
    verdict: Verdict,
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    request.__dict__[_MARK] = verdict
    number = verdict.attempt or 0
    execution = runtime.Execution(number, time.monotonic(), claim)
    began = execution.began
    execution.announce = functools.partial(_announce, task, request, number)
    request.__dict__[_CLAIM] = claim
    active.executing[claim.id] = execution
    if not consumption.inline:
        active.announce(claim.id)
    box = active.box
    slot = box.begin(claim.id, number, hard_limit(task, request)) if box else -1
    try:
        args, kwargs = _opened(task, args, kwargs)
        value = call(task, *args, **kwargs)
    except Retry as exc:
        _end(active, request, verdict, "retrying", began, error=exc.exc or exc)
        raise
    except Ignore:
        if _RESENT in request.__dict__:
            _end(active, request, verdict, "retrying", began)
        else:
            _end(active, request, verdict, "skipped", began, reason="the task raised Ignore")
        raise
    except Reject as exc:
        if exc.requeue:
            active.guard.hand_back([claim.id])
        else:
            _end(
                active,
                request,
                verdict,
                "dead",
                began,
                claim=claim,
                reason=f"rejected: {exc.reason!r}",
            )
        raise
    except Cancelled:
        _end(
            active,
            request,
            verdict,
            "cancelled",
            began,
            claim=claim,
            reason="cancelled while running",
        )
        raise
    except (Abandoned, WorkerShutdown, WorkerTerminate):
        # The message goes back to its queue and is run again.
        active.guard.hand_back([claim.id])
        raise
    except BaseException as exc:
        # A pool's child that is told to exit leaves the run's end to its parent, which knows why.
        if active.batched or not isinstance(exc, SystemExit):
            _end(active, request, verdict, "failed", began, claim=claim, error=exc)
        raise
    finally:
        if box:
            box.end(slot)
        active.ended(claim.id)
        if not active.batched:
            active.guard.drawn.discard(claim.id)
    if _RESENT in request.__dict__:
        _end(active, request, verdict, "retrying", began)
    else:
        stored = result_json(active, task, request, value)
        _end(active, request, verdict, "succeeded", began, result=stored)
    return value


def hard_limit(task: Any, request: Any) -> float | None:
    """The seconds after which an execution is ended by force: of the message, task or settings."""
    asked = (request.timelimit or (None, None))[0]
    if asked or task.time_limit:
        return float(asked or task.time_limit)
    # Celery's configuration is slow to ask, and does not change under a worker.
    if task.app not in _hard_limits:
        found = task.app.conf.task_time_limit
        _hard_limits[task.app] = float(found) if found else None
    return _hard_limits[task.app]


def _opened(
    task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return sealing.unseal(task, args, kwargs) if sealing.names_of(task) else (args, kwargs)


def _refused(
    active: runtime.Runtime, task: Any, request: Any, claim: Claim, verdict: Verdict
) -> Any:
    if verdict.refusal == "ended" and verdict.state == "succeeded":
        if request.callbacks or request.chain or request.chord or request.errbacks:
            return verdict.result
    elif verdict.refusal == "cancelled" or verdict.state == "cancelled":
        if verdict.refusal == "cancelled":
            active.ledger.end([claim.id], "cancelled", "cancelled before it began", running=True)
        task.backend.mark_as_revoked(
            claim.id, "cancelled", request=request, store_result=not ignores_result(task, request)
        )
    elif verdict.refusal == "running":
        active.ledger.keep_message(claim.id, message_json(request, claim))
    elif verdict.state == "dead":
        active.ledger.keep_message_of_ended(claim.id, message_json(request, claim))
        _tell_of_death(task, request, claim, verdict.error or f"run {claim.id} is dead")
    elif verdict.refusal == "ended" and request.chord:
        # The first execution recorded its failure but may have died before telling the chord.
        raise RunFailed(verdict.error or f"run {claim.id} ended as {verdict.state}")
    logger.info(
        "copy of run %s dropped: %s",
        claim.id,
        verdict.state or verdict.refusal,
        extra={"run": claim.id},
    )
    raise Ignore


class RunFailed(Exception):
    """A copy of a run that failed before, met by a chord that has still to hear of it."""


def _bury(active: runtime.Runtime, task: Any, request: Any, claim: Claim, verdict: Verdict) -> None:
    reason = suspicion.died_of_it(verdict.crashes)
    active.ledger.keep_message(claim.id, message_json(request, claim))
    active.ledger.end([claim.id], "dead", reason, error=reason, running=True)
    _tell_of_death(task, request, claim, reason)
    logger.error("run %s (%s) is dead: %s", claim.id, claim.task, reason)
    raise Ignore


def _tell_of_death(task: Any, request: Any, claim: Claim, reason: str) -> None:
    """Let whoever waits for the result, or for the chord it is part of, wait no longer."""
    task.backend.mark_as_failure(
        claim.id,
        RunFailed(reason),
        request=request,
        store_result=not ignores_result(task, request),
    )


def message_json(request: Any, claim: Claim) -> str:
    """The delivered message as JSON text, put together again from its request."""
    fields = request.__dict__
    embed = {name: fields.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
    own = {k: v for k, v in header.read(fields).items() if k != "drawn"}
    headers = {
        name: fields.get(name)
        for name in (
            "lang", "task", "id", "shadow", "eta", "expires", "group", "group_index", "retries",
            "timelimit", "root_id", "parent_id", "argsrepr", "kwargsrepr", "origin",
            "ignore_result", "replaced_task_nesting", "stamped_headers", "stamps",
        )
    } | {header.NAME: own or None}  # fmt: skip
    return kombu_dumps(
        {
            "body": [list(request.args or ()), request.kwargs or {}, embed],
            "headers": headers,
            "properties": {
                "correlation_id": claim.id,
                "reply_to": fields.get("reply_to") or "",
                "priority": claim.priority,
            },
            "exchange": "",
            "routing_key": claim.queue,
        }
    )


def _end(
    active: runtime.Runtime,
    request: Any,
    verdict: Verdict,
    state: State,
    began: float,
    *,
    claim: Claim | None = None,
    result: str | None = None,
    error: BaseException | None = None,
    reason: str | None = None,
) -> None:
    retries = replacements = None
    if state == "retrying":
        retries, replacements, recorded = request.__dict__.get(_RESENT) or (
            (request.retries or 0) + 1,
            request.replaced_task_nesting or 0,
            False,
        )
        if recorded:
            return
    active.recorder.outcome(
        Outcome(
            id=verdict.id,
            attempt=verdict.attempt or 0,
            state=state,
            runtime=time.monotonic() - began,
            result=result,
            error=describe(error) if error is not None else None,
            traceback=format_traceback(error) if error is not None else None,
            reason=reason,
            retries=retries,
            replacements=replacements,
            # Of a durable run the ledger has it already.
            message=message_json(request, claim) if claim and not claim.durable else None,
        ),
        claim_of(request),
    )
    if not active.batched:
        try:
            active.recorder.secure()
        except LedgerUnavailable as problem:
            # The body is done; its outcome is written when PostgreSQL returns.
            logger.warning("outcome of run %s waits for the ledger: %s", verdict.id, problem)


def describe(error: BaseException) -> str:
    """An exception as one line: its type and message."""
    text = str(error)
    name = type(error).__name__
    return _storable(f"{name}: {text}" if text else name)[:ERROR_CHARACTERS]


def format_traceback(error: BaseException) -> str | None:
    """The traceback of an exception as text, its end kept where it is long."""
    if error.__traceback__ is None:
        return None
    text = "".join(traceback.format_exception(error))
    return _storable(text)[-TRACEBACK_CHARACTERS:]


def _storable(text: str) -> str:
    """PostgreSQL's text holds neither NUL nor lone surrogates."""
    return text.replace("\x00", "\\x00").encode("utf-8", "backslashreplace").decode()


def ignores_result(task: Any, request: Any) -> bool:
    """Whether this execution's result is not kept, by the caller's word or the task's."""
    asked = request.ignore_result
    return bool(task.ignore_result if asked is None else asked)


def result_json(active: runtime.Runtime, task: Any, request: Any, value: Any) -> str | None:
    """The result as JSON text for the ledger, or ``None`` where it is ignored or too large."""
    if value is None or (
        ignores_result(task, request) and not (request.callbacks or request.chain or request.chord)
    ):
        return None
    try:
        text = orjson.dumps(value).decode()
    except TypeError:
        try:
            text = kombu_dumps(value)
        except Exception:
            return None  # The result backend reports what cannot be serialized.
    return text if len(text) <= active.result_bytes else None


def _tracks_start(task: Any, request: Any) -> bool:
    return bool(getattr(task, "tracks_start", False)) and not ignores_result(task, request)


def _announce(task: Any, request: Any, attempt: int) -> None:
    """Say that a body has begun; where tasks run inline, once it has lasted a moment."""
    about = {"task": task.name, "task_id": request.id, "run_id": request.id, "attempt": attempt}
    logger.info("%s[%s] has begun", task.name, request.id, extra=about)
    if _tracks_start(task, request):
        _store_started(task, request)


def _store_started(task: Any, request: Any) -> None:
    meta = {"pid": os.getpid(), "hostname": request.hostname}
    try:
        task.backend.store_result(request.id, meta, states.STARTED, request=request)
    except Exception as error:
        # A convenience for `AsyncResult.state`; the ledger knows that the run is running.
        logger.warning("STARTED not stored for %s: %s", request.id, error)
