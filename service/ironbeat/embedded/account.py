"""The ordinary user under whom an embedded server runs, and where that user can have its files.

PostgreSQL refuses to run as root, and no server of ours should. When root starts one, it runs as
the owner of the state directory, or as ``nobody`` where root owns that too. No user is created,
and no directory on the way is opened to anybody: where that user cannot reach the state directory
(``/root/…``), the server's files lie under ``/var/lib/ironbeat`` instead.
Where data were begun, there they stay.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SHELTER = Path("/var/lib/ironbeat")

# 107 bytes less the longest file name that is put in it.
LONGEST_SOCKET_DIRECTORY = 80


@dataclass(frozen=True)
class Account:
    """An ordinary user, ``None`` values meaning whoever runs this process."""

    uid: int | None = None
    gid: int | None = None

    def popen_arguments(self) -> dict[str, Any]:
        """What makes :class:`subprocess.Popen` run a program as this user."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}

    def assume(self) -> None:
        """Become this user for good."""
        if self.uid is not None and self.gid is not None:
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)

    def own(self, path: Path) -> None:
        """Give ``path`` to this user."""
        if self.uid is not None and self.gid is not None:
            os.chown(path, self.uid, self.gid)

    def make_directory(self, path: Path) -> Path:
        """Create the private directory ``path`` for this user, or check that it is theirs."""
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.own(path)
        path.chmod(0o700)
        return path

    def can_read(self, path: Path) -> bool:
        """Whether this user can reach and read the file ``path``."""
        return self._may("-r", path)

    def can_enter(self, path: Path) -> bool:
        """Whether this user can reach and pass the directory ``path``."""
        return self._may("-x", path)

    def _may(self, test: str, path: Path) -> bool:
        # Asked of the kernel as that user: mode bits alone do not tell (ACLs, mounts).
        asked = subprocess.run(
            ["test", test, str(path)],
            cwd="/",
            env={"PATH": os.defpath},
            **self.popen_arguments(),
        )
        return asked.returncode == 0


def account_for(directory: Path) -> Account:
    """The user who runs the servers whose state lies in ``directory``."""
    if os.geteuid() != 0:
        return Account()
    owner = directory.stat()
    if owner.st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    nobody = pwd.getpwnam("nobody")
    return Account(nobody.pw_uid, nobody.pw_gid)


def servers_directory(state_dir: Path, account: Account) -> Path:
    """Where ``account`` has the servers' files of ``state_dir``, or can begin them: there, if it
    can reach it. Raises :class:`PermissionError` when it cannot reach what it has begun.
    """
    state_dir = state_dir.resolve()
    mark = hashlib.sha256(str(state_dir).encode()).hexdigest()[:12]
    shelter = SHELTER / mark
    # An ordinary user's servers run as that user, and always reach what is theirs.
    begun = account.uid is not None and _has_data(shelter)
    if not begun and account.can_enter(state_dir):
        return state_dir
    if not begun and _has_data(state_dir):
        # Anew elsewhere they would start, and be empty.
        raise PermissionError(
            f"the user {account.uid} can no longer reach its data in {state_dir}: a directory on "
            "the way was closed to others; open it again (chmod o+x)"
        )
    for directory in (SHELTER, shelter):
        if not directory.exists():
            directory.mkdir(parents=True)
            # Whatever the umask: passable for everybody, to be listed by root alone.
            directory.chmod(0o711)
    if not account.can_enter(shelter):
        raise PermissionError(
            f"the user {account.uid} can reach neither {state_dir} nor {SHELTER}; put the clone "
            "where everybody may pass, such as /opt or /srv"
        )
    (shelter / "belongs-to").write_text(f"{state_dir}\n")
    return shelter


def _has_data(home: Path) -> bool:
    return any((home / server / "data").exists() for server in ("postgres", "redis"))


def socket_directory(wanted: Path, account: Account) -> Path:
    """A private directory for unix sockets: ``wanted``, or one under ``/tmp`` if that is too long.

    The kernel takes socket paths of up to 107 bytes.
    """
    if len(os.fsencode(wanted)) <= LONGEST_SOCKET_DIRECTORY:
        return account.make_directory(wanted)
    mark = hashlib.sha256(os.fsencode(wanted)).hexdigest()[:12]
    short = Path("/tmp") / f"ironbeat-{mark}"  # noqa: S108 - made private, and checked, below
    owner = os.geteuid() if account.uid is None else account.uid
    if short.is_symlink() or (short.exists() and short.stat().st_uid not in (owner, 0)):
        raise PermissionError(f"{short} belongs to another user; remove it and start again")
    return account.make_directory(short)
