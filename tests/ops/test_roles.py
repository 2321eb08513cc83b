"""Each role explains itself, and in the same words everywhere.

`pytest tests/ops/test_roles.py --write-readmes` writes the tables of the READMEs anew.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
ROLES = sorted(path for path in (ROOT / "roles").iterdir() if path.is_dir())
PHASES = ("validate", "install", "configure", "service")
HEADING = "| variable | default | what it is |\n|---|---|---|\n"


def defaults_of(role: Path) -> dict[str, Any]:
    return yaml.safe_load((role / "defaults/main.yml").read_text())


def options_of(role: Path, entry: str = "main") -> dict[str, Any]:
    specs = yaml.safe_load((role / "meta/argument_specs.yml").read_text())
    return specs["argument_specs"][entry]["options"]


def table_of(role: Path) -> str:
    """The table of a role's variables, in the order of its defaults."""
    options = options_of(role)
    text = (role / "defaults/main.yml").read_text()
    rows = []
    for name in defaults_of(role):
        written = re.search(rf"^{name}: *(.*)$", text, re.MULTILINE)
        assert written is not None
        value = written[1]
        default = f"`{value}`" if value and value != ">-" else "see there"
        rows.append(
            f"| `{name}` | {default} | {options[name]['description']} |".replace("\\|", "|")
        )
    return HEADING + "".join(f"{_cells(row)}\n" for row in rows)


def _cells(row: str) -> str:
    """Escape the bars inside code."""
    return re.sub(r"`[^`]*`", lambda code: code[0].replace("|", "\\|"), row)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_every_variable_is_specified_and_every_specified_variable_has_a_default(role: Path) -> None:
    assert list(options_of(role)) == list(defaults_of(role))


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_variables_carry_the_name_of_their_role(role: Path) -> None:
    assert [name for name in defaults_of(role) if not name.startswith(f"{role.name}_")] == []
    path = role / "vars/main.yml"
    inside = yaml.safe_load(path.read_text()) if path.exists() else {}
    assert [name for name in inside if not name.startswith(f"__{role.name}_")] == []


@pytest.mark.parametrize(
    "role", [role for role in ROLES if role.name != "secrets"], ids=lambda role: role.name
)
def test_a_role_goes_through_its_phases(role: Path) -> None:
    tasks = yaml.safe_load((role / "tasks/main.yml").read_text())
    assert [task["ansible.builtin.import_tasks"] for task in tasks] == [
        f"{phase}.yml" for phase in PHASES
    ]
    # What is checked before anything changes is checked in the same words as when it runs alone.
    assert options_of(role, "validate") == options_of(role)


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_the_readme_lists_the_variables_in_their_order(
    role: Path, request: pytest.FixtureRequest
) -> None:
    path = role / "README.md"
    text = path.read_text()
    wanted = text[: text.index(HEADING)] + table_of(role)
    if request.config.getoption("--write-readmes", default=False):
        path.write_text(wanted)
        text = wanted
    assert text == wanted


@pytest.mark.parametrize("role", ROLES, ids=lambda role: role.name)
def test_tasks_that_handle_secrets_print_nothing(role: Path) -> None:
    secret = re.compile(r"password|secret|_token|encryption_key|users\.acl|env\.j2|vault", re.I)
    for path in sorted((role / "tasks").glob("*.yml")):
        for task in _flat(yaml.safe_load(path.read_text()) or []):
            module = next((name for name in task if "." in name), "")
            if module.endswith((".assert", ".set_fact", ".debug", ".import_tasks")):
                continue
            if secret.search(str({k: v for k, v in task.items() if k not in ("name", "no_log")})):
                assert task.get("no_log") is True, f"{path}: {task['name']}"


def _flat(tasks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for task in tasks:
        found += _flat(task["block"]) if "block" in task else [task]
    return found
