"""The live screen's state machine: a state and a look make a view; a key on it the next state."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from ironbeat.cli import keys
from ironbeat.cli.looks import Detail, InLine, Kind, Look, Question, Target, in_line
from ironbeat.cli.screen import (
    COLUMNS,
    FRAME,
    HELP,
    PANE_HEAD,
    Section,
    State,
    press,
    shares,
    started,
    view_of,
)
from ironbeat.runs.model import Run
from ironbeat.watch import QueueStatus, Waiting, Worker

NOW = datetime(2026, 3, 10, 4, tzinfo=UTC)
HEIGHT = 60


@dataclass(frozen=True)
class Seen:
    """The part of a status that lists are made of."""

    queues: tuple[Any, ...] = ()
    workers: tuple[Any, ...] = ()
    rq_workers: tuple[Any, ...] = ()
    beats: tuple[Any, ...] = ()
    schedulers: tuple[Any, ...] = ()
    processes: tuple[Any, ...] = ()
    schedules: tuple[Any, ...] = ()
    at: datetime = NOW


def run(id: str, ago: float = 60.0, took: float | None = None, **values: Any) -> Run:
    nothing: dict[str, Any] = {field.name: None for field in fields(Run)}
    created = NOW - timedelta(seconds=ago)
    ended = created + timedelta(seconds=took) if took is not None else None
    given = {"task": "shop.open", "queue": "default", "state": "succeeded" if ended else "running"}
    times = {"created_at": created, "started_at": created, "ended_at": ended}
    return Run(**{**nothing, "id": id, **given, **times, **values})


def queue(name: str, length: int, age: float | None = None) -> QueueStatus:
    oldest = Waiting("i", "t", 0, age) if length else None
    return QueueStatus(name, length, {0: length}, oldest, {}, 1)


def worker(name: str, alive: bool = True, memory: float = 50.0, id: str = "L") -> Worker:
    return Worker(
        id=id,
        kind="worker",
        name=name,
        host="h",
        pid=1,
        alive=alive,
        started_at=NOW,
        renewed_at=NOW,
        silent_seconds=0.0,
        version=None,
        rss_mb=memory,
        cpu_pct=None,
        queues=("docks",),
        concurrency=1,
        running=(),
        tasks=(),
        consumed=3,
    )


RUNS = (
    run("c", 10.0, state="running", worker="worker-02@h", queue="docks"),
    run("b", 20.0, 8.0, state="failed", task="shop.close"),
    run("a", 30.0, 2.0, schedule_name="nightly"),
)
SEEN = Seen(
    queues=(queue("default", 2, 90.0), queue("docks", 40, 3.0), queue("empty", 0)),
    workers=(worker("worker-01@h"), worker("worker-02@h", memory=70.0)),
)
LOOK = Look(Question(), SEEN, RUNS)


def after(pressed: list[str] | str, state: State | None = None, look: Look = LOOK) -> State:
    """The state once these keys have been pressed, each on the view that the former one made."""
    state = state or State()
    for key in pressed:
        state = press(state, key, view_of(state, look, HEIGHT))
    return state


def selected(state: State, look: Look = LOOK) -> str:
    pane = view_of(state, look, HEIGHT).pane
    assert pane is not None
    return pane.rows[pane.selected].target.key


def listed(state: State, section: Section, look: Look = LOOK) -> list[str]:
    panes = {pane.section: pane for pane in view_of(state, look, HEIGHT).panes}
    return [row.target.key for row in panes[section].rows]


@pytest.mark.parametrize(
    ("pressed", "expected"),
    [
        ([], "default"),
        (["j"], "docks"),
        ([keys.DOWN, keys.DOWN, keys.DOWN], "empty"),
        ([keys.DOWN, keys.UP, keys.UP], "default"),
        (["G"], "empty"),
        (["G", "g"], "default"),
        ([keys.PAGE_DOWN, keys.PAGE_UP], "default"),
        ([keys.TAB], "worker worker-01@h"),
        ([keys.TAB, keys.TAB, "j"], "b"),
        ([keys.BACK_TAB, keys.BACK_TAB], "c"),
        ([keys.DOWN, *[keys.RIGHT] * 4], "docks"),
        ([keys.DOWN, "x", "\x7f", "é"], "docks"),
    ],
)
def test_keys_move_among_rows_and_lists(pressed, expected):
    assert selected(after(pressed)) == expected


def test_a_selected_run_stays_selected_as_newer_ones_come():
    state = after([keys.TAB, keys.TAB, "j"])
    newer = replace(LOOK, runs=(run("e", 1.0), run("d", 2.0), *RUNS))
    assert selected(state, newer) == "b"
    # On the newest one it stays on the newest one.
    assert selected(after([keys.TAB, keys.TAB]), newer) == "e"
    # One that has gone leaves its place to another.
    assert selected(state, replace(LOOK, runs=(RUNS[0], RUNS[2]))) == "a"
    assert selected(state, replace(LOOK, runs=(RUNS[0],))) == "c"


def test_two_processes_of_one_name_do_not_hold_the_selection_up():
    twice = replace(SEEN, workers=(worker("w"), worker("w", alive=False), worker("x")))
    look = replace(LOOK, seen=twice)
    assert selected(after([keys.TAB, "j", "j"], look=look), look) == "worker x"


@pytest.mark.parametrize(
    ("pressed", "expected"),
    [
        ("", ["default", "docks", "empty"]),
        ("s", ["docks", "default", "empty"]),
        ("sr", ["empty", "default", "docks"]),
        ("ss", ["default", "docks", "empty"]),
        ("ssr", ["docks", "default", "empty"]),
        ("S", ["default", "docks", "empty"]),
        ("Sr", ["empty", "docks", "default"]),
        ("r", ["empty", "docks", "default"]),
        ("rr", ["default", "docks", "empty"]),
        ("s" * (len(COLUMNS[Section.QUEUES]) + 1), ["default", "docks", "empty"]),
    ],
)
def test_a_list_is_sorted_by_one_column_after_another_and_reversed(pressed, expected):
    assert listed(after(pressed), Section.QUEUES) == expected
    # Only the list that was meant.
    assert listed(after(pressed), Section.RUNS) == ["c", "b", "a"]


def test_what_runs_still_is_sorted_by_how_long_it_has():
    state = after([keys.TAB, keys.TAB, "s"])
    assert listed(state, Section.RUNS) == ["c", "b", "a"]
    waits = replace(LOOK, runs=(run("w", started_at=None, state="pending"), *RUNS))
    for reverse, expected in (("", ["c", "b", "a", "w"]), ("r", ["a", "b", "c", "w"])):
        assert listed(after(reverse, state), Section.RUNS, waits) == expected


@pytest.mark.parametrize(
    ("text", "queues", "workers", "runs"),
    [
        ("DOCKS", ["docks"], ["worker worker-01@h", "worker worker-02@h"], ["c"]),
        ("failed", [], [], ["b"]),
        ("close", [], [], ["b"]),
        ("worker-02", [], ["worker worker-02@h"], ["c"]),
        ("nightly", [], [], ["a"]),
        ("shop default", [], [], ["b", "a"]),
        ("shop failed nothing", [], [], []),
    ],
)
def test_a_filter_is_every_word_in_some_name(text, queues, workers, runs):
    state = after(["/", *text])
    assert listed(state, Section.QUEUES) == queues
    assert listed(state, Section.PROCESSES) == workers
    assert listed(state, Section.RUNS) == runs
    assert state.place.question == Question(None, tuple(text.lower().split()))


def test_keys_are_letters_while_a_filter_is_typed():
    state = after(["/", *"qsp"])
    assert (state.ended, state.paused, state.place.filter) == (False, False, "qsp")
    assert after([keys.BACKSPACE], state).place.filter == "qs"
    assert after([keys.CLEAR], state).place.filter == ""
    assert after([keys.UP], state) == state
    kept = after([keys.ENTER], state)
    assert (kept.typing, kept.place.filter) == (None, "qsp")
    dropped = after(["/", "x", keys.ESCAPE], kept)
    assert (dropped.typing, dropped.place.filter) == (None, "qsp")
    assert after([keys.ESCAPE], kept).place.filter == ""


def detail(target: Target, **values: Any) -> Look:
    return Look(Question(target), SEEN, RUNS, Detail(target, **values))


def test_a_queue_opens_with_what_runs_and_waits_and_a_run_from_there():
    state = after(["j", keys.ENTER])
    docks = Target(Kind.QUEUE, "docks")
    assert state.place.question == Question(docks, ())
    look = detail(
        docks,
        running=(RUNS[0],),
        waiting=(InLine("m", "shop.mail", "message", None, 3.0, None, None),),
    )
    assert listed(state, Section.RUNNING, look) == ["c"]
    assert listed(state, Section.WAITING, look) == ["m"]
    opened = after([keys.TAB, keys.ENTER], state, look)
    assert opened.place.target == Target(Kind.RUN, "m")
    # Back, one by one, to what was selected there.
    back = after([keys.ESCAPE], opened, detail(opened.place.target))
    assert selected(back, look) == "m"
    overview = after(["b"], back, look)
    assert selected(overview) == "docks"
    assert after(["b"], overview) == overview


def test_a_look_at_something_else_shows_nothing_of_it():
    state = after(["j", keys.ENTER])
    other = detail(Target(Kind.QUEUE, "default"), running=RUNS)
    assert listed(state, Section.RUNNING, other) == []
    # A filter belongs to the screen it was typed on.
    filtered = after(["/", *"docks", keys.ENTER, keys.ENTER])
    assert filtered.place.question == Question(Target(Kind.QUEUE, "docks"), ())
    assert after([keys.ESCAPE], filtered, other).place.filter == "docks"


def test_a_worker_opens_with_what_it_runs():
    state = after([keys.TAB, "j", keys.ENTER])
    target = Target(Kind.PROCESS, "worker worker-02@h")
    look = detail(target, running=(RUNS[0],), runs=RUNS[1:])
    assert state.place.target == target
    assert listed(state, Section.RUNNING, look) == ["c"]
    assert listed(state, Section.LATEST, look) == ["b", "a"]


def test_a_run_is_a_text_that_scrolls_as_far_as_it_goes():
    state = after([keys.TAB, keys.TAB, keys.ENTER])
    look = detail(Target(Kind.RUN, "c"), run=RUNS[0])
    height, lines = 12, 25
    page = height - FRAME

    def top(pressed: list[str]) -> int:
        now = state
        for key in pressed:
            now = press(now, key, view_of(now, look, height, lines))
        return view_of(now, look, height, lines).top

    assert top([]) == 0
    assert top(["j", keys.DOWN, "k"]) == 1
    assert top([keys.PAGE_DOWN]) == page
    assert top([keys.PAGE_DOWN] * 5) == lines - page
    assert top(["G", keys.UP]) == lines - page - 1
    assert top(["G", "g"]) == 0
    # Nothing to list, so nothing to sort, filter or open.
    assert after([*"srS/", keys.ENTER, keys.TAB], state, look) == state


def test_pause_help_and_the_end():
    assert after("p").paused and after(" ").paused
    assert not after("pp").paused
    helped = after("?")
    assert helped.help and view_of(helped, LOOK, HEIGHT, len(HELP)).panes == ()
    assert after("jsr", helped) == helped
    for leave in ("?", "h", "q", keys.ESCAPE):
        assert after([leave], helped) == State()
    assert after("q").ended


def test_every_key_that_is_explained_does_something():
    names = {"↑": keys.UP, "↓": keys.DOWN, "←": keys.LEFT, "→": keys.RIGHT, "Tab": keys.TAB}
    names |= {"PgUp": keys.PAGE_UP, "PgDn": keys.PAGE_DOWN, "Home": keys.HOME, "End": keys.END}
    names |= {"Enter": keys.ENTER, "Esc": keys.ESCAPE, "Backspace": keys.BACKSPACE, "Space": " "}
    explained = " ".join(what for what, _ in HELP).replace("Ctrl-C", "").split()
    # In the middle of a list, below another screen, with something to clear.
    middle = after([keys.TAB, keys.TAB, "j", "/", *"shop", keys.ENTER])
    for name in explained:
        assert after([names.get(name, name)], middle) != middle, name


@pytest.mark.parametrize(
    ("room", "wanted", "focus", "expected"),
    [
        (40, [3, 2, 5, 0], 0, [3, 2, 5, 0]),
        (14, [9, 9, 9, 9], 1, [1, 3, 1, 1]),
        (22, [90, 2, 90, 9], 2, [3, 2, 6, 3]),
        (8, [9, 9, 9, 9], 3, [-1, -1, -1, 6]),
        (1, [9, 9], 0, [0, -1]),
        (4, [0, 9], 0, [0, -1]),
        (13, [9, 0, 0, 9], 0, [5, 0, 0, 2]),
    ],
)
def test_lists_share_the_lines_and_the_focused_one_gets_more(room, wanted, focus, expected):
    given = shares(room, wanted, focus)
    assert given == expected
    heads = sum(PANE_HEAD if n else 1 for n, rows in zip(wanted, given, strict=True) if rows >= 0)
    assert sum(n for n in given if n >= 0) + heads <= max(room, PANE_HEAD)


def test_a_long_list_shows_the_selected_row_in_its_middle():
    look = replace(LOOK, runs=tuple(run(f"{n:03}") for n in range(200)))
    state = after([keys.TAB, keys.TAB], look=look)
    for position in (0, 100, 199):
        state = after(["g", *"j" * position], state, look)
        pane = view_of(state, look, 24, 5).pane
        assert pane is not None
        assert pane.selected == position
        assert pane.first <= position < pane.first + pane.shown <= 200
        assert len(pane.visible) == pane.shown > 3
    assert pane.rows[pane.selected].target.key == "199"


@pytest.mark.parametrize("height", range(0, 30))
def test_a_screen_of_any_height_has_a_view(height):
    view = view_of(State(), LOOK, height, 9)
    panes = [pane for pane in view.panes if pane.shown >= 0]
    used = sum(pane.shown + (PANE_HEAD if pane.rows else 1) for pane in panes)
    assert view.text_room + used <= max(height - FRAME, PANE_HEAD)


def test_without_a_look_keys_wait_and_one_can_leave():
    state = State()
    for key in ["j", keys.TAB, keys.ENTER, "s", "r", "/"]:
        state = press(state, key, view_of(state, None, HEIGHT, 1))
    assert state.places == (State().place,)
    assert press(state, "q", view_of(state, None, HEIGHT, 1)).ended


def test_options_of_the_command_are_where_it_starts():
    state = started("oldest", "docks failed")
    assert listed(state, Section.QUEUES, LOOK) == []
    assert state.place.question.words == ("docks", "failed")
    assert listed(started("waiting", None), Section.QUEUES) == ["docks", "default", "empty"]
    assert started("", None) == State()


def test_what_waits_is_the_brokers_line_and_then_what_is_no_message_yet():
    messages = [Waiting("m", "shop.mail", 0, 5.0), Waiting("p", "shop.ship", 0, 4.0)]
    runs = [
        run("late", 1.0, state="pending", argsrepr="(1,)"),
        run("p", 4.0, state="published"),
        run("early", 9.0, state="retrying"),
    ]
    found = in_line(messages, runs, NOW)
    assert [(each.id, each.state) for each in found] == [
        ("m", "message"),
        ("p", "published"),
        ("early", "retrying"),
        ("late", "pending"),
    ]
    assert found[3].age_seconds == 1.0
    assert found[3].arguments == "(1,) {}"
