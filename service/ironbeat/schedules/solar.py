"""When the sun rises, stands highest and sets: the events that Celery's ``solar`` schedule knows.

An event belongs to a *solar day*, the time around one local noon, numbered by the UTC date on
which that noon falls at longitude 0. So there is at most one of each kind a solar day, in order,
wherever the date line is; near the poles a day may have none.
"""

from __future__ import annotations

import math
from datetime import date
from functools import lru_cache

from astral import SunDirection
from astral.julian import julianday, julianday_to_juliancentury
from astral.sun import eq_of_time, hour_angle, sun_declination

DAY = 86_400
EPOCH_DAY = date(1970, 1, 1).toordinal()
EPOCH_JULIAN = julianday(date(1970, 1, 1))

# Degrees from the zenith to the centre of the sun. At sunrise and sunset its upper edge touches the
# horizon: 34' of refraction and 16' of radius. Twilights are defined by the centre alone.
_EDGE = 90 + 50 / 60
EVENTS: dict[str, tuple[float, SunDirection] | None] = {
    "dawn_astronomical": (108.0, SunDirection.RISING),
    "dawn_nautical": (102.0, SunDirection.RISING),
    "dawn_civil": (96.0, SunDirection.RISING),
    "sunrise": (_EDGE, SunDirection.RISING),
    "solar_noon": None,
    "sunset": (_EDGE, SunDirection.SETTING),
    "dusk_civil": (96.0, SunDirection.SETTING),
    "dusk_nautical": (102.0, SunDirection.SETTING),
    "dusk_astronomical": (108.0, SunDirection.SETTING),
}


@lru_cache(maxsize=16_384)
def event(name: str, latitude: float, longitude: float, day: int) -> int | None:
    """When ``name`` happens on the solar ``day`` (days since 1970), in seconds since 1970.

    ``None``: not on that day. Between the polar circles, in this century, it is right to well
    under a minute.
    """
    horizon = EVENTS[name]
    minutes = 720.0 - 4.0 * longitude
    # Each round takes the sun's position at the time found so far.
    for _ in range(4):
        century = julianday_to_juliancentury(EPOCH_JULIAN + day + minutes / 1440)
        minutes = 720.0 - 4.0 * longitude - eq_of_time(century)
        if horizon is not None:
            zenith, direction = horizon
            try:
                angle = hour_angle(latitude, sun_declination(century), zenith, direction)
            except (ValueError, ZeroDivisionError):
                return None
            minutes -= 4.0 * math.degrees(angle)
    return day * DAY + round(minutes * 60)
