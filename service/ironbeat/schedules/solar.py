"""When the sun rises, stands highest and sets: the events that Celery's ``solar`` schedule knows.

An event belongs to a *solar day*: the half day on either side of a place's noon, numbered by the
date that a sundial's calendar has there. So there is at most one event of a kind in a solar day,
and they are in order, wherever the date line is; near the poles a day may have none.
"""

from __future__ import annotations

import math
from datetime import date
from functools import lru_cache

from astral.julian import julianday, julianday_to_juliancentury
from astral.sun import eq_of_time, sun_declination

from ironbeat.schedules.zones import DAY

EPOCH_JULIAN = julianday(date(1970, 1, 1))

# On which side of noon.
RISING, SETTING = -1, 1

_ROUNDS = 5

# Degrees from the zenith to the centre of the sun. At sunrise and sunset its upper edge touches the
# horizon: 34' of refraction and 16' of radius. Twilights are defined by the centre alone.
_EDGE = 90 + 50 / 60
EVENTS: dict[str, tuple[float, int] | None] = {
    "dawn_astronomical": (108.0, RISING),
    "dawn_nautical": (102.0, RISING),
    "dawn_civil": (96.0, RISING),
    "sunrise": (_EDGE, RISING),
    "solar_noon": None,
    "sunset": (_EDGE, SETTING),
    "dusk_civil": (96.0, SETTING),
    "dusk_nautical": (102.0, SETTING),
    "dusk_astronomical": (108.0, SETTING),
}


@lru_cache(maxsize=16_384)
def event(name: str, latitude: float, longitude: float, day: int) -> int | None:
    """When ``name`` happens on the solar ``day`` (days since 1970), in seconds since 1970.

    ``None``: not on that day. Between the polar circles, in this century, it is right to well
    under a minute.
    """
    horizon = EVENTS[name]
    noon = 720.0 - 4.0 * longitude
    minutes, happens = noon, True
    # Each round takes the sun's position at the time found so far. Early rounds may miss an event
    # that happens by a hair's breadth; only the last one decides.
    for _ in range(_ROUNDS):
        century = julianday_to_juliancentury(EPOCH_JULIAN + day + minutes / 1440)
        minutes = noon - eq_of_time(century)
        if horizon is not None:
            zenith, side = horizon
            cosine = _cosine(latitude, sun_declination(century), zenith)
            happens = -1.0 <= cosine <= 1.0
            minutes += side * 4.0 * math.degrees(math.acos(min(max(cosine, -1.0), 1.0)))
    return day * DAY + round(minutes * 60) if happens else None


def _cosine(latitude: float, declination: float, zenith: float) -> float:
    """The cosine of the hour angle at which the sun is ``zenith`` degrees from overhead.

    Above 1 the sun stays lower all day, below -1 it stays higher.
    """
    place, sun = math.radians(latitude), math.radians(declination)
    height = math.cos(math.radians(zenith)) - math.sin(place) * math.sin(sun)
    # At the very poles the sun does not rise and set by the hour: no event.
    return height / max(math.cos(place) * math.cos(sun), 1e-12)
