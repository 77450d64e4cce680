"""An object store in memory, with the same names, URLs and limits in time as the real ones."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from tests.fakes.trouble import Trouble
from workers.domain.errors import Refused
from workers.domain.park import ObjectMethod


class MemoryObjects:
    """`ports.ObjectStore`, and what stands behind its URLs."""

    def __init__(self, trouble: Trouble) -> None:
        self._trouble = trouble
        self.contents: dict[str, bytes] = {}
        self._allowed: dict[str, tuple[ObjectMethod, str, datetime]] = {}

    def url(self, method: ObjectMethod, name: str, limit: timedelta) -> str:
        url = f"memory:{len(self._allowed)}"
        self._allowed[url] = (method, name, self._trouble.clock.now() + limit)
        return url

    def read(self, name: str) -> bytes | None:
        with self._trouble.befalls("objects", "read", name):
            return self.contents.get(name)

    def write(self, name: str, content: bytes) -> None:
        with self._trouble.befalls("objects", "write", name):
            self.contents[name] = content

    def listed(self, prefix: str) -> Mapping[str, int]:
        with self._trouble.befalls("objects", "listed", prefix):
            return {name: len(content) for name, content in self.contents.items() if name.startswith(prefix)}

    def delete(self, names: Iterable[str]) -> None:
        for name in names:
            with self._trouble.befalls("objects", "delete", name):
                self.contents.pop(name, None)

    # ------------------------------------------------------------ behind the URLs

    def put(self, url: str, content: bytes) -> None:
        self.contents[self._admitted(ObjectMethod.PUT, url)] = content

    def get(self, url: str) -> bytes:
        name = self._admitted(ObjectMethod.GET, url)
        if name not in self.contents:
            raise Refused(f"there is no {name}")
        return self.contents[name]

    def _admitted(self, method: ObjectMethod, url: str) -> str:
        allowed, name, until = self._allowed[url]
        if allowed is not method or until < self._trouble.clock.now():
            raise Refused(f"{url} is not good for this")
        return name
