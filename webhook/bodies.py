"""JSON bodies of hosts, read into the messages of the domain."""

from __future__ import annotations

import math
from typing import Any, Final, TypeVar

import pydantic_core
from pydantic import TypeAdapter, ValidationError

from workers.domain.errors import BadInput

T = TypeVar("T")

# A heartbeat of a host with 500 runners has about 100 kB.
BODY_LIMIT_BYTES: Final = 256 << 10


def read(adapter: TypeAdapter[T], body: bytes) -> T:
    """Return the message; raises `BadInput` for what is not JSON, lacks a field, has one too many or a wrong value."""
    try:
        content = pydantic_core.from_json(body, allow_inf_nan=False)
        message = adapter.validate_json(body, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise BadInput(f"{'.'.join(str(part) for part in first['loc']) or 'body'}: {first['msg']}") from error
    except ValueError as error:
        raise BadInput(f"the body is not JSON: {error}") from error
    # Pydantic ignores unknown fields of a plain dataclass, so what it took is compared with what came.
    _check("body", content, adapter.dump_python(message, mode="json"))
    return message


def _check(place: str, came: Any, taken: Any) -> None:  # noqa: ANN401 - any JSON
    match came, taken:
        case dict(), dict():
            for name, value in came.items():
                if name not in taken:
                    raise BadInput(f"{place}.{name}: unknown field; remove it, or both sides run different versions")
                _check(f"{place}.{name}", value, taken[name])
        case list(), list():
            for index, (one, other) in enumerate(zip(came, taken, strict=True)):
                _check(f"{place}.{index}", one, other)
        case float(), _ if not math.isfinite(came):
            raise BadInput(f"{place}: the number is too large")
        case _:
            pass
