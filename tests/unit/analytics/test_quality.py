"""The quality of the groups on labelled questions, with the built-in model: what was promised.

``questions.tsv`` has 50 intents in traditional and simplified Chinese and English, written for this
project; ``translations.tsv`` sentences with their translations. Public corpora beside them.
"""

from __future__ import annotations

import html
import json
import random
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, v_measure_score

from ironbeat.workloads.analytics import sample, texts
from ironbeat.workloads.analytics.clustering import NOISE, Centring, cluster
from ironbeat.workloads.analytics.embedder import UniversalEmbedder

DATA = Path(__file__).parents[2] / "data"
FAQ = Path(__file__).parents[3] / ".cache" / "corpora" / "documents"


@pytest.fixture(scope="module")
def embedder() -> UniversalEmbedder:
    return UniversalEmbedder()


def grouped(embedder: UniversalEmbedder, messages: list[str]) -> np.ndarray:
    """Groups of messages; what belongs nowhere is a group of its own."""
    vectors, parts = embedder.embed(messages), texts.parts(messages)
    labels = cluster(Centring.of(vectors, parts, texts.PARTS).apply(vectors, parts))
    alone = labels == NOISE
    labels[alone] = labels.max() + 1 + np.arange(alone.sum())
    return labels


def test_there_are_enough_questions_to_judge_by() -> None:
    questions = sample.questions()
    assert len({question.intent for question in questions}) >= 40
    assert {question.language for question in questions} == {"zh-Hant", "zh-Hans", "en"}
    assert len({question.text for question in questions}) == len(questions) > 600


@pytest.mark.parametrize(
    ("languages", "least_v", "least_rand"),
    [
        ({"zh-Hant", "zh-Hans", "en"}, 0.73, 0.5),
        ({"zh-Hant", "zh-Hans"}, 0.85, 0.5),
        ({"en"}, 0.8, 0.35),
    ],
)
def test_paraphrases_are_grouped(
    embedder: UniversalEmbedder, languages: set[str], least_v: float, least_rand: float
) -> None:
    chosen = [question for question in sample.questions() if question.language in languages]
    labels = grouped(embedder, [question.text for question in chosen])
    truth = [question.intent for question in chosen]
    assert v_measure_score(truth, labels) >= least_v
    assert adjusted_rand_score(truth, labels) >= least_rand


def test_a_translation_is_the_nearest_of_all(embedder: UniversalEmbedder) -> None:
    lines = (DATA / "translations.tsv").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("\t") for line in lines]
    assert len(pairs) >= 80
    chinese = embedder.embed([pair[0] for pair in pairs])
    english = embedder.embed([pair[1] for pair in pairs])
    near = chinese @ english.T
    right = np.arange(len(pairs))
    assert (near.argmax(axis=1) == right).mean() >= 0.95
    assert (near.argmax(axis=0) == right).mean() >= 0.95


def test_the_same_intent_is_found_in_the_other_language(embedder: UniversalEmbedder) -> None:
    questions = sample.questions()
    intents = np.array([question.intent for question in questions])
    english = np.array([question.language == "en" for question in questions])
    vectors = embedder.embed([question.text for question in questions])
    near = vectors[~english] @ vectors[english].T
    assert (intents[english][near.argmax(axis=1)] == intents[~english]).mean() >= 0.85
    assert (intents[~english][near.argmax(axis=0)] == intents[english]).mean() >= 0.9


def _headings(directory: Path) -> dict[str, str]:
    """The questions of Debian's FAQ by their places in it, which are the same in each language."""
    heading = re.compile(r'<h2 class="title"[^>]*><a id="([^"]+)"></a>(.*?)</h2>', re.DOTALL)
    found = {}
    for path in sorted(directory.glob("*.html")):
        for place, text in heading.findall(path.read_text(encoding="utf-8")):
            bare = " ".join(html.unescape(re.sub(r"<[^>]+>", "", text)).split())
            found[f"{path.name.partition('.')[0]}#{place}"] = re.sub(r"^[\d.]+\s*", "", bare)
    return found


@pytest.mark.skipif(not FAQ.is_dir(), reason="scripts/corpora has not fetched Debian's FAQ")
def test_a_question_of_debians_faq_is_found_in_the_other_language(
    embedder: UniversalEmbedder,
) -> None:
    english, chinese = _headings(FAQ / "faq-en"), _headings(FAQ / "faq-zh")
    both = sorted(
        place
        for place in english.keys() & chinese.keys()
        if texts.part(chinese[place]) == texts.CHINESE  # some were left as they are
    )
    assert len(both) >= 80
    near = (
        embedder.embed([chinese[place] for place in both])
        @ embedder.embed([english[place] for place in both]).T
    )
    right = np.arange(len(both))
    assert (near.argmax(axis=1) == right).mean() >= 0.95
    assert (near.argmax(axis=0) == right).mean() >= 0.95


def _home_assistant(language: str, chance: random.Random, each: int) -> list[tuple[str, str]]:
    """Sentences with their intents, made from the templates of home-assistant-intents."""
    path = files("home_assistant_intents").joinpath("data", f"{language}.json")
    found = json.loads(path.read_text(encoding="utf-8"))["intents"]
    made = []
    for intent, parts in sorted(found.items()):
        templates = [
            sentence
            for part in parts["data"]
            for sentence in part["sentences"]
            if "{" not in sentence and "<" not in sentence
        ]
        sentences = {_said(template, chance) for template in templates for _ in range(3)}
        chosen = sorted(text for text in sentences if len(text) >= 3)
        if len(chosen) >= 3:
            made += [(intent, text) for text in chance.sample(chosen, min(each, len(chosen)))]
    return made


def _said(template: str, chance: random.Random) -> str:
    """One of the sentences that a template stands for."""
    innermost = re.compile(r"\(([^()\[\]]*)\)|\[([^()\[\]]*)\]")
    while found := innermost.search(template):
        if found[1] is not None:
            piece = chance.choice(found[1].split("|"))
        else:
            piece = chance.choice([*found[2].split("|"), ""])
        template = template[: found.start()] + piece + template[found.end() :]
    return re.sub(r"\s+", " ", template).strip()


def test_commands_of_a_public_corpus_are_grouped(embedder: UniversalEmbedder) -> None:
    chance = random.Random(1)
    pairs = _home_assistant("en", chance, 12) + _home_assistant("zh-CN", chance, 12)
    assert len(pairs) > 60
    labels = grouped(embedder, [text for _, text in pairs])
    assert v_measure_score([intent for intent, _ in pairs], labels) >= 0.7
