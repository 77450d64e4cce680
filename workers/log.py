"""A logger that costs nothing until something is said; what structlog brings along is a tenth of a short command."""

from __future__ import annotations

from typing import Any


class LateLogger:
    """Is structlog's, by the same words, from the first of them on."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - what structlog gives
        from structlog import get_logger  # noqa: PLC0415 - this is why it is late

        return getattr(get_logger(), name)
