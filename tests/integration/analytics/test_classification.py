"""Groups from day to day: found, named, counted, ranked, and recognised again."""

from __future__ import annotations

import json
from datetime import date, timedelta

import numpy as np
import pytest
import redis
from tests.chats import Chats

from ironbeat.settings import Settings, get_settings
from ironbeat.workloads.analytics import classification, payload, sample
from ironbeat.workloads.analytics.tasks import (
    cleanup_cache,
    precompute_question_classifications,
    rebuild_chat_vectors,
)

PASSWORD = (
    "怎麼重設密碼？",
    "忘記密碼了怎麼辦",
    "怎么重新设置登录密码",
    "How do I reset my password?",
    "I forgot my password, what should I do",
)
RETURN = (
    "我要退貨",
    "我想退貨，怎麼退",
    "我要退货",
    "I want to return an item",
    "how to return this",
)
WEATHER = ("明天會下雨嗎", "明天会下雨吗", "Will it rain tomorrow?", "is it going to rain tomorrow")
ODD = "The quick brown fox jumps over the lazy dog"


def classify(**arguments) -> dict:
    rebuild_chat_vectors(user_role="user", min_length=3)
    return precompute_question_classifications(**arguments)


def groups(chats: Chats) -> dict[str, int | None]:
    """Where each text is."""
    return dict(
        chats.run(
            "SELECT DISTINCT m.content, t.group_id FROM analytics.chat_messages AS m"
            " JOIN analytics.question_texts AS t USING (role, content_key)"
        )
    )


def test_nothing_to_classify_is_said(chats: Chats) -> None:
    assert precompute_question_classifications()["note"] == "no message has a vector yet"
    assert payload.read() is None


def test_similar_questions_of_both_languages_are_one_group_and_the_odd_one_is_noise(
    chats: Chats,
) -> None:
    chats.say(*PASSWORD, *RETURN, *WEATHER, ODD)
    result = classify()
    places = groups(chats)
    for texts in (PASSWORD, RETURN, WEATHER):
        assert len({places[text] for text in texts}) == 1
        assert places[texts[0]] is not None
    assert places[ODD] is None
    assert (result["groups"], result["noise"], result["from_scratch"]) == (3, 1, True)
    body = json.loads(payload.read().body)
    assert (body["messages"], body["grouped"], body["noise"]) == (15, 14, 1)
    for question in body["questions"]:
        assert question["label"] and question["question"] in (*PASSWORD, *RETURN, *WEATHER)
        assert set(question["examples"]) < {*PASSWORD, *RETURN, *WEATHER}


def test_a_second_run_adds_nothing_and_gives_the_same_payload(chats: Chats) -> None:
    chats.say(*PASSWORD, *RETURN, ODD)
    classify()
    first = payload.read()
    result = classify()
    assert (result["new_texts"], result["new_groups"], result["from_scratch"]) == (0, 0, False)
    assert payload.read() == first


def test_new_texts_join_their_group_and_new_questions_make_one(chats: Chats) -> None:
    sample.load(scale=200, progress=lambda done, total: None)
    chats.say(*PASSWORD)
    classify()
    before = groups(chats)
    names = dict(chats.run("SELECT id, label FROM analytics.question_groups"))
    chats.say("请问怎么重设密码？", *WEATHER, ODD)
    result = classify()
    assert not result["from_scratch"]
    after = groups(chats)
    assert after["请问怎么重设密码？"] == before[PASSWORD[0]]
    assert {text: after[text] for text in before if before[text]} == {
        text: group for text, group in before.items() if group
    }
    assert after[ODD] is None
    weather = {after[text] for text in WEATHER}
    assert len(weather) == 1 and None not in weather
    renamed = dict(chats.run("SELECT id, label FROM analytics.question_groups"))
    assert names.items() <= renamed.items()


def test_growing_is_what_grouping_from_scratch_would_have_given_in_the_main(chats: Chats) -> None:
    from sklearn.metrics import adjusted_rand_score

    sample.load(scale=150, progress=lambda done, total: None)
    classify()
    sample.load(scale=170, progress=lambda done, total: None)
    assert not classify()["from_scratch"]
    grown = groups(chats)
    assert classify(full=True)["from_scratch"]
    again = groups(chats)
    shared = sorted(grown)
    assert (
        adjusted_rand_score(
            [str(grown[text]) for text in shared], [str(again[text]) for text in shared]
        )
        > 0.7
    )


def test_groups_keep_their_numbers_when_all_is_grouped_from_scratch(chats: Chats) -> None:
    chats.say(*PASSWORD, *RETURN)
    classify()
    before = groups(chats)
    chats.run("DELETE FROM analytics.chat_messages WHERE content = %s", PASSWORD[0])
    chats.say(*WEATHER, "我忘了密碼，要怎麼重設")
    result = classify(full=True)
    after = groups(chats)
    assert result["from_scratch"]
    assert after[PASSWORD[1]] == before[PASSWORD[1]]
    assert after[RETURN[0]] == before[RETURN[0]]
    assert after[WEATHER[0]] not in before.values()


def test_another_method_groups_from_scratch(chats: Chats, monkeypatch: pytest.MonkeyPatch) -> None:
    chats.say(*(f"{text}{mark}" for text in PASSWORD + RETURN for mark in ("", "！", " please")))
    assert classify()["method"] == "average"
    for method in ("dbscan", "hdbscan", "average"):
        monkeypatch.setenv("IRONBEAT_ANALYTICS_METHOD", method)
        get_settings.cache_clear()
        result = classify()
        assert (result["method"], result["from_scratch"]) == (method, True)
        assert not classify()["from_scratch"]
    get_settings.cache_clear()


def test_counts_by_day_trend_and_ranking_as_of_a_day(chats: Chats) -> None:
    for days in range(3):
        chats.say(*PASSWORD, days_ago=days)
    for days in range(20, 30):
        chats.say(*RETURN, days_ago=days)
    classify()
    today = json.loads(payload.read().body)
    assert [question["messages"] for question in today["questions"]] == [15, 50]
    hot, cold = today["questions"]
    assert (hot["trend"], hot["recent"], hot["previous"]) == ("new", 15, 0)
    assert hot["days"][-4:] == [0, 5, 5, 5]
    assert (cold["trend"], sum(cold["days"])) == ("rare", 40)
    then = date.fromisoformat(today["date"]) - timedelta(days=21)
    classify(day=then.isoformat())
    past = json.loads(payload.read(day=then).body)
    assert (past["date"], len(past["questions"])) == (then.isoformat(), 1)
    assert past["questions"][0]["messages"] == 45
    assert json.loads(payload.read().body) == today


def test_a_deleted_message_is_counted_no_more(chats: Chats) -> None:
    ids = chats.say(*PASSWORD)
    classify()
    chats.run("DELETE FROM analytics.chat_messages WHERE id = %s", ids[0])
    classify()
    assert json.loads(payload.read().body)["questions"][0]["messages"] == 4


def test_the_payload_is_served_from_redis_and_from_the_database_behind(
    chats: Chats, module_settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats.say(*PASSWORD)
    classify()
    assert payload.read().source == "redis"
    with redis.Redis.from_url(module_settings.result_backend.get_secret_value()) as client:
        client.flushdb()
    kept = payload.read()
    assert kept.source == "database"
    assert payload.read().source == "redis"
    monkeypatch.setenv("IRONBEAT_RESULT_BACKEND", "redis://127.0.0.1:1/0")
    get_settings.cache_clear()
    assert (payload.read().source, payload.read().body) == ("database", kept.body)
    assert payload.refresh()["messages"] == 5
    get_settings.cache_clear()


def test_what_is_past_its_time_is_dropped_from_both(
    chats: Chats, module_settings: Settings
) -> None:
    get_settings.cache_clear()
    chats.say(*PASSWORD)
    classify()
    classify(day="2026-01-01")
    chats.run(
        "UPDATE analytics.cached_payloads SET expires_at = now() - interval '1 s'"
        " WHERE name LIKE '%2026-01-01'"
    )
    counts = cleanup_cache()
    assert (counts["dropped"], counts["dropped_from_redis"], counts["kept"]) == (1, 1, 1)
    assert payload.read(day=date(2026, 1, 1)) is None
    assert payload.read() is not None
    assert cleanup_cache()["dropped"] == 0


def test_vectors_are_read_in_the_order_asked_for(chats: Chats) -> None:
    ids = chats.say(*PASSWORD, *RETURN)
    rebuild_chat_vectors(user_role="user", min_length=1)
    with classification.transaction() as cursor:
        model = classification.serving(cursor)
        backwards = classification._vectors(cursor, model, np.array(ids[::-1]))
    with classification.transaction() as cursor:
        forwards = classification._vectors(cursor, model, np.array(ids))
    assert backwards.shape == (10, 512)
    assert (backwards == forwards[::-1]).all()
