"""Nothing secret is left in what is written."""

import json

import pytest

from ironbeat.observability.masking import MASK, Masker, is_secret_name, masked, secrets_of
from ironbeat.settings import Settings


@pytest.mark.parametrize(
    ("text", "secret"),
    [
        ("connecting to postgresql://billing:hunter2@db/x", "hunter2"),
        ("redis://:p%40ss@10.0.0.1:6379/1 is away", "p%40ss"),
        ("Authorization: Bearer abc.def-123", "abc.def-123"),
        ("header Basic dXNlcjpwYXNz in request", "dXNlcjpwYXNz"),
        ("password=hunter2 and user=me", "hunter2"),
        ("{'api_key': 'sk-12345', 'n': 1}", "sk-12345"),
        (json.dumps({"text": json.dumps({"access_token": "t0ps3cret"})}), "t0ps3cret"),
        ("REDIS_PASSWORD: hunter2", "hunter2"),
    ],
)
def test_secrets_in_text_are_masked(text, secret):
    assert secret in text
    found = Masker()(text)
    assert secret not in found and MASK in found


@pytest.mark.parametrize(
    "text",
    [
        "token count: 512, tokens=3",
        "http://localhost:8000/health",
        "the passwordless login",
        "user@example.org wrote",
        '{"token_count": 12, "secretary": "Ann"}',
    ],
)
def test_harmless_text_stays(text):
    assert Masker()(text) == text


def test_values_under_secret_names_are_masked_wherever_they_stand():
    event = {
        "event": "x",
        "password": "a",
        "inner": {"apiKey": "b", "list": [{"refresh_token": 7}], "none": {"secret": None}},
        "token_count": 5,
    }
    assert masked(event) == {
        "event": "x",
        "password": MASK,
        "inner": {"apiKey": MASK, "list": [{"refresh_token": MASK}], "none": {"secret": None}},
        "token_count": 5,
    }


def test_names():
    assert is_secret_name("password") and is_secret_name("db_password")
    assert is_secret_name("X-Api-Key".replace("-", "_")) and is_secret_name("sentry.dsn")
    assert not is_secret_name("token_count") and not is_secret_name("secretary")


def test_the_installations_own_secrets_are_masked_in_any_dress(monkeypatch):
    settings = Settings(
        database_url="postgresql://u:p%40ssw0rd%22x@db/x",
        broker_url="redis://:br0kerpw@r/1",
        api_token="t0ken-of-the-api",
        flower_basic_auth="ann:flowerpower,bob:roses4you",
        sentry_dsn="https://publickey1@sentry.example/1",
    )
    secrets = secrets_of(settings)
    assert {"br0kerpw", "t0ken-of-the-api", "flowerpower", "roses4you", "publickey1"} <= secrets
    mask = Masker(secrets)
    line = json.dumps({"event": 'tried p@ssw0rd"x then t0ken-of-the-api, p%40ssw0rd%22x'})
    assert mask(line) == json.dumps({"event": f"tried {MASK} then {MASK}, {MASK}"})


def test_a_short_value_is_not_searched_for():
    assert Masker({"abc"})("abcdef abc") == "abcdef abc"
