"""How well the sounds of a recording are those that were wanted, and where each of them is.

All functions are pure: they take what the recogniser found (:class:`Evidence`: for each frame the
probability of each sound, and of none) and the wanted sounds.

:func:`heard_as` scores each wanted sound by *goodness of pronunciation* without a segmentation
(after Cao, Fan, Svendsen and Salvi, "A framework for phoneme-level pronunciation assessment using
CTC", Interspeech 2024): the probability that exactly this sound stands between its neighbours,
against all other sounds and its absence, summed over every way to place them in time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ironbeat.workloads.speech import phones

Floats = NDArray[np.float64]

_NEVER = -1e9


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a recogniser found: ``log_probs`` by frame, for each of :data:`phones.NAMES` and, last,
    for none of them. A frame lasts ``frame_seconds``; the first begins at ``start`` seconds.
    """

    log_probs: Floats
    frame_seconds: float
    start: float = 0.0

    @property
    def frames(self) -> int:
        """How many frames there are."""
        return len(self.log_probs)


@dataclass(frozen=True, slots=True)
class Heard:
    """What stands in the place of one wanted sound.

    ``right`` is the expected likeness to the wanted sound, 0 to 1; ``sound`` what was most probably
    said (``None``: nothing), with its ``probability``.
    """

    right: float
    sound: str | None
    probability: float


@dataclass(frozen=True, slots=True)
class Span:
    """A stretch of time, in seconds from the recording's beginning."""

    start: float
    end: float


def decode(evidence: Evidence) -> list[str]:
    """The sounds of the most probable path, whatever was wanted."""
    best = evidence.log_probs.argmax(axis=1)
    none = evidence.log_probs.shape[1] - 1
    kept = best[np.insert(best[1:] != best[:-1], 0, True)] if len(best) else best
    return [phones.NAMES[index] for index in kept if index != none]


def heard_as(evidence: Evidence, wanted: Sequence[str]) -> list[Heard]:
    """For each wanted sound, what was said in its place, given the sounds around it."""
    labels = np.array([phones.INDEX[sound] for sound in wanted])
    length, sounds = len(labels), len(phones.NAMES)
    if not length or evidence.frames < 1:
        return [Heard(0.0, None, 0.0) for _ in wanted]
    lp = evidence.log_probs
    before_blank, before_label, before = _forward(lp, labels)
    after_blank, after_label = _backward(lp, labels)
    total = np.full((length, sounds), _NEVER)
    running = np.full((length, sounds), _NEVER)
    # A sound that repeats its neighbour needs a frame of silence between the two.
    same_before = np.zeros((length, sounds), bool)
    same_before[np.arange(1, length), labels[:-1]] = True
    same_after = np.zeros((length, sounds), bool)
    same_after[np.arange(length - 1), labels[1:]] = True
    for t in range(evidence.frames):
        enter = np.where(same_before, before_blank[t][:, None], before[t][:, None])
        running = np.logaddexp(running, enter) + lp[t, :sounds]
        leave_label = np.where(same_after, _NEVER, after_label[t + 1][:, None])
        total = np.logaddexp(
            total, running + np.logaddexp(after_blank[t + 1][:, None], leave_label)
        )
    # The sounds before it, and those after it, and nothing between.
    absent = _absent(before_blank, before_label, after_blank, after_label, labels)
    every = np.concatenate([total, absent[:, None]], axis=1)
    every = np.exp(every - every.max(axis=1, keepdims=True))
    every /= every.sum(axis=1, keepdims=True)
    likeness = phones.likeness_matrix()[labels]
    right = (every[:, :sounds] * likeness).sum(axis=1)
    found = every.argmax(axis=1)
    return [
        Heard(float(r), phones.NAMES[k] if k < sounds else None, float(p[k]))
        for r, k, p in zip(right, found, every, strict=True)
    ]


def _forward(lp: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats, Floats]:
    """For each frame t and place i: the log probability that frames before t are exactly the
    sounds before i, ending in silence (or not begun), ending in the last of them, or either.
    """
    frames, length = len(lp), len(labels)
    blank = np.full((frames + 1, length), _NEVER)
    label = np.full((frames + 1, length), _NEVER)
    blank[0, 0] = 0.0
    repeated = np.zeros(length, bool)
    repeated[2:] = labels[1:-1] == labels[:-2]
    for t in range(frames):
        either = np.logaddexp(blank[t], label[t])
        blank[t + 1] = either + lp[t, -1]
        enter = np.where(repeated[1:], blank[t, :-1], either[:-1])
        label[t + 1, 1:] = np.logaddexp(label[t, 1:], enter) + lp[t, labels[:-1]]
    return blank, label, np.logaddexp(blank, label)


def _backward(lp: Floats, labels: NDArray[np.int64]) -> tuple[Floats, Floats]:
    """For each frame t and place i: the log probability that the frames from t on are exactly the
    sounds after i, beginning with silence (or nothing), or with the first of them.
    """
    frames, length = len(lp), len(labels)
    blank = np.full((frames + 1, length), _NEVER)
    label = np.full((frames + 1, length), _NEVER)
    blank[frames, -1] = 0.0
    repeated = np.zeros(length, bool)
    repeated[:-2] = labels[1:-1] == labels[2:]
    for t in range(frames - 1, -1, -1):
        either = np.logaddexp(blank[t + 1], label[t + 1])
        blank[t] = either + lp[t, -1]
        enter = np.where(repeated[:-1], blank[t + 1, 1:], either[1:])
        label[t, :-1] = np.logaddexp(label[t + 1, :-1], enter) + lp[t, labels[1:]]
    return blank, label


def _absent(
    before_blank: Floats,
    before_label: Floats,
    after_blank: Floats,
    after_label: Floats,
    labels: NDArray[np.int64],
) -> Floats:
    length = len(labels)
    # Each split of the frames is counted once: by the frame in which the sounds after i begin.
    joined = before_blank + after_label
    clash = np.zeros(length, bool)
    clash[1:-1] = labels[:-2] == labels[2:]
    joined = np.logaddexp(joined, np.where(clash, _NEVER, before_label + after_label))
    absent: Floats = np.logaddexp.reduce(joined, axis=0)
    # After the last sound nothing begins: what is before it must reach the end.
    absent[-1] = np.logaddexp(before_blank[-1, -1], before_label[-1, -1])
    return absent


def spans(evidence: Evidence, wanted: Sequence[str]) -> list[Span]:
    """Where each wanted sound is, by the most probable way to place all of them in order.

    A recogniser of this kind marks a sound's kernel; the silence between two kernels is shared
    between the two sounds, but no sound is made longer than 0.2 s on a side.
    """
    labels = [phones.INDEX[sound] for sound in wanted]
    if not labels or evidence.frames < len(labels):
        return [Span(evidence.start, evidence.start) for _ in wanted]
    path = _best_path(evidence.log_probs, labels)
    kernels = [np.flatnonzero(path == place) for place in range(len(labels))]
    step, most = evidence.frame_seconds, 0.2
    firsts = [float(kernel[0]) * step for kernel in kernels]
    lasts = [float(kernel[-1] + 1) * step for kernel in kernels]
    found = []
    for place, (first, last) in enumerate(zip(firsts, lasts, strict=True)):
        start = (lasts[place - 1] + first) / 2 if place else first - most / 4
        end = (last + firsts[place + 1]) / 2 if place + 1 < len(labels) else last + most / 2
        found.append(
            Span(
                max(0.0, max(start, first - most) + evidence.start),
                max(0.0, min(end, last + most) + evidence.start),
            )
        )
    return found


def _best_path(lp: Floats, labels: Sequence[int]) -> NDArray[np.int64]:
    """The place of the wanted sound that each frame belongs to; -1 for silence between them."""
    none = lp.shape[1] - 1
    states = [none]
    for label in labels:
        states += [label, none]
    emitted = lp[:, states]
    count = len(states)
    skips = np.zeros(count, bool)
    skips[3::2] = [labels[place] != labels[place - 1] for place in range(1, len(labels))]
    score = np.full(count, _NEVER)
    score[:2] = emitted[0, :2]
    back = np.zeros((len(lp), count), np.int8)
    for t in range(1, len(lp)):
        stay = score
        step = np.concatenate([[_NEVER], score[:-1]])
        jump = np.where(skips, np.concatenate([[_NEVER, _NEVER], score[:-2]]), _NEVER)
        ways = np.stack([stay, step, jump])
        back[t] = ways.argmax(axis=0)
        score = ways.max(axis=0) + emitted[t]
    state = count - 1 if score[-1] >= score[-2] else count - 2
    path = np.full(len(lp), -1, np.int64)
    for t in range(len(lp) - 1, -1, -1):
        if state % 2:
            path[t] = state // 2
        state -= int(back[t, state])
    return path


@dataclass(frozen=True, slots=True)
class Step:
    """One step of two sequences laid beside each other: a wanted and a heard sound.

    ``None`` stands where one of them has nothing.
    """

    wanted: str | None
    heard: str | None


def beside(wanted: Sequence[str], heard: Sequence[str]) -> tuple[float, list[Step]]:
    """Lay two sequences of sounds beside each other at the least cost; returns cost and steps.

    Replacing a sound costs what it is unlike the other (0 to 1), leaving out or adding one 0.75.
    """
    alone = 0.75
    costs = np.zeros((len(wanted) + 1, len(heard) + 1))
    costs[:, 0] = np.arange(len(wanted) + 1) * alone
    costs[0, :] = np.arange(len(heard) + 1) * alone
    for i, one in enumerate(wanted, 1):
        for j, other in enumerate(heard, 1):
            costs[i, j] = min(
                costs[i - 1, j - 1] + 1.0 - phones.likeness(one, other),
                costs[i - 1, j] + alone,
                costs[i, j - 1] + alone,
            )
    steps: list[Step] = []
    i, j = len(wanted), len(heard)
    while i or j:
        if (
            i
            and j
            and np.isclose(
                costs[i, j],
                costs[i - 1, j - 1] + 1.0 - phones.likeness(wanted[i - 1], heard[j - 1]),
            )
        ):
            i, j = i - 1, j - 1
            steps.append(Step(wanted[i], heard[j]))
        elif i and np.isclose(costs[i, j], costs[i - 1, j] + alone):
            i -= 1
            steps.append(Step(wanted[i], None))
        else:
            j -= 1
            steps.append(Step(None, heard[j]))
    return float(costs[-1, -1]), steps[::-1]
