"""``speech``: how well recordings are judged, and how fast.

English: each real recording against its sentence, five kinds of mispronunciation made from it, and
other sentences of the same speaker (and the recording backwards). A pair is in order when the
better one of two outscores the other. The same recordings re-encoded tell how far a score moves.
Mandarin: single syllables of two speakers. The recordings come from ``scripts/speech-data``.
"""

from __future__ import annotations

import argparse
import random
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import recordings
from benchmarks import report
from benchmarks.programs import Trouble
from benchmarks.report import Column, Figures

# What the project asks of itself.
IN_ORDER_PERCENT = 95.0
MOVES_AT_MOST = 3.0
ANALYSES_A_SECOND = 2.0

SEED = 20
OTHER_SYLLABLES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--part", choices=("all", *PARTS), default="all", help="measure this only")
    parser.add_argument("--processes", type=int, default=2, help="analyses at once (2)")


def run(arguments: argparse.Namespace, _peers: Sequence[str]) -> int:
    """Measure and print; returns 1 where a target is missed."""
    chosen = list(PARTS) if arguments.part == "all" else [arguments.part]
    try:
        spoken = recordings.english()
        met = [PARTS[name](arguments, spoken) for name in chosen]
    except recordings.Missing as missing:
        raise Trouble(str(missing)) from missing
    return 0 if all(met) else 1


@contextmanager
def _processes(count: int) -> Iterator[ProcessPoolExecutor]:
    from ironbeat.workloads.speech import models

    # Loaded before the fork, so that the processes share them.
    models.warm()
    with ProcessPoolExecutor(count, mp_context=get_context("fork")) as pool:
        yield pool


def _order(arguments: argparse.Namespace, spoken: Sequence[recordings.Spoken]) -> bool:
    from recordings import trials

    rng = random.Random(SEED)
    asked = []
    for number, one in enumerate(spoken):
        others = [each for each in spoken if each.package == one.package and each != one]
        wrong = [each.content() for each in rng.sample(others, trials.WRONG_SENTENCES)]
        asked.append((one.content(), one.text, wrong, SEED + number))
    with _processes(arguments.processes) as pool:
        found = list(pool.map(trials.english, *zip(*asked, strict=True)))
    counts: dict[str, list[bool]] = defaultdict(list)
    for trial in found:
        for name, in_order in trial.pairs():
            counts[name].append(in_order)
    every = [in_order for values in counts.values() for in_order in values]
    rows: dict[str, Figures] = {
        name: {"pairs": len(values), "percent": 100 * sum(values) / len(values)}
        for name, values in [*counts.items(), ("all", every)]
    }
    rights = [trial.right for trial in found]
    bad = [value for trial in found for value in trial.mispronounced.values()]
    wrong_scores = [value for trial in found for value in trial.wrong]
    report.show(
        f"Pairs in order, of {len(found)} English recordings",
        rows,
        (Column("pairs", "pairs"), Column("percent", "in order %", 1)),
        as_json=arguments.json,
        notes=(
            f"median scores: right {statistics.median(rights):.1f}, mispronounced "
            f"{statistics.median(bad):.1f}, wrong {statistics.median(wrong_scores):.1f}; "
            f"right ones from {min(rights):.1f}, wrong ones up to {max(wrong_scores):.1f}",
        ),
    )
    return rows["all"]["percent"] >= IN_ORDER_PERCENT


def _moves(arguments: argparse.Namespace, spoken: Sequence[recordings.Spoken]) -> bool:
    from recordings import trials

    with _processes(arguments.processes) as pool:
        found = list(
            pool.map(trials.moves, [one.content() for one in spoken], [one.text for one in spoken])
        )
    rows: dict[str, Figures] = {
        name: {
            "clips": len(found),
            "median": statistics.median(one[name] for one in found),
            "p95": report.percentile([one[name] for one in found], 0.95),
            "most": max(one[name] for one in found),
        }
        for name in found[0]
    }
    report.show(
        "How far the score of the same clip moves, in points",
        rows,
        (
            Column("clips", "clips"),
            Column("median", "median", 2),
            Column("p95", "p95", 2),
            Column("most", "most", 2),
        ),
        as_json=arguments.json,
    )
    return all(row["most"] < MOVES_AT_MOST for row in rows.values())


def _speed(arguments: argparse.Namespace, spoken: Sequence[recordings.Spoken]) -> bool:
    from recordings import trials

    with _processes(arguments.processes) as pool:
        files, texts = [one.content() for one in spoken], [one.text for one in spoken]
        # Once unmeasured: the processes start, and each listens to the references.
        list(pool.map(trials.score, files, texts))
        started = time.monotonic()
        list(pool.map(trials.score, files, texts))
        seconds = time.monotonic() - started
    rate = len(spoken) / seconds
    report.show(
        "Full analyses",
        {
            f"{arguments.processes} processes": {
                "clips": len(spoken),
                "seconds": seconds,
                "rate": rate,
            }
        },
        (
            Column("clips", "clips"),
            Column("seconds", "seconds", 2),
            Column("rate", "analyses/s", 2),
        ),
        as_json=arguments.json,
    )
    return rate >= ANALYSES_A_SECOND


def _mandarin(arguments: argparse.Namespace, _: Sequence[recordings.Spoken]) -> bool:
    from recordings import trials

    rng = random.Random(SEED)
    every = list(recordings.mandarin())
    some = rng.sample(every, 200)
    bare = sorted({zhuyin[:-1] for zhuyin, _ in every})
    asked = []
    for zhuyin, files in some:
        others = [f"{each}1" for each in rng.sample(bare, OTHER_SYLLABLES + 1)]
        others = [each for each in others if each[:-1] != zhuyin[:-1]][:OTHER_SYLLABLES]
        asked += [(zhuyin, others, path) for path in files.values()]
    with _processes(arguments.processes) as pool:
        found = list(pool.map(trials.mandarin, *zip(*asked, strict=True)))
    better = [
        (one.sounds[0] > other) + 0.5 * (one.sounds[0] == other)
        for one in found
        for other in one.sounds[1:]
    ]
    toned = [one for one in found if one.heard_tone is not None]
    report.show(
        "Mandarin syllables of two speakers",
        {
            "sounds": {
                "tried": len(better),
                "percent": 100 * statistics.mean(better),
            },
            "tones": {
                "tried": len(toned),
                "percent": 100 * statistics.mean(one.heard_tone == one.tone for one in toned),
            },
        },
        (Column("tried", "tried"), Column("percent", "right %", 1)),
        as_json=arguments.json,
        notes=(
            "sounds: the syllable itself is nearer than another one (chance: 50); "
            "tones: told from four (chance: 25)",
        ),
    )
    return True


PARTS = {"order": _order, "moves": _moves, "speed": _speed, "mandarin": _mandarin}
