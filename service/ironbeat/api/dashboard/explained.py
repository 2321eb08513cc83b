"""What is wrong with a schedule, in the reader's language.

The definitions say it in English, with what was typed in between. Here stand the same sentences
with names in the place of that; the catalogues have them, too. A sentence that is not here is told
as it is.
"""

from __future__ import annotations

import re
from functools import cache

from ironbeat.api.dashboard.language import Translator

_EXAMPLES = "write e.g. '30s', '5m', '1h30m' or '1d'"

#: From the particular to the general: the first that matches is taken.
SENTENCES: tuple[str, ...] = (
    "is missing; catch-up 'window' needs how late a fire may be, e.g. '2h'",
    "is missing",
    "is {number} characters long; at most {most} are allowed",
    "{value} has blanks around it or unprintable characters",
    "a schedule is named {name} already; choose another name, or change that one with {command}",
    "no task is named {name}; {instead}",
    "no worker consumes {name}; {instead}",
    "did you mean {names}?",
    "known are {names}",
    "missing a required argument: {name}; the task is {signature}",
    "too many positional arguments; the task is {signature}",
    "got an unexpected keyword argument {name}; the task is {signature}",
    "multiple values for argument {name}; the task is {signature}",
    "{value} is not JSON ({why})",
    "{value} is not a list; write JSON such as {example}",
    "{value} is not an object; write JSON such as {example}",
    "arguments of {number} bytes are too large; at most {most} are allowed. "
    "Put the data into a table or a file and pass its key",
    "{value} is not a whole number from {low} to {high}",
    "{value} is not a whole number",
    "{end} is not after the start, {start}",
    "it does not fire between its start and its end; move one of them",
    f"interval {{value}} is negative; {_EXAMPLES}",
    f"interval {{value}} is not understood; {_EXAMPLES}",
    f"interval {{value}} is longer than a hundred years; {_EXAMPLES}",
    f"interval {{value}} is too short: the shortest is 1s; {_EXAMPLES}",
    "cron expression {value} has {number} field; write five (minute hour day-of-month month "
    "day-of-week, e.g. '30 3 * * *') or six with the second first",
    "cron expression {value} has {number} fields; write five (minute hour day-of-month month "
    "day-of-week, e.g. '30 3 * * *') or six with the second first",
    "cron expression {value} never comes true: no month it names has such a day; change the day "
    "of month, the month or the day of week",
    "day of week {value} asks for no such week; write a number from 1 to 5 after '#', or e.g. "
    "'friL' for the last Friday",
    "{field} {value} is not a number; write {range}, a list, a range or a step",
    "{field} {value} is out of range; write a number from {low} to {high}",
    "{field} {value} has no usable step; write a number above 0 after '/'",
    "{field} range {value} runs backwards; write {range}",
    "{value} is not known; write one of {names}, or five fields",
    "unknown solar event {value}; write one of {names}, then '@latitude,longitude', "
    "e.g. 'sunset@25.03,121.56'",
    "solar expression {value} names no place; write latitude and longitude in degrees after '@', "
    "e.g. {example}",
    "latitude {value} is out of range; write -90 to 90",
    "longitude {value} is out of range; write -180 to 180",
    "{event} never happens at latitude {value}; choose another event",
    "{value} is not an ISO 8601 time; write e.g. '2026-05-01T09:30' or '2026-05-01T09:30+08:00'",
    "{value} is too far away; write a year from 1900 to 9000",
    "unknown time zone {value}; write an IANA name such as 'Asia/Taipei', 'Europe/Berlin' or 'UTC'",
)
#: The fields of a cron expression, as its sentences name them.
FIELDS = ("second", "minute", "hour", "day of month", "month", "day of week")
# Somebody may type at great length; looking for sentences in that is not worth the time.
LONGEST = 2000
# What is a sentence, or a field's name, itself.
_INNER = frozenset({"instead", "field"})


def explain(problem: str, say: Translator) -> str:
    """``problem`` in the language of ``say``; as it is where no sentence fits it."""
    if say.language == "en" or len(problem) > LONGEST:
        return problem
    for sentence, pattern in _patterns():
        if found := pattern.fullmatch(problem):
            figures = {
                name: explain(part, say) if name in _INNER else part
                for name, part in found.groupdict().items()
            }
            return say(sentence, **figures)
    return say(problem) if problem in FIELDS else problem


@cache
def _patterns() -> tuple[tuple[str, re.Pattern[str]], ...]:
    return tuple((sentence, _pattern(sentence)) for sentence in SENTENCES)


def _pattern(sentence: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", sentence)
    texts = [re.escape(part) for part in parts]
    texts[1::2] = [_group(name) for name in parts[1::2]]
    return re.compile("".join(texts), re.DOTALL)


def _group(name: str) -> str:
    # A field's name holds blanks; what was typed may hold anything.
    inside = "|".join(map(re.escape, sorted(FIELDS, key=len, reverse=True)))
    return f"(?P<{name}>{inside if name == 'field' else '.+?'})"
