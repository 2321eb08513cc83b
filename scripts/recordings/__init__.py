"""Real speech to measure with, from packages of Debian: fetched, unpacked, never installed.

`scripts/speech-data` fetches them; tests that need them skip, with the reason, where they are not.
"""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Each package with the folder in it that holds its sounds.
PACKAGES = {
    "pocketsphinx-testdata": "usr/share/pocketsphinx/test/data",
    "asterisk-core-sounds-en-wav": "usr/share/asterisk/sounds/en_US_f_Allison",
    "gcin-voice": "usr/share/gcin-voice/ogg",
}
RAW_RATE = 16_000


class Missing(Exception):
    """The recordings are not there, or cannot be fetched; the message says what to do."""


@dataclass(frozen=True)
class Spoken:
    """A recording: its package, its file, and what is said in it."""

    package: str
    path: Path
    text: str

    def content(self) -> bytes:
        """The file; bare samples are given a header."""
        content = self.path.read_bytes()
        if self.path.suffix != ".raw":
            return content
        target = io.BytesIO()
        with wave.open(target, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RAW_RATE)
            file.writeframes(content)
        return target.getvalue()


def place() -> Path:
    """Where the packages are unpacked: `IRONBEAT_SPEECH_DATA`, else var/speech-data."""
    return Path(os.environ.get("IRONBEAT_SPEECH_DATA") or ROOT / "var" / "speech-data")


def folder(package: str) -> Path:
    """The folder of a package's sounds, unpacked here or installed. Raises :class:`Missing`."""
    for root in (place(), Path("/")):
        found = root / PACKAGES[package]
        if found.is_dir():
            return found
    raise Missing(f"the recordings of {package} are not here; run scripts/speech-data")


def english() -> list[Spoken]:
    """Every English recording whose words are known. Raises :class:`Missing`."""
    lines = (Path(__file__).parent / "english.tsv").read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [Spoken(package, folder(package) / name, text) for package, name, text in rows]


def mandarin() -> Iterator[tuple[str, dict[str, Path]]]:
    """Each syllable in Zhuyin that both speakers have said, with their files, in order."""
    for directory in sorted(folder("gcin-voice").iterdir()):
        files = {path.stem: path for path in sorted(directory.glob("*.ogg"))}
        if {"3", "5"} <= files.keys() and directory.name[-1] in "1234":
            yield directory.name, {name: files[name] for name in ("3", "5")}


def fetch() -> None:
    """Download and unpack what is not here yet. Needs Debian's apt-get and dpkg, but not root."""
    wanted = [package for package in PACKAGES if not (place() / PACKAGES[package]).is_dir()]
    if not wanted:
        return
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        raise Missing("apt-get and dpkg-deb are needed to fetch Debian packages")
    parcels = place() / "packages"
    parcels.mkdir(parents=True, exist_ok=True)
    for package in wanted:
        print(f"Fetching {package}", file=sys.stderr, flush=True)
        done = subprocess.run(
            ["apt-get", "download", package],
            cwd=parcels,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        parcel = next(parcels.glob(f"{package}_*.deb"), None)
        if done.returncode or parcel is None:
            raise Missing(
                f"{package} could not be fetched; as root, `apt-get update` renews the lists.\n"
                f"{done.stdout[-500:]}"
            )
        subprocess.run(["dpkg-deb", "--extract", str(parcel), str(place())], check=True)
        parcel.unlink()
