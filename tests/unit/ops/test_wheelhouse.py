"""What a release is made of: pins for a host, extras that agree, packages of one's own."""

from __future__ import annotations

import hashlib
import importlib.machinery
import importlib.util
import json
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).parents[3] / "scripts/wheelhouse"


@pytest.fixture(scope="module")
def wheelhouse() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("wheelhouse", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("wheelhouse", loader))
    sys.modules["wheelhouse"] = module
    loader.exec_module(module)
    return module


def pin_line(name: str, version: str, marker: str = "") -> str:
    return f"{name}=={version}{marker and ' ; ' + marker} \\\n    --hash=sha256:{name}{version}\n"


def make_wheel(directory: Path, name: str = "acme_tasks", tag: str = "py3-none-any") -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}-1.0.dist-info/METADATA", "Name: acme\n")
    return path


def test_markers_are_evaluated_for_the_host_and_not_for_this_machine(wheelhouse) -> None:
    lock = (
        pin_line("always", "1")
        + pin_line("old", "1", "python_full_version < '3.12'")
        + pin_line("new", "2", "python_full_version >= '3.12'")
        + pin_line("windows", "3", "sys_platform == 'win32'")
    )
    names = {
        text: [pin.name for pin in wheelhouse.pins_for(lock, wheelhouse.Target.parse(text))]
        for text in ("3.11.2-x86_64", "3.13.5-aarch64")
    }
    assert names == {"3.11.2-x86_64": ["always", "old"], "3.13.5-aarch64": ["always", "new"]}


@pytest.mark.parametrize("text", ["3.13-x86_64", "3.13.5", "3.13.5-riscv64", "2.7.18-x86_64"])
def test_a_target_that_is_none_says_how_one_looks(wheelhouse, text: str) -> None:
    with pytest.raises(wheelhouse.Refused, match=r"3\.13\.5-x86_64"):
        wheelhouse.Target.parse(text)


def test_a_pin_without_hashes_is_refused(wheelhouse) -> None:
    with pytest.raises(wheelhouse.Refused, match="scripts/lock"):
        list(wheelhouse.pins_for("celery==5.7.0\n", wheelhouse.Target.parse("3.13.5-x86_64")))


def test_files_of_pins_are_merged_and_must_agree(wheelhouse) -> None:
    target = wheelhouse.Target.parse("3.13.5-x86_64")
    core, extra = pin_line("shared", "1"), pin_line("shared", "1") + pin_line("heavy", "2")
    assert [pin.name for pin in wheelhouse.merged([core, extra], target)] == ["shared", "heavy"]
    with pytest.raises(wheelhouse.Refused, match="shared is pinned to 1 and to 2"):
        wheelhouse.merged([core, pin_line("shared", "2")], target)


def test_the_projects_own_files_of_pins_agree_for_every_supported_host(wheelhouse) -> None:
    extras = [
        path.stem
        for path in (SCRIPT.parents[1] / "requirements").glob("*.txt")
        if path.stem not in ("core", "full", "local", "ops", "dev", "bench")
    ]
    for text in ("3.11.2-x86_64", "3.12.3-x86_64", "3.13.5-x86_64", "3.13.5-aarch64"):
        target = wheelhouse.Target.parse(text)
        core = {pin.name for pin in wheelhouse.merged(wheelhouse.locks_of([]), target)}
        everything = {pin.name for pin in wheelhouse.merged(wheelhouse.locks_of(extras), target)}
        assert {"celery", "psycopg", "ironbeat"} & core == {"celery", "psycopg"}
        assert core <= everything


def test_an_extra_without_pins_is_refused_and_nothing_is_built(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, SCRIPT, "--extra", "nonsense"], capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "requirements/nonsense.txt" in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize("specification", ["acme", "acme>=1", "acme==1.*", "acme==1,==2"])
def test_a_package_whose_version_may_change_is_refused(
    wheelhouse, tmp_path: Path, specification: str
) -> None:
    with pytest.raises(wheelhouse.Refused):
        wheelhouse.package_wheel(specification, tmp_path)


def test_a_wheel_that_is_not_there_is_named(wheelhouse, tmp_path: Path) -> None:
    with pytest.raises(wheelhouse.Refused, match=r"gone-1\.0-py3-none-any\.whl"):
        wheelhouse.package_wheel(str(tmp_path / "gone-1.0-py3-none-any.whl"), tmp_path)


def test_what_was_built_here_is_pinned_to_its_file(wheelhouse, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    of_the_sources = wheelhouse.Pin("acme-tasks", "1.0", ("sha256:of-the-sdist",))
    assert wheelhouse.installed([of_the_sources], [wheel]) == [
        wheelhouse.Pin("acme-tasks", "1.0", (f"sha256:{digest}",))
    ]
    of_the_wheel = wheelhouse.Pin("acme-tasks", "1.0", ("sha256:other", f"sha256:{digest}"))
    assert wheelhouse.installed([of_the_wheel], [wheel]) == [of_the_wheel]


def test_an_archive_is_the_same_bytes_for_the_same_content(wheelhouse, tmp_path: Path) -> None:
    wheel = make_wheel(tmp_path / "wheels")
    pins = [wheelhouse.pin_of(wheel)]
    paths = [tmp_path / f"{number}" / "release.tar" for number in (1, 2)]
    for path in paths:
        wheelhouse.write(path, "1.0-abc", "1.0", pins, [wheel])
    assert paths[0].read_bytes() == paths[1].read_bytes()
    with tarfile.open(paths[0]) as archive:
        assert archive.getnames() == ["release.json", "requirements.txt", f"wheels/{wheel.name}"]
        note = json.load(archive.extractfile("release.json"))
    assert note["packages"] == {"acme-tasks": "1.0"}
