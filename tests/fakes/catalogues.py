"""What clouds have told, in memory."""

from __future__ import annotations

from collections.abc import Mapping

from workers.domain.offer import Catalogue


class MemoryCatalogues:
    """selling.Catalogues."""

    def __init__(self) -> None:
        self._kept: dict[str, Catalogue] = {}

    def all(self) -> Mapping[str, Catalogue]:
        return dict(self._kept)

    def put(self, catalogue: Catalogue) -> None:
        self._kept[catalogue.cloud] = catalogue
