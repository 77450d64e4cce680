"""What is done beside something else, in a world that has one thread only."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import ParamSpec, TypeVar

from tests.fakes.trouble import WorkerDied

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


class AtOnce(Executor):
    """Does it before anything else goes on; if the worker dies of it, nothing else does."""

    def submit(
        self, fn: Callable[Parameters, Result], /, *args: Parameters.args, **kwargs: Parameters.kwargs
    ) -> Future[Result]:
        done: Future[Result] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except WorkerDied:
            raise
        except Exception as error:  # noqa: BLE001 - whoever asks for the result is to have it
            done.set_exception(error)
        return done
