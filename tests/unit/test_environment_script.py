"""The environment that scripts/up and scripts/test make: when anew, when not, and what they say."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import sys
import venv
from pathlib import Path
from types import ModuleType

import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture
def environment(tmp_path: Path) -> ModuleType:
    """The script's module, for a project in ``tmp_path``."""
    specification = importlib.util.spec_from_file_location(
        "environment", SCRIPTS / "environment.py"
    )
    assert specification and specification.loader
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "local.txt").write_text("")
    (tmp_path / "pyproject.toml").write_text("")
    module.ROOT = tmp_path  # type: ignore[attr-defined]
    return module


@pytest.mark.parametrize("script", ["environment.py", "up", "test"])
def test_an_old_python_gets_far_enough_to_find_a_newer_one(script: str) -> None:
    ast.parse((SCRIPTS / script).read_text(), feature_version=(3, 6))


def test_the_scripts_need_nothing_but_the_standard_library() -> None:
    for script in ("environment.py", "up", "test"):
        for node in ast.walk(ast.parse((SCRIPTS / script).read_text())):
            names = [each.name for each in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom):
                names = [node.module or ""]
            assert set(names) <= sys.stdlib_module_names | {"environment"}, script


def test_this_python_is_new_enough(environment: ModuleType) -> None:
    assert environment.newer_python() == sys.executable


def test_an_old_python_without_a_newer_one_is_told_what_to_install(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "OLDEST", (99, 0))
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(environment.Unavailable, match=r"3\.11 or newer is needed.*apt install"):
        environment.newer_python()


def test_a_missing_venv_module_is_told(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Debian's python3 without python3-venv: the import of ensurepip fails.
    python = tmp_path / "python3"
    python.write_text("#!/bin/sh\nexec false\n")
    python.chmod(0o755)
    monkeypatch.setattr(environment.sys, "executable", str(python))
    monkeypatch.setattr(environment, "_working_uv", lambda: None)
    with pytest.raises(environment.Unavailable, match="apt install python3-venv"):
        environment.ensure(".venv", "local.txt")


def test_what_was_made_from_the_same_pins_is_used(environment: ModuleType, tmp_path: Path) -> None:
    directory = tmp_path / ".venv"
    (directory / "bin").mkdir(parents=True)
    python = directory / "bin" / "python"
    python.touch()
    pins = tmp_path / "requirements" / "local.txt"
    (directory / "made-from").write_text(environment._fingerprint(directory, [pins]))
    assert environment.ensure(".venv", "local.txt") == str(python)


def test_what_uv_has_made_is_made_anew_where_uv_is_gone(
    environment: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It has no pip to install anything with."""
    directory = tmp_path / ".venv"
    venv.create(directory, with_pip=False)
    (directory / "left-over").touch()
    made: list[Path] = []

    def make(where: Path, uv: str | None) -> None:
        made.append(where)
        raise environment.Unavailable("stop here")

    monkeypatch.setattr(environment, "_working_uv", lambda: None)
    monkeypatch.setattr(environment, "_make", make)
    with pytest.raises(environment.Unavailable, match="stop here"):
        environment.ensure(".venv", "local.txt")
    assert made == [directory]
    assert not directory.exists()


def test_other_pins_or_another_place_ask_for_another_environment(
    environment: ModuleType, tmp_path: Path
) -> None:
    pins = tmp_path / "requirements" / "local.txt"
    first = environment._fingerprint(tmp_path / ".venv", [pins])
    assert environment._fingerprint(tmp_path / "moved", [pins]) != first
    pins.write_text("celery==1.0\n")
    assert environment._fingerprint(tmp_path / ".venv", [pins]) != first


def test_the_pins_are_counted(environment: ModuleType, tmp_path: Path) -> None:
    pins = tmp_path / "requirements" / "local.txt"
    pins.write_text("a==1 \\\n    --hash=sha256:x\n    # via b\nc[d]==2 ; python_version < '4'\n")
    assert environment._count([pins]) == 2
    more = tmp_path / "requirements" / "speech.txt"
    more.write_text("a==1 \\\n    --hash=sha256:x\ne==1\n")
    assert environment._count([pins, more]) == 3


@pytest.fixture
def up(environment: ModuleType, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """``scripts/up`` as a module, for a project with three extras and one of models."""
    for name in ("analytics", "documents", "speech", "models"):
        (environment.ROOT / "requirements" / f"{name}.txt").write_text("")
    monkeypatch.setitem(sys.modules, "environment", environment)
    loader = importlib.machinery.SourceFileLoader("scripts_up", str(SCRIPTS / "up"))
    module = ModuleType("scripts_up")
    module.__file__ = str(SCRIPTS / "up")
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        ([], ["speech"]),
        (["--with", "analytics"], ["analytics"]),
        (["--with=speech,analytics"], ["analytics", "speech"]),
        (["--with", "all"], ["analytics", "documents", "speech"]),
        (["--with", "all,models"], ["analytics", "documents", "speech", "models"]),
        (["--with", "none"], []),
    ],
)
def test_extras_are_chosen_by_name_and_otherwise_as_the_last_time(
    up: ModuleType, arguments: list[str], chosen: list[str]
) -> None:
    assert up.chosen_extras(arguments, ["speech"]) == chosen


@pytest.mark.parametrize("arguments", [["--with"], ["--with="], ["--with", "analytics,speach"]])
def test_an_unknown_extra_is_refused_with_the_names_there_are(
    up: ModuleType, arguments: list[str]
) -> None:
    with pytest.raises(up.environment.Unavailable, match="analytics, documents, speech, models"):
        up.chosen_extras(arguments, [])


def test_the_choice_of_extras_is_remembered_while_there_are_such(
    environment: ModuleType, tmp_path: Path
) -> None:
    assert environment.remembered_extras() == []
    (tmp_path / "requirements" / "speech.txt").write_text("")
    environment.remember_extras(["analytics", "speech"])
    assert environment.remembered_extras() == ["speech"]


def test_the_pins_of_an_extra_are_part_of_what_an_environment_is_made_from(
    environment: ModuleType, tmp_path: Path
) -> None:
    directory = tmp_path / ".venv"
    core = tmp_path / "requirements" / "local.txt"
    extra = tmp_path / "requirements" / "speech.txt"
    extra.write_text("")
    alone = environment._fingerprint(directory, [core])
    assert environment._fingerprint(directory, [core, extra]) != alone


def test_pins_that_are_installed_together_agree() -> None:
    def pins(name: str) -> set[str]:
        lines = (SCRIPTS.parent / "requirements" / f"{name}.txt").read_text().splitlines()
        return {line.rstrip("\\ ") for line in lines if "==" in line.partition(";")[0]}

    everything = pins("full")
    for name in ("core", "local", "analytics", "documents", "speech"):
        assert {pin.partition(" ")[0] for pin in pins(name)} <= {
            pin.partition(" ")[0] for pin in everything
        }, name


def test_a_failed_installation_shows_the_end_of_its_output(
    environment: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [sys.executable, "-c", "print('no such package'); raise SystemExit(1)"]
    with pytest.raises(environment.Unavailable, match="set the index"):
        environment._run(command, "packages", "set the index")
    assert "no such package" in capsys.readouterr().out
