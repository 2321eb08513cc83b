"""``analytics``: chat messages embedded, clustered and ranked, end to end, and again with news.

The messages are the workload's sample rows: questions in traditional and simplified Chinese and
English, varied so that few are equal, whose intents are known. The first run embeds all of them and
groups them from scratch; the second one sees the share of new messages that is asked for. Each runs
in processes of its own on real servers, and the cost of each stage is printed.

Beside it scikit-learn's clusterings with their own defaults, on the vectors of the same messages:
on all of them those whose cost allows it, on a part the others. V-measure and the adjusted Rand
index are against the intents; noise counts as groups of one.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import psycopg

from benchmarks import report
from benchmarks.analytics_part import PEERS
from benchmarks.programs import Trouble
from benchmarks.report import Column, Figures
from benchmarks.servers import RESULTS, RUN, Servers, servers

STAGES = (
    Column("stage", "stage"),
    Column("first_s", "first run, s", 2),
    Column("second_s", "second run, s", 2),
    Column("what", "what"),
)
QUALITY = (
    Column("texts", "texts"),
    Column("seconds", "seconds", 1),
    Column("groups", "groups"),
    Column("noise", "noise"),
    Column("v_measure", "V-measure", 3),
    Column("rand", "adj. Rand", 3),
    Column("rss_mb", "RSS MB"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of this benchmark."""
    parser.add_argument("--messages", type=int, default=100_000, help="in the first run")
    parser.add_argument("--new", type=float, default=1.0, help="percent more in the second run")
    parser.add_argument("--processes", type=int, default=2, help="that embed at once")
    parser.add_argument(
        "--part", type=int, default=5000, help="texts for the peers whose cost grows with a square"
    )


def run(arguments: argparse.Namespace, peers: Sequence[str]) -> int:
    """Measure and print."""
    with servers(("analytics",)) as found:
        first = _run(found, arguments, arguments.messages)
        report.say(f"first run: {first['total_s']:.1f} s; {arguments.new:g} % new messages")
        second = _run(
            found, arguments, arguments.messages + round(arguments.messages * arguments.new / 100)
        )
        quality: dict[str, Figures] = {}
        second["judged"] = _part(found, "judge")
        if peers:
            report.say("vectors for the peers")
            path = str(found.folder / "vectors.npz")
            quality["ironbeat, as stored"] = _part(found, "export", path)
            for name, part in (("ironbeat", "all"), ("ironbeat", "some")):
                report.say(f"{name} on {part} texts")
                title = f"{name}, {'all texts' if part == 'all' else 'a part'}"
                quality[title] = _part(found, "group", path, _limit(arguments, part), name)
            for name in peers:
                for part in ("all", "some"):
                    if part == "all" and not PEERS[name].scales:
                        continue
                    report.say(f"{name} on {part} texts")
                    title = f"{name}, {'all texts' if part == 'all' else 'a part'}"
                    quality[title] = _part(found, "group", path, _limit(arguments, part), name)
    _show(arguments, first, second, quality)
    return 0


def _limit(arguments: argparse.Namespace, part: str) -> str:
    return "0" if part == "all" else str(arguments.part)


def _run(found: Servers, arguments: argparse.Namespace, messages: int) -> dict[str, Any]:
    """Load messages up to a number, embed and classify what is new; the cost of each stage."""
    database = _database(found)
    loading = _part(found, "load", str(messages))
    parts = [_start(found, "embed") for _ in range(arguments.processes)]
    embedding = [_ended(part) for part in parts]
    index = _part(found, "index")
    classifying = _part(found, "classify")
    with psycopg.connect(database) as connection:
        row = connection.execute(
            "SELECT pg_relation_size(c.oid) / 1e6 FROM pg_class AS c"
            " WHERE c.relname LIKE 'chat_message_embeddings_1024_m%hnsw'"
        ).fetchone()
    stages = {
        "embed": max(each["embedding"] for each in embedding),
        "index": index["seconds"],
        **classifying["seconds"],
    }
    return {
        "messages": loading["messages"],
        "embedded": sum(each["embedded"] for each in embedding),
        "computed": sum(each["computed"] for each in embedding),
        "stages": stages,
        "total_s": sum(stages.values()),
        "loading_s": max(each["loading"] for each in embedding),
        "embed_cpu_s": sum(each["cpu_s"] for each in embedding),
        "classify_cpu_s": classifying["cpu"],
        "rss_mb": max(each["rss_mb"] for each in [*embedding, index, classifying]),
        "index_mb": float(row[0]) if row else 0.0,
        "texts": classifying["texts"],
        "groups": classifying["groups"],
        "noise": classifying["noise"],
        "from_scratch": classifying["from_scratch"],
    }


def _database(found: Servers) -> str:
    """The one database of this benchmark, made when it is first asked for."""
    marker = found.folder / "database"
    if not marker.exists():
        marker.write_text(found.new_database())
    return marker.read_text()


def _start(found: Servers, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        "IRONBEAT_DATABASE_URL": _database(found),
        "IRONBEAT_BROKER_URL": found.redis_url(RUN),
        "IRONBEAT_RESULT_BACKEND": found.redis_url(RESULTS),
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "BENCH_NOW": os.environ.setdefault("BENCH_NOW", datetime.now(UTC).isoformat()),
    }
    return subprocess.Popen(
        [sys.executable, "-m", "benchmarks.analytics_part", *arguments],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: subprocess.Popen[str]) -> dict[str, Any]:
    output, errors = process.communicate()
    if process.returncode:
        raise Trouble(f"a part failed:\n{errors[-3000:]}")
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found


def _part(found: Servers, *arguments: str) -> dict[str, Any]:
    return _ended(_start(found, *arguments))


def _show(
    arguments: argparse.Namespace,
    first: dict[str, Any],
    second: dict[str, Any],
    quality: dict[str, Figures],
) -> None:
    if arguments.json:
        json.dump({"first": first, "second": second, "quality": quality}, sys.stdout)
        print()
        return
    what = {
        "embed": f"{arguments.processes} processes: claim, prepare, encode, COPY",
        "index": "HNSW, one vector a text; the second run grows it while storing",
        "read": "texts, and their vectors by binary COPY",
        "cluster": "centring, PCA, k-means, average linkage; second run: assigning",
        "match": "which group was which",
        "label": "representatives and keywords",
        "store": "groups and places",
        "count": "messages a group and day",
        "rank": "ranking and payload",
    }
    names = list(dict.fromkeys([*first["stages"], *second["stages"]]))
    report.show(
        f"{first['messages']:,} messages, then {second['messages'] - first['messages']:,} more",
        {
            name: {
                "stage": name,
                "first_s": first["stages"].get(name),
                "second_s": second["stages"].get(name),
                "what": what.get(name, ""),
            }
            for name in names
        }
        | {
            "all": {
                "stage": "all",
                "first_s": first["total_s"],
                "second_s": second["total_s"],
                "what": f"the second is {100 * second['total_s'] / first['total_s']:.1f} % "
                "of the first",
            }
        },
        STAGES[1:],
        as_json=False,
        notes=[
            f"first run: {first['embedded']:,} messages, {first['computed']:,} different texts "
            f"through the model ({first['computed'] / first['stages']['embed']:.0f}/s); "
            f"{first['groups']:,} groups, {first['noise']:,} noise; largest process "
            f"{first['rss_mb']:.0f} MB; index {first['index_mb']:.0f} MB",
            f"connecting and loading the model, once a process, not counted: "
            f"{first['loading_s']:.1f} s; CPU of the first run: embedding "
            f"{first['embed_cpu_s']:.0f} s, classifying {first['classify_cpu_s']:.0f} s; of the "
            f"second: {second['embed_cpu_s']:.1f} s with loading, "
            f"{second['classify_cpu_s']:.1f} s",
            f"second run: {second['embedded']:,} messages, {second['computed']:,} computed; "
            f"from scratch: {second['from_scratch']}; largest process {second['rss_mb']:.0f} MB",
            *(
                f"against the intents, {when}: V-measure {judged['v_measure']:.3f}, adjusted Rand "
                f"{judged['rand']:.3f}, {judged['groups']:,} groups"
                for when, judged in (
                    ("after the second run", second["judged"]["grown"]),
                    ("all texts grouped anew after it", second["judged"]["anew"]),
                )
            ),
        ],
    )
    if quality:
        report.show("Against the intents", quality, QUALITY, as_json=False)
