"""Sensitive arguments: encrypted in the broker and the ledger, masked wherever they are shown.

A task names them: ``@shared_task(sensitive=("password",))``. They are sealed when the task is sent
and opened when its body is called; in between there is only a token (Fernet: AES-128-CBC with
HMAC-SHA256). The first key of the setting ``encryption_key`` seals, all of them open, so that a key
can be rotated: put the new one first, and drop the old one when the last old run has ended.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

from cryptography.fernet import Fernet, InvalidToken, MultiFernet
from kombu.utils.json import dumps, loads

from ironbeat.settings import get_settings

MARK = "__sealed__"
MASK = "***"


class SealingError(ValueError):
    """Sensitive arguments cannot be sealed or opened; the message says what to do."""


def names_of(task: Any) -> tuple[str, ...]:
    """The parameters that a task declares sensitive."""
    found = getattr(task, "sensitive", ())
    return (found,) if isinstance(found, str) else tuple(found or ())


def seal(
    task: Any, args: Sequence[Any] | None, kwargs: Mapping[str, Any] | None
) -> tuple[tuple[Any, ...], dict[str, Any], str, str]:
    """The arguments with sensitive values sealed, and how both are shown.

    What is sealed already (a retry's arguments) stays as it is. Raises :class:`SealingError`.
    """
    cipher = _cipher()
    sealed_args, sealed_kwargs = _change(task, args or (), kwargs or {}, _sealing(cipher))
    shown_args, shown_kwargs = _change(task, args or (), kwargs or {}, lambda value: MASK)
    return sealed_args, sealed_kwargs, repr(shown_args), repr(shown_kwargs)


def unseal(
    task: Any, args: Sequence[Any], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments as they were before :func:`seal`. Raises :class:`SealingError`."""
    cipher = _cipher()
    return _change(task, args, kwargs, lambda value: _open(cipher, value))


def encrypt(text: str) -> str:
    """A token that stands for ``text`` wherever it is stored. Raises :class:`SealingError`."""
    return _cipher().encrypt(text.encode()).decode()


def decrypt(token: str) -> str:
    """The text behind a token of :func:`encrypt`. Raises :class:`SealingError`."""
    try:
        return _cipher().decrypt(token.encode()).decode()
    except InvalidToken:
        raise SealingError(
            "this was encrypted with a key that is not there; add the key to "
            "IRONBEAT_ENCRYPTION_KEY (several, separated by commas)"
        ) from None


def _cipher() -> MultiFernet:
    key = get_settings().encryption_key
    if key is None:
        raise SealingError(
            "there is no key to encrypt sensitive arguments and stored secrets with: set "
            "IRONBEAT_ENCRYPTION_KEY (scripts/up and the playbook generate one)"
        )
    return MultiFernet([Fernet(each.strip()) for each in key.get_secret_value().split(",")])


def _sealing(cipher: MultiFernet) -> Callable[[Any], Any]:
    def sealed(value: Any) -> Any:
        if isinstance(value, Mapping) and set(value) == {MARK}:
            return value
        return {MARK: cipher.encrypt(dumps(value).encode()).decode()}

    return sealed


def _open(cipher: MultiFernet, value: Any) -> Any:
    if not (isinstance(value, Mapping) and set(value) == {MARK}):
        return value
    try:
        return loads(cipher.decrypt(value[MARK].encode()).decode())
    except InvalidToken:
        raise SealingError(
            "a sensitive argument was sealed with a key this worker does not have; add the key to "
            "IRONBEAT_ENCRYPTION_KEY (several, separated by commas) and retry the run"
        ) from None


def _change(
    task: Any,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    change: Callable[[Any], Any],
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments with the sensitive ones changed, whether given by position or by name."""
    names = names_of(task)
    positions = _positions(task.run)
    changed = tuple(
        change(value) if place < len(positions) and positions[place] in names else value
        for place, value in enumerate(args)
    )
    return changed, {k: change(v) if k in names else v for k, v in kwargs.items()}


@lru_cache(maxsize=1024)
def _positions(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of the parameters that can be given by position; looking costs 70 µs."""
    return tuple(
        parameter.name
        for parameter in inspect.signature(function).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    )
