"""Changing the file of settings: the values named, and everything else in it as it was."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

from ironbeat.settings import get_settings, given_values, names_of, settings_file


def change(path: Path, values: Mapping[str, str], *, heading: str = "") -> bool:
    """Change or add ``values`` in the file at ``path``; returns whether it is another one now.

    A new file begins with ``heading`` and has mode 0640; one that was there keeps its mode, and its
    owner where that can be had. Whoever reads it meanwhile finds the old one or the new one.
    Raises :class:`ValueError` for a value that the file cannot hold, and :class:`OSError`.
    """
    text = path.read_text() if path.exists() else heading
    lines = text.splitlines()
    for name, value in values.items():
        if "'" in value or "\n" in value:
            raise ValueError(f"{name} holds a quote or a line break: that cannot be kept")
        line = f"{name}='{value}'"
        for number, existing in enumerate(lines):
            if re.match(rf"\s*(export\s+)?{name}\s*=", existing):
                lines[number] = line
                break
        else:
            lines.append(line)
    wanted = "\n".join(lines) + "\n"
    if wanted == text and path.exists():
        return False
    _replace(path, wanted)
    return True


def _replace(path: Path, text: str) -> None:
    before = path.stat() if path.exists() else None
    mode = 0o640 if before is None else before.st_mode & 0o777
    unfinished = path.with_name(f"{path.name}.unfinished")
    unfinished.unlink(missing_ok=True)
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w") as stream:
            os.fchmod(descriptor, mode)
            made = os.fstat(descriptor)
            if before and (made.st_uid, made.st_gid) != (before.st_uid, before.st_gid):
                os.fchown(descriptor, before.st_uid, before.st_gid)
            stream.write(text)
        unfinished.rename(path)
    except OSError:
        unfinished.unlink()
        raise


def make_last(field: str, value: str) -> str | None:
    """Have the settings' file say ``value`` wherever it sets ``field`` otherwise.

    Programs read it when they start. Returns what still sets another value, name and place, such
    as the environment or a file that this user may not write; ``None``: nothing does.
    """
    path = settings_file(os.environ)
    given = given_values().get(field)
    problem = ""
    if path is not None and given is not None and given.place == str(path):
        text = path.read_text()
        named = [n for n in names_of(field) if re.search(rf"(?m)^\s*(export\s+)?{n}\s*=", text)]
        try:
            change(path, dict.fromkeys(named, value))
        except OSError as error:
            problem = f": {error.strerror}"
    get_settings.cache_clear()
    given = given_values().get(field)
    return None if given is None or given.value == value else given.origin + problem
