"""How spot-runner tells what is happening: events with bound ids, as lines for people or as JSON for machines.

Foreign libraries (Celery, gunicorn, httpx) speak through `logging`; their lines leave by the same door.
"""

from __future__ import annotations

import logging
import sys
from typing import Final

import structlog
from structlog.contextvars import merge_contextvars
from structlog.processors import JSONRenderer, TimeStamper, add_log_level, format_exc_info
from structlog.typing import EventDict, Processor

# These tell of every single request or connection at INFO.
CHATTY: Final = ("alembic", "httpx", "httpcore", "kombu", "urllib3", "celery.worker.strategy", "celery.app.trace")


def start_logging(process: str, level: int = logging.INFO) -> None:
    """Send every event of this process to its standard error, with `process` bound to each."""

    def name_process(_logger: object, _method: str, event: EventDict) -> EventDict:
        return {"process": process, **event}

    first: list[Processor] = [merge_contextvars, add_log_level, TimeStamper(fmt="iso", utc=True), name_process]
    structlog.configure(
        processors=[*first, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    door = logging.StreamHandler(sys.stderr)
    door.setFormatter(structlog.stdlib.ProcessorFormatter(processors=_last(), foreign_pre_chain=first))
    root = logging.getLogger()
    root.handlers[:] = [door]
    root.setLevel(level)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)


def _last() -> list[Processor]:
    remove = structlog.stdlib.ProcessorFormatter.remove_processors_meta
    if sys.stderr.isatty():
        # The prettier tracebacks show what variables hold, and some hold secrets.
        return [remove, structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]
    return [remove, format_exc_info, JSONRenderer(default=str)]
