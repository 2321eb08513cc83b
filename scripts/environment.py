"""Make a Python environment of exactly the pinned packages, before any package is there.

Standard library only, and nothing newer than Python 3.6 understands, so that an old `python3`
gets as far as finding a newer one. With `uv` on the path it is used; pip does the same.
"""

import hashlib
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OLDEST = (3, 11)
NEWEST_KNOWN = 15  # python3.15 … python3.11 are looked for when `python3` is too old
PROGRESS_SECONDS = 10

# What workloads need beyond the core, each in requirements/NAME.txt, and where the choice is kept:
# beside the environment, which may be thrown away.
EXTRAS = ("analytics", "documents", "speech", "models")
CHOSEN = ".venv-extras"

# What would make a fresh environment see packages that are not its own.
FOREIGN = ("PYTHONPATH", "PYTHONHOME", "PIP_USER", "PIP_TARGET", "PIP_PREFIX", "VIRTUAL_ENV")


class Unavailable(Exception):
    """The environment cannot be made; the message says what to do."""


def ensure(name, requirements, extras=(), anew=False):
    """The Python of the environment `name`, with all of `requirements` and Ironbeat in it.

    Each of `extras` brings the packages in its own file of pins. An environment made from the same
    pins by the same Python in the same place is used as it is. `anew`: throw away what is there.
    """
    directory = ROOT / name
    pins = [ROOT / "requirements" / each for each in (requirements, *map("{}.txt".format, extras))]
    python = directory / "bin" / "python"
    stamp = directory / "made-from"
    wanted = _fingerprint(directory, pins)
    if python.exists() and _read(stamp) == wanted and not anew:
        return str(python)
    started = time.time()
    uv = _working_uv()
    program = "uv" if uv else "pip"
    print(f"Installing {_count(pins)} pinned packages into {name} with {program}")
    sys.stdout.flush()
    if stamp.exists():
        stamp.unlink()
    # What uv has made has no pip in it.
    if (
        anew
        or not _is_usable(directory)
        or not (uv or _succeeds([str(python), "-c", "import pip"]))
    ):
        if directory.exists():
            shutil.rmtree(str(directory))
        _make(directory, uv)
    if uv:
        install = [uv, "pip", "install", "--python", str(python)]
    else:
        # Compiling all that is installed takes longer than compiling what is used, when it is used.
        install = [str(python), "-m", "pip", "install", "--no-compile", "--no-input"]
        install.append("--disable-pip-version-check")
    # One file at a time: they share most of their pins, and pip refuses to be told a thing twice.
    for file in pins:
        _run(
            [*install, "--require-hashes", "-r", str(file)],
            f"packages of {file.stem}",
            "The packages could not be installed: look at the lines above. Where a network has a "
            "package index or a certificate authority of its own, set PIP_INDEX_URL and PIP_CERT "
            "(for uv: UV_DEFAULT_INDEX and SSL_CERT_FILE).",
        )
    _run(
        [*install, "--no-deps", "--no-build-isolation", "-e", str(ROOT)],
        "ironbeat",
        "Ironbeat itself could not be installed: look at the lines above.",
    )
    stamp.write_text(wanted)
    print(f"Installed in {time.time() - started:.0f} s")
    sys.stdout.flush()
    return str(python)


def available_extras():
    """The names that `scripts/up --with` takes: the extras that have a file of pins."""
    return [name for name in EXTRAS if (ROOT / "requirements" / f"{name}.txt").exists()]


def remembered_extras():
    """The extras that the last `scripts/up --with` chose."""
    known = available_extras()
    return [name for name in (_read(ROOT / CHOSEN) or "").split() if name in known]


def remember_extras(names):
    """Have the next `scripts/up` take the same."""
    (ROOT / CHOSEN).write_text(" ".join(names) + "\n")


def newer_python():
    """A Python that is new enough: this one, or another on the path; raises `Unavailable`."""
    if sys.version_info >= OLDEST:
        return sys.executable
    for minor in range(NEWEST_KNOWN, OLDEST[1] - 1, -1):
        found = shutil.which(f"python3.{minor}")
        if found and _succeeds([found, "-c", "pass"]):
            return found
    raise Unavailable(
        f"Python 3.11 or newer is needed; {sys.executable} is {sys.version.split()[0]} and no "
        "newer one is on the path. On Debian 12 or later: apt install python3 python3-venv"
    )


def clean_environment():
    """This process's environment without what would make another Python see foreign packages.

    Nor what forbids Python to keep the bytecode of what it has read: without it every program takes
    twice as long to start, and the tests start thousands. It is kept apart from the sources.
    """
    values = {name: value for name, value in os.environ.items() if name not in FOREIGN}
    if values.pop("PYTHONDONTWRITEBYTECODE", None):
        values.setdefault("PYTHONPYCACHEPREFIX", str(ROOT / ".cache" / "bytecode"))
    return values


def _make(directory, uv):
    if uv:
        make = [uv, "venv", "--quiet", "--no-python-downloads", "--python", sys.executable]
        _run(
            [*make, str(directory)],
            "environment",
            "uv could not make an environment: look at the lines above.",
        )
        return
    advice = (
        f"{sys.executable} cannot make an environment: its modules venv and ensurepip are not "
        "all there.\nOn Debian and Ubuntu: apt install python3-venv (as root). Without root: "
        "install uv from https://docs.astral.sh/uv, which needs neither."
    )
    if not _succeeds([sys.executable, "-c", "import venv, ensurepip"]):
        raise Unavailable(advice)
    _run([sys.executable, "-m", "venv", str(directory)], "environment", advice)


def _run(command, what, advice):
    """Run `command`, showing that it lives; its output only if it fails."""
    process = subprocess.Popen(
        command,
        env=clean_environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
    )
    lines = []

    def read():
        for line in process.stdout:
            lines.append(line.rstrip())

    reader = threading.Thread(target=read)
    reader.start()
    terminal = sys.stdout.isatty()
    started = shown = time.time()
    while process.poll() is None:
        time.sleep(0.1)
        if time.time() - shown >= (0.5 if terminal else PROGRESS_SECONDS):
            shown = time.time()
            text = f"  {what} … {shown - started:.0f} s  {lines[-1].strip()[:60] if lines else ''}"
            sys.stdout.write("\r\033[K" + text if terminal else text + "\n")
            sys.stdout.flush()
    reader.join()
    if terminal:
        sys.stdout.write("\r\033[K")
    if process.returncode != 0:
        print("\n".join(lines[-30:]))
        raise Unavailable(advice)


def _is_usable(directory):
    """Whether there is an environment here, made by this very Python."""
    home = re.search(r"^home = (.*)$", _read(directory / "pyvenv.cfg") or "", re.MULTILINE)
    return (
        home is not None
        and Path(home.group(1).strip()).resolve() == Path(sys.executable).resolve().parent
        and _succeeds([str(directory / "bin" / "python"), "-c", "pass"])
    )


def _fingerprint(directory, pins):
    """What an environment is made from: its place (scripts name it), Python, pins, project."""
    parts = (str(directory), sys.version, *map(_read, pins), _read(ROOT / "pyproject.toml"))
    return hashlib.sha256("\0".join(map(str, parts)).encode()).hexdigest()


def _count(pins):
    pinned = re.compile(r"^[A-Za-z0-9._-]+(?:\[.*\])?==[^\\\n]*", re.MULTILINE)
    return len({pin.strip() for file in pins for pin in pinned.findall(_read(file) or "")})


def _working_uv():
    found = shutil.which("uv")
    return found if found and _succeeds([found, "--version"]) else None


def _succeeds(command):
    try:
        code = subprocess.call(
            command,
            env=clean_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except OSError:
        return False
    return code == 0


def _read(path):
    try:
        return path.read_text()
    except OSError:
        return None
