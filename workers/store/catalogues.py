"""What clouds have told of their offers: one row for each, put in the place of the former one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from sqlalchemy import select

from workers.domain.offer import Catalogue
from workers.store.connection import Database, upsert
from workers.store.rows import Codec
from workers.store.schema import catalogues

CATALOGUES: Final = Codec(Catalogue, catalogues)


class SqlCatalogues:
    """selling.Catalogues."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def all(self) -> Mapping[str, Catalogue]:
        """Return what each cloud has told, by its name."""
        with self._database.reading() as connection:
            found = connection.execute(select(catalogues)).mappings()
            return {one["cloud"]: CATALOGUES.row(one) for one in found}

    def put(self, catalogue: Catalogue) -> None:
        """Put this in the place of what was kept of the same cloud."""
        with self._database.writing() as connection:
            upsert(connection, catalogues, [CATALOGUES.columns(catalogue)])
