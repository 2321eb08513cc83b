"""The kinds of input that handlers take, checked strictly."""

from __future__ import annotations

import math
from datetime import datetime
from typing import Annotated, Any

from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, JsonValue

DEEPEST_JSON = 50

#: ISO 8601 with an offset (or Z): a local time would mean another instant at each place.
Instant = Annotated[datetime, AwareDatetime]


def _storable(value: Any, depth: int = 0) -> Any:
    if depth > DEEPEST_JSON:
        raise ValueError(f"is nested more than {DEEPEST_JSON} levels deep")
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("holds half of a surrogate pair, which is no text") from None
        if "\x00" in value:
            raise ValueError("holds a NUL character, which PostgreSQL cannot store")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("holds NaN or Infinity, which JSON does not have")
    elif isinstance(value, list):
        for item in value:
            _storable(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            _storable(key, depth + 1)
            _storable(item, depth + 1)
    return value


#: A JSON value that every store of the suite can hold.
Json = Annotated[JsonValue, AfterValidator(_storable)]
#: A line of text.
Text = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(_storable)]


class Body(BaseModel):
    """A request's body: unknown fields are refused, so that a misspelt one is noticed."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
