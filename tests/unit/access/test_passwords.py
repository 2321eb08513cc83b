"""Passwords at rest."""

from __future__ import annotations

import pytest

from ironbeat.access import passwords


def test_a_password_matches_itself_alone_and_no_digest_tells_of_another():
    kept = passwords.digest("correct horse")
    assert kept.startswith("scrypt$16384$8$1$") and "correct" not in kept
    assert passwords.matches("correct horse", kept)
    assert not passwords.matches("correct horsf", kept)
    assert not passwords.matches("", kept)
    assert passwords.digest("correct horse") != kept


@pytest.mark.parametrize(
    "kept", ["", "scrypt$1$2", "md5$1$8$1$YQ==$YQ==", "scrypt$x$8$1$YQ==$YQ=="]
)
def test_what_is_no_digest_matches_nothing(kept):
    assert not passwords.matches("correct horse", kept)


@pytest.mark.parametrize("password", ["short", "x" * 501])
def test_weak_passwords_are_refused(password):
    with pytest.raises(passwords.WeakPassword, match="characters"):
        passwords.digest(password)
