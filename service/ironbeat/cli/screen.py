"""What the live screen shows and what its keys do. Pure: a state and a look make a view, and a key
pressed on a view makes the next state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from ironbeat.cli import keys
from ironbeat.cli.looks import Kind, Look, Question, Target

if TYPE_CHECKING:
    from ironbeat.watch import Process, Status

# A title and the names of its columns.
PANE_HEAD = 2
# The first line and the last one of the screen.
FRAME = 2


class Section(StrEnum):
    """A list on the screen."""

    QUEUES = "Queues"
    PROCESSES = "Processes"
    RUNS = "Runs"
    SCHEDULES = "Schedules"
    RUNNING = "Running"
    WAITING = "Waiting"
    LATEST = "Latest runs"


OVERVIEW = (Section.QUEUES, Section.PROCESSES, Section.RUNS, Section.SCHEDULES)
SECTIONS: Mapping[Kind | None, tuple[Section, ...]] = {
    None: OVERVIEW,
    Kind.QUEUE: (Section.RUNNING, Section.WAITING),
    Kind.PROCESS: (Section.RUNNING, Section.LATEST),
    Kind.SCHEDULE: (Section.LATEST,),
    Kind.RUN: (),
}


@dataclass(frozen=True, slots=True)
class Row:
    """One line of a list: what it opens, what it shows, and the names a filter looks for."""

    target: Target
    item: Any
    names: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Order:
    """The column a list is sorted by, as a position in ``COLUMNS``; 0: as it was read."""

    column: int = 0
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Mark:
    """The selected row: by key, as rows move; by position, where the row has gone.

    Without a key it stays at its position: on the newest run, whichever that is.
    """

    key: str | None = None
    index: int = 0


@dataclass(frozen=True, slots=True)
class Place:
    """One screen: the overview or an opened target, and where its operator is on it."""

    target: Target | None = None
    section: int = 0
    marks: Mapping[Section, Mark] = field(default_factory=dict)
    top: int = 0
    filter: str = ""

    @property
    def question(self) -> Question:
        """What this screen needs to know."""
        return Question(self.target, words(self.filter))


@dataclass(frozen=True, slots=True)
class State:
    """All that keys have done. ``typing``: the filter is being typed, and this is the former."""

    places: tuple[Place, ...] = (Place(),)
    orders: Mapping[Section, Order] = field(default_factory=dict)
    typing: str | None = None
    paused: bool = False
    help: bool = False
    ended: bool = False

    @property
    def place(self) -> Place:
        """The screen that is shown."""
        return self.places[-1]


@dataclass(frozen=True, slots=True)
class Pane:
    """A list as it is shown: ``shown`` of its ``rows`` from ``first`` on; ``total`` unfiltered."""

    section: Section
    rows: tuple[Row, ...]
    total: int
    first: int
    shown: int
    selected: int
    focused: bool
    order: Order

    @property
    def visible(self) -> tuple[Row, ...]:
        """The rows that have a line."""
        return self.rows[self.first : self.first + self.shown]


@dataclass(frozen=True, slots=True)
class View:
    """What fits on the screen: lines of text from ``top`` on, then the lists."""

    panes: tuple[Pane, ...]
    focus: int
    text_lines: int
    text_room: int
    top: int

    @property
    def pane(self) -> Pane | None:
        """The list that keys act on."""
        return self.panes[self.focus] if self.panes else None


# -- what there is ---------------------------------------------------------------------------------


def words(text: str) -> tuple[str, ...]:
    """What a filter looks for: each word by itself, in any order."""
    return tuple(text.lower().split())


def matches(row: Row, wanted: Sequence[str]) -> bool:
    """Whether every wanted word is in one of the row's names."""
    names = [name.lower() for name in row.names if name]
    return all(any(word in name for name in names) for word in wanted)


def processes(seen: Status) -> tuple[Process, ...]:
    """Every process with a lease, in the order of the screen."""
    return (*seen.workers, *seen.rq_workers, *seen.beats, *seen.schedulers, *seen.processes)


def process_key(process: Process) -> str:
    """A process' kind and name: the same after its restart, as its lease's id is not."""
    return f"{process.kind} {process.name}"


def process_of(seen: Status, key: str) -> Process | None:
    """The process of that kind and name, the living before one that has gone."""
    found = [each for each in processes(seen) if process_key(each) == key]
    return next((each for each in found if each.alive), found[0] if found else None)


def _queue_rows(look: Look) -> list[Row]:
    return [Row(Target(Kind.QUEUE, queue.name), queue, (queue.name,)) for queue in look.seen.queues]


def _process_rows(look: Look) -> list[Row]:
    found = []
    for process in processes(look.seen):
        names: list[str | None] = [process.name, process.kind]
        names += getattr(process, "queues", ())
        names += [run.task for run in getattr(process, "running", ())]
        found.append(Row(Target(Kind.PROCESS, process_key(process)), process, tuple(names)))
    return found


def _schedule_rows(look: Look) -> list[Row]:
    return [
        Row(
            Target(Kind.SCHEDULE, each.name),
            each,
            (each.name, each.task, each.queue, each.last_state),
        )
        for each in look.seen.schedules
    ]


def run_rows(found: Iterable[Any]) -> list[Row]:
    """A row for each run."""
    return [
        Row(
            Target(Kind.RUN, run.id),
            run,
            (run.id, run.task, run.queue, run.worker, run.schedule_name, run.state),
        )
        for run in found
    ]


def _waiting_rows(found: Iterable[Any]) -> list[Row]:
    return [
        Row(Target(Kind.RUN, each.id), each, (each.id, each.task, each.schedule, each.state))
        for each in found
    ]


def rows(section: Section, place: Place, look: Look) -> list[Row]:
    """Every row of a list, in the order in which it was read."""
    if section is Section.QUEUES:
        return _queue_rows(look)
    if section is Section.PROCESSES:
        return _process_rows(look)
    if section is Section.SCHEDULES:
        return _schedule_rows(look)
    if section is Section.RUNS:
        return run_rows(look.runs)
    detail = look.detail
    if detail is None or detail.target != place.target:
        return []
    if section is Section.WAITING:
        return _waiting_rows(detail.waiting)
    return run_rows(detail.running if section is Section.RUNNING else detail.runs)


# -- the order of rows -----------------------------------------------------------------------------

Value = Callable[[Any, datetime], Any]


def took(run: Any, now: datetime) -> float | None:
    """How long a run took, or has been running for."""
    if run.started_at is None:
        return None
    return float(((run.ended_at or now) - run.started_at).total_seconds())


_TASK: tuple[str, Value, bool] = ("task", lambda run, _: run.task, False)
_TOOK: tuple[str, Value, bool] = ("took", took, True)
_STATE: tuple[str, Value, bool] = ("state", lambda run, _: run.state, False)
_WORKER: tuple[str, Value, bool] = ("worker", lambda run, _: run.worker, False)
_RUNS: tuple[tuple[str, Value, bool], ...] = (_TOOK, _STATE, _TASK, _WORKER)

# The name of each column one can sort by, its value, and whether the largest comes first.
COLUMNS: Mapping[Section, tuple[tuple[str, Value, bool], ...]] = {
    Section.QUEUES: (
        ("waiting", lambda queue, _: queue.length, True),
        ("oldest", lambda queue, _: queue.oldest_age_seconds, True),
        ("running", lambda queue, _: queue.live.get("running", 0), True),
        ("name", lambda queue, _: queue.name, False),
    ),
    Section.PROCESSES: (
        ("memory", lambda process, _: process.rss_mb, True),
        ("CPU", lambda process, _: process.cpu_pct, True),
        ("consumed", lambda process, _: getattr(process, "consumed", None), True),
        ("name", lambda process, _: process.name, False),
    ),
    Section.RUNS: _RUNS,
    Section.SCHEDULES: (
        ("next", lambda each, _: each.next_at, False),
        ("last", lambda each, _: each.last_started_at or each.last_scheduled_for, True),
        ("took", lambda each, _: each.last_seconds, True),
        ("name", lambda each, _: each.name, False),
    ),
    Section.RUNNING: (_TOOK, _TASK, _WORKER),
    Section.WAITING: (("age", lambda each, _: each.age_seconds, True), _TASK, _STATE),
    Section.LATEST: _RUNS,
}


def order_name(section: Section, order: Order) -> str:
    """The column a list is sorted by, for its title; empty: as it was read."""
    return COLUMNS[section][order.column - 1][0] if order.column else ""


def ordered(section: Section, found: Sequence[Row], order: Order, now: datetime) -> list[Row]:
    """``found`` in an order; rows without a value come last either way."""
    if not order.column:
        return list(reversed(found)) if order.reverse else list(found)
    _, value, largest_first = COLUMNS[section][order.column - 1]
    valued = [(value(row.item, now), row) for row in found]
    known = sorted(
        (pair for pair in valued if pair[0] is not None),
        key=lambda pair: pair[0],
        reverse=largest_first != order.reverse,
    )
    return [row for _, row in known] + [row for known_value, row in valued if known_value is None]


# -- state and look make a view --------------------------------------------------------------------


def shares(room: int, wanted: Sequence[int], focus: int) -> list[int]:
    """How many rows of each list fit into ``room`` lines, each with its head; -1: not even that.

    Line by line goes to the list that has fewest; the focused one gets two for one of another's.
    """
    count = len(wanted)
    if room < count * (PANE_HEAD + 1):
        alone = max(0, room - PANE_HEAD)
        return [min(alone, n) if i == focus else -1 for i, n in enumerate(wanted)]
    given = [0] * count
    # An empty list has a title and no columns to name.
    heads = sum(PANE_HEAD if n else 1 for n in wanted)
    for _ in range(room - heads):
        hungry = [i for i in range(count) if given[i] < wanted[i]]
        if not hungry:
            break
        given[min(hungry, key=lambda i: (given[i] / (1 + (i == focus)), i != focus))] += 1
    return given


def position(mark: Mark, found: Sequence[Row]) -> int:
    """Where the selected row is among ``found``; 0 where there is none."""
    if mark.index < len(found) and found[mark.index].target.key == mark.key:
        return mark.index
    if mark.key is not None:
        for index, row in enumerate(found):
            if row.target.key == mark.key:
                return index
    return max(0, min(mark.index, len(found) - 1))


def view_of(state: State, look: Look | None, height: int, text_lines: int = 0) -> View:
    """What a screen of ``height`` lines shows, below ``text_lines`` lines of text."""
    place = state.place
    room = max(0, height - FRAME)
    sections = SECTIONS[place.target.kind if place.target else None]
    if look is None or not sections or state.help:
        top = 0 if state.help else place.top
        return View((), 0, text_lines, room, max(0, min(top, text_lines - room)))
    text_room = min(text_lines, room // 3)
    focus = min(place.section, len(sections) - 1)
    wanted = words(place.filter)
    lists: list[tuple[Section, list[Row], int]] = []
    for section in sections:
        found = rows(section, place, look)
        kept = [row for row in found if matches(row, wanted)]
        order = state.orders.get(section, Order())
        lists.append((section, ordered(section, kept, order, look.seen.at), len(found)))
    given = shares(room - text_room, [len(kept) for _, kept, _ in lists], focus)
    panes = []
    for index, ((section, kept, total), shown) in enumerate(zip(lists, given, strict=True)):
        selected = position(place.marks.get(section, Mark()), kept)
        # The selected row in the middle, as far as there are rows above and below it.
        first = max(0, min(selected - shown // 2, len(kept) - shown))
        order = state.orders.get(section, Order())
        panes.append(
            Pane(section, tuple(kept), total, first, shown, selected, index == focus, order)
        )
    return View(tuple(panes), focus, text_lines, text_room, 0)


# -- a key makes the next state --------------------------------------------------------------------


def press(state: State, key: str, view: View) -> State:
    """What ``key`` does on ``view``; a key that means nothing changes nothing."""
    if state.typing is not None:
        return _typed(state, key, state.typing)
    if state.help:
        leave = key in ("q", "?", "h", keys.ESCAPE, keys.ENTER, keys.BACKSPACE)
        return replace(state, help=False) if leave else state
    if key in _STEPS:
        return _moved(state, view, _STEPS[key])
    action = _ACTIONS.get(key)
    return action(state, view) if action else state


def _typed(state: State, key: str, former: str) -> State:
    text = state.place.filter
    if key == keys.ENTER:
        return replace(state, typing=None)
    if key == keys.ESCAPE:
        return replace(_filtered(state, former), typing=None)
    if key == keys.BACKSPACE:
        return _filtered(state, text[:-1])
    if key == keys.CLEAR:
        return _filtered(state, "")
    return _filtered(state, text + key) if len(key) == 1 else state


def _at(state: State, **changes: Any) -> State:
    return replace(state, places=(*state.places[:-1], replace(state.place, **changes)))


def _filtered(state: State, text: str) -> State:
    # Rows come and go with every letter: what was selected among others is no longer meant.
    return _at(state, filter=text, marks={})


def _moved(state: State, view: View, step: Callable[[int, int], int]) -> State:
    """``step`` takes a position and how many lines a page has, and gives the next position."""
    pane = view.pane
    if pane is None:
        last = max(0, view.text_lines - view.text_room)
        return _at(state, top=max(0, min(step(view.top, view.text_room), last)))
    if not pane.rows:
        return state
    index = max(0, min(step(pane.selected, max(1, pane.shown)), len(pane.rows) - 1))
    mark = Mark(pane.rows[index].target.key, index) if index else Mark()
    return _at(state, marks={**state.place.marks, pane.section: mark})


_FAR = 1 << 30
_STEPS: Mapping[str, Callable[[int, int], int]] = {
    **dict.fromkeys((keys.UP, "k"), lambda at, _: at - 1),
    **dict.fromkeys((keys.DOWN, "j"), lambda at, _: at + 1),
    keys.PAGE_UP: lambda at, page: at - page,
    keys.PAGE_DOWN: lambda at, page: at + page,
    **dict.fromkeys((keys.HOME, "g"), lambda _, __: 0),
    **dict.fromkeys((keys.END, "G"), lambda _, __: _FAR),
}


def _turned(by: int) -> Callable[[State, View], State]:
    def turn(state: State, view: View) -> State:
        return _at(state, section=(view.focus + by) % len(view.panes)) if view.panes else state

    return turn


def _opened(state: State, view: View) -> State:
    pane = view.pane
    if pane is None or not pane.rows:
        return state
    row = pane.rows[pane.selected]
    # What is open stays the selected one, wherever it has moved to on the way back.
    mark = Mark(row.target.key, pane.selected)
    kept = _at(state, marks={**state.place.marks, pane.section: mark})
    return replace(kept, places=(*kept.places, Place(row.target)))


def _back(state: State, _: View) -> State:
    if state.place.filter:
        return _filtered(state, "")
    return replace(state, places=state.places[:-1]) if len(state.places) > 1 else state


def _sorted(by: int) -> Callable[[State, View], State]:
    def sort(state: State, view: View) -> State:
        pane = view.pane
        if pane is None:
            return state
        column = (pane.order.column + by) % (len(COLUMNS[pane.section]) + 1)
        return replace(state, orders={**state.orders, pane.section: Order(column)})

    return sort


def _reversed(state: State, view: View) -> State:
    pane = view.pane
    if pane is None:
        return state
    order = replace(pane.order, reverse=not pane.order.reverse)
    return replace(state, orders={**state.orders, pane.section: order})


def _typing(state: State, view: View) -> State:
    return replace(state, typing=state.place.filter) if view.panes else state


_ACTIONS: Mapping[str, Callable[[State, View], State]] = {
    **dict.fromkeys((keys.TAB, keys.RIGHT), _turned(1)),
    **dict.fromkeys((keys.BACK_TAB, keys.LEFT), _turned(-1)),
    keys.ENTER: _opened,
    **dict.fromkeys((keys.ESCAPE, keys.BACKSPACE, "b"), _back),
    "s": _sorted(1),
    "S": _sorted(-1),
    "r": _reversed,
    "/": _typing,
    **dict.fromkeys(("p", " "), lambda state, _: replace(state, paused=not state.paused)),
    **dict.fromkeys(("?", "h"), lambda state, _: replace(state, help=True)),
    "q": lambda state, _: replace(state, ended=True),
}

# What `?` shows.
HELP: tuple[tuple[str, str], ...] = (
    ("↑ ↓  j k", "the row above, below; in a text, a line up, down"),
    ("PgUp PgDn", "a page up, down"),
    ("Home End  g G", "the first, the last"),
    ("Tab  ← →", "the next, the previous list"),
    ("Enter", "open the selected queue, process, run or schedule"),
    ("Esc  Backspace  b", "clear the filter; else back"),
    ("s  S", "sort the list by its next, its previous column"),
    ("r", "reverse the order"),
    (
        "/",
        "filter: every word must be in a name: task, queue, worker, schedule, state or id;"
        " Enter keeps it, Esc goes back to the former one, Ctrl-U empties it",
    ),
    ("p  Space", "pause, and go on"),
    ("?  h", "this help"),
    ("q  Ctrl-C", "end"),
)


def started(sort: str, only: str | None) -> State:
    """The state that the command's options ask for. ``sort``: a column of the queues, or none."""
    names = [name for name, _, _ in COLUMNS[Section.QUEUES]]
    orders = {Section.QUEUES: Order(names.index(sort) + 1)} if sort in names else {}
    return State((Place(filter=only or ""),), orders)
