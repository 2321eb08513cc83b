"""Vectors of messages: none twice, none lost, one model after the other without a gap."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psycopg
import pytest
from psycopg import sql as compose
from tests.chats import Chats

from ironbeat.settings import get_settings
from ironbeat.workloads.analytics import embedder, migrations, sample, vectors
from ironbeat.workloads.analytics.database import transaction
from ironbeat.workloads.analytics.tasks import rebuild_chat_vectors

QUESTIONS = ("怎麼重設密碼？", "How do I reset my password?", "我要退貨", "I want to return this")


def rebuild(**changes):
    return rebuild_chat_vectors(**{"user_role": "user", "min_length": 5, **changes})


def test_each_message_gets_its_vector_once(chats: Chats) -> None:
    chats.say(*QUESTIONS)
    first = rebuild(min_length=4)
    assert (first["embedded"], first["remaining"], first["more"]) == (4, 0, False)
    assert chats.vectors() == 4
    assert rebuild(min_length=4)["embedded"] == 0
    chats.say("Where is my parcel?")
    assert rebuild(min_length=4)["embedded"] == 1
    assert chats.vectors() == 5


def test_role_and_least_length_are_kept_to(chats: Chats) -> None:
    chats.say("short", "1234", "我的訂單呢？")
    chats.say("An answer of the assistant", role="assistant")
    assert rebuild()["embedded"] == 2
    assert rebuild(user_role="assistant")["embedded"] == 1
    assert rebuild(min_length=1)["embedded"] == 1
    with pytest.raises(ValueError, match="user_role is 'admin'; it is one of user, assistant"):
        rebuild(user_role="admin")
    with pytest.raises(ValueError, match="at least 1"):
        rebuild(min_length=0)


def test_vectors_have_1024_components_of_length_1_and_equal_texts_are_computed_once(
    chats: Chats,
) -> None:
    ids = chats.say("怎麼重設密碼？", "怎麼重設密碼？ ", "HOW do I pay", "how  do I pay")
    assert rebuild()["computed"] == 2
    later = chats.say("How do I pay")
    again = rebuild()
    assert (again["embedded"], again["computed"]) == (1, 0)
    made = {
        id: np.array(vector)
        for id, vector in chats.run(
            "SELECT message_id, embedding::real[] FROM analytics.chat_message_embeddings_1024"
        )
    }
    assert {len(vector) for vector in made.values()} == {1024}
    assert np.allclose([np.linalg.norm(v) for v in made.values()], 1, atol=2e-3)
    assert (made[ids[2]] == made[later[0]]).all()
    assert (made[ids[0]][512:] == 0).all()


def test_a_changed_message_gets_a_new_vector_and_a_deleted_one_loses_it(chats: Chats) -> None:
    (id,) = chats.say("怎麼重設密碼？")
    rebuild()
    one = "SELECT embedding::text FROM analytics.chat_message_embeddings_1024"
    before = chats.value(one)
    chats.run("UPDATE analytics.chat_messages SET content = '我要退貨，謝謝' WHERE id = %s", id)
    assert chats.value(one) == before
    assert rebuild()["embedded"] == 1
    assert chats.value(one) != before
    chats.run("DELETE FROM analytics.chat_messages WHERE id = %s", id)
    assert chats.vectors() == 0


def test_a_forced_rebuild_computes_all_anew_while_the_old_vectors_stay(chats: Chats) -> None:
    chats.say(*QUESTIONS, "Where is my parcel?")
    rebuild(min_length=1)
    chats.run("UPDATE analytics.chat_message_embeddings_1024 SET embedded_at = '2020-01-01'")
    result = rebuild(min_length=1, force_rebuild=True)
    assert (result["embedded"], result["computed"]) == (5, 5)
    assert chats.vectors() == 5
    assert not chats.run(
        "SELECT 1 FROM analytics.chat_message_embeddings_1024 WHERE embedded_at < '2021-01-01'"
    )


def _all_sample_messages(chats: Chats, users: int) -> int:
    sample.load(scale=users, progress=lambda done, total: None)
    return chats.value(
        "SELECT count(*) FROM analytics.chat_messages WHERE role = 'user' AND length >= 5"
    )


def _count_embedded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What goes through the model, in order."""
    seen: list[str] = []
    lock = threading.Lock()
    real = embedder.UniversalEmbedder.embed

    def counting(self, messages):
        with lock:
            seen.extend(messages)
        return real(self, messages)

    monkeypatch.setattr(embedder.UniversalEmbedder, "embed", counting)
    return seen


def test_two_runs_at_once_never_embed_a_message_twice(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = _all_sample_messages(chats, 150)
    # Equal texts may be in the hands of two runs at the same moment; here all differ.
    chats.run("UPDATE analytics.chat_messages SET content = content || ' #' || id")
    monkeypatch.setattr(vectors, "BATCH_MESSAGES", 20)
    seen = _count_embedded(monkeypatch)
    results: list[dict] = []

    def run() -> None:
        results.append(rebuild())

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(results) == 3
    assert sum(result["embedded"] for result in results) == number == chats.vectors()
    assert len(seen) == len(set(seen)) == number


def test_a_run_that_dies_in_the_middle_loses_nothing_and_the_next_goes_on(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    number = _all_sample_messages(chats, 60)
    monkeypatch.setattr(vectors, "BATCH_MESSAGES", 25)
    real = embedder.UniversalEmbedder.embed
    batches = []

    def dying(self, messages):
        batches.append(len(messages))
        if len(batches) == 3:
            raise psycopg.OperationalError("gone")
        return real(self, messages)

    monkeypatch.setattr(embedder.UniversalEmbedder, "embed", dying)
    with pytest.raises(psycopg.OperationalError):
        vectors.rebuild(role="user", min_length=5, force=False)
    done = chats.vectors()
    assert 0 < done < number
    assert rebuild()["embedded"] == number - done
    assert chats.vectors() == number


def test_a_run_whose_time_is_spent_says_what_remains(chats: Chats) -> None:
    chats.say(*QUESTIONS)
    result = vectors.rebuild(role="user", min_length=1, force=False, budget_seconds=0)
    assert (result["embedded"], result["remaining"], result["more"]) == (0, 4, True)


def test_neighbours_are_found_by_the_index_across_languages(chats: Chats) -> None:
    _all_sample_messages(chats, 100)
    chats.say(*QUESTIONS)
    rebuild()
    index = chats.value(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'analytics' AND indexname LIKE '%hnsw'"
    )
    assert "halfvec_cosine_ops" in index
    found = vectors.similar("How do I reset my password?", number=3)
    assert found[0]["content"] == "How do I reset my password?"
    assert found[0]["similarity"] == pytest.approx(1, abs=0.01)
    chinese = vectors.similar("I want to send the goods back", number=20)
    assert any("退" in row["content"] for row in chinese)
    (model,) = _models()
    query = vectors.nearest(model, np.full(512, 0.03, dtype=np.float32), "user", 5, 50)
    with transaction() as cursor:
        # So few rows would be sorted faster than looked up.
        cursor.execute("SET LOCAL enable_seqscan = off")
        cursor.execute("SET LOCAL enable_sort = off")
        plan = cursor.execute(compose.SQL("EXPLAIN {}").format(query)).fetchall()
    assert "_hnsw" in str(plan)


def indexed(chats: Chats) -> dict[int, str]:
    """The messages whose vectors are in the index, with what they say now."""
    return dict(
        chats.run(
            "SELECT m.id, m.content FROM analytics.chat_message_embeddings_1024 AS e"
            " JOIN analytics.chat_messages AS m ON m.id = e.message_id WHERE e.indexed"
        )
    )


def test_of_equal_texts_one_is_in_the_index_whoever_of_them_goes(chats: Chats) -> None:
    first = chats.say("Where is my parcel?", "where is  my parcel?", "我要退貨，謝謝")
    rebuild()
    later = chats.say("Where is my parcel? ")
    rebuild()
    assert chats.vectors() == 4
    assert indexed(chats).keys() == {first[0], first[2]}
    chats.run("DELETE FROM analytics.chat_messages WHERE id = %s", first[0])
    assert indexed(chats).keys() == {first[1], first[2]}
    chats.run(
        "UPDATE analytics.chat_messages SET content = '怎麼重設密碼？' WHERE id = %s", first[1]
    )
    # The vector of what it said before stays until the next run, and nobody is given it.
    assert indexed(chats).keys() == {first[1], first[2], later[0]}
    twin = chats.say("怎麼重設密碼？")
    assert rebuild()["computed"] == 1
    assert indexed(chats).keys() == {first[1], first[2], later[0]}
    assert [row["id"] for row in vectors.similar("怎麼重設密碼？", number=1)] == [first[1]]
    chats.run("DELETE FROM analytics.chat_messages WHERE id = ANY (%s)", [*first, *later])
    assert indexed(chats).keys() == {twin[0]}
    rebuild(force_rebuild=True)
    assert indexed(chats).keys() == {twin[0]}


def test_a_forced_rebuild_leaves_one_of_each_text_in_the_index(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    chats.say(*(text for _ in range(4) for text in QUESTIONS))
    rebuild(min_length=1)
    monkeypatch.setattr(vectors, "BATCH_MESSAGES", 3)
    rebuild(min_length=1, force_rebuild=True)
    assert sorted(indexed(chats).values()) == sorted(QUESTIONS)


def test_messages_changed_to_one_text_are_not_given_what_the_others_said_before(
    chats: Chats, monkeypatch: pytest.MonkeyPatch
) -> None:
    ids = chats.say("怎麼重設密碼？", "Where is my parcel?", "我要退貨，謝謝")
    rebuild()
    monkeypatch.setattr(vectors, "BATCH_MESSAGES", 1)
    chats.run("UPDATE analytics.chat_messages SET content = 'How do I pay by card?'")
    rebuild()
    assert (
        chats.value(
            "SELECT count(DISTINCT embedding::text) FROM analytics.chat_message_embeddings_1024"
        )
        == 1
    )
    assert indexed(chats).keys() == {ids[0]}
    (found,) = vectors.similar("How do I pay by card?")
    assert found["similarity"] == pytest.approx(1, abs=0.01)


def test_a_question_that_everybody_asks_leaves_room_for_others(chats: Chats) -> None:
    chats.say(*["How do I reset my password?"] * 150)
    chats.say("I forgot my password, what now?", "Where can I change my password?")
    rebuild()
    found = vectors.similar("reset password", number=3)
    assert len({row["content"] for row in found}) == 3


def test_a_database_of_before_gets_its_index_of_one_a_text(chats: Chats) -> None:
    folder = Path(migrations.__file__).parent
    chats.say(*(text for _ in range(3) for text in QUESTIONS))
    rebuild(min_length=1)
    chats.run((folder / "0002_one_a_text_down.sql").read_text())
    chats.run(
        "CREATE INDEX chat_message_embeddings_1024_m1_hnsw"
        " ON analytics.chat_message_embeddings_1024_m1 USING hnsw (embedding halfvec_cosine_ops)"
    )
    chats.run((folder / "0002_one_a_text.sql").read_text())
    assert sorted(indexed(chats).values()) == sorted(QUESTIONS)
    rebuild(min_length=1)
    definition = chats.value(
        "SELECT indexdef FROM pg_indexes WHERE schemaname = 'analytics' AND indexname LIKE '%hnsw'"
    )
    assert "WHERE indexed" in definition


class Other(embedder.UniversalEmbedder):
    """Another version of the model: the same directions, turned round."""

    name = "other"

    def __init__(self) -> None:
        super().__init__()
        self.version = "2"

    def embed(self, messages):
        return -super().embed(messages)


@pytest.fixture
def switch_model(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    other = Other()

    def switch() -> None:
        monkeypatch.setattr(vectors, "configured", lambda: other)

    return switch


def test_another_model_takes_over_in_the_background_without_a_gap(
    chats: Chats, switch_model: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    number = _all_sample_messages(chats, 60)
    rebuild()
    question = chats.value("SELECT min(content) FROM analytics.chat_messages WHERE role = 'user'")
    switch_model()
    monkeypatch.setattr(vectors, "BATCH_MESSAGES", 40)

    def states() -> dict[str, str]:
        return dict(chats.run("SELECT name, state FROM analytics.embedding_models"))

    vectors.ensure_model(vectors.configured())
    (model,) = [m for m in _models() if m.name == "other"]
    vectors.embed_batch(model, vectors.configured(), "user", 5)
    assert states() == {embedder.BUILT_IN: "serving", "other": "building"}
    # In the middle of it the old model answers, and gets the vectors of new messages too.
    assert vectors.similar(question, number=1)[0]["similarity"] == pytest.approx(1, abs=0.01)
    chats.say("A message that comes while the models change")
    rebuild()
    assert states() == {embedder.BUILT_IN: "retired", "other": "serving"}
    assert vectors.similar(question, number=1)[0]["similarity"] == pytest.approx(1, abs=0.01)
    counts = dict(
        chats.run(
            "SELECT m.name, count(*) FROM analytics.chat_message_embeddings_1024 AS e"
            " JOIN analytics.embedding_models AS m ON m.id = e.model_id GROUP BY 1"
        )
    )
    assert counts == {embedder.BUILT_IN: number + 1, "other": number + 1}
    assert vectors.drop_retired() != []
    assert chats.vectors() == number + 1


def test_a_setting_put_back_gives_the_new_model_up(
    chats: Chats, switch_model: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    chats.say(*QUESTIONS)
    rebuild(min_length=1)
    with monkeypatch.context() as patch:
        patch.setattr(vectors, "configured", lambda: Other())
        vectors.ensure_model(vectors.configured())
        assert len(_models()) == 2
    rebuild(min_length=1)
    assert [model.name for model in _models()] == [embedder.BUILT_IN]
    assert vectors.drop_retired() != []
    assert rebuild(min_length=1)["embedded"] == 0


def _models() -> list[vectors.Model]:
    with transaction() as cursor:
        return vectors.models(cursor)


def test_a_directory_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(embedder.ModelUnusable, match="no sentence-transformers model is there"):
        embedder.TransformerEmbedder(tmp_path)


def test_any_sentence_transformers_model_serves_from_its_directory(
    chats: Chats, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the real library on a model made here: tiny and untrained, but whole."""
    sentence_transformers = pytest.importorskip(
        "sentence_transformers", reason="the extra [models] (PyTorch) is not installed"
    )
    transformers = pytest.importorskip("transformers")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"怎么重设密码我要退货howdoiret", "pay"]
    raw = tmp_path / "raw"
    raw.mkdir()
    (raw / "vocab.txt").write_text("\n".join(dict.fromkeys(words)), encoding="utf-8")
    transformers.BertTokenizer(str(raw / "vocab.txt")).save_pretrained(raw)
    transformers.BertModel(
        transformers.BertConfig(
            vocab_size=len(set(words)),
            hidden_size=1024,
            num_hidden_layers=1,
            num_attention_heads=4,
            intermediate_size=64,
        )
    ).save_pretrained(raw)
    directory = tmp_path / "tiny-1024"
    # Of a plain encoder the library makes a model that takes the mean of its tokens.
    made = sentence_transformers.SentenceTransformer(str(raw), device="cpu")
    made.save(str(directory))

    monkeypatch.setenv("IRONBEAT_ANALYTICS_MODEL", str(directory))
    get_settings.cache_clear()
    chats.say(*QUESTIONS)
    result = rebuild(min_length=1)
    assert (result["embedded"], result["model"]) == (4, "tiny-1024")
    (row,) = chats.run("SELECT name, dimensions, state, location FROM analytics.embedding_models")
    assert row == ("tiny-1024", 1024, "serving", str(directory))
    made_vectors = np.array(
        chats.run("SELECT embedding::real[] FROM analytics.chat_message_embeddings_1024")
    )
    assert np.allclose(np.linalg.norm(made_vectors, axis=1), 1, atol=2e-3)
    assert vectors.similar(QUESTIONS[0], number=1)[0]["similarity"] == pytest.approx(1, abs=0.01)
    # Back to the built-in one: the other's vectors serve until its own are there.
    monkeypatch.delenv("IRONBEAT_ANALYTICS_MODEL")
    get_settings.cache_clear()
    assert rebuild(min_length=1)["remaining"] == 0
    assert [model.name for model in _models()] == [embedder.BUILT_IN]
    get_settings.cache_clear()
