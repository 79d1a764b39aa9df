"""The bank's index of a feature cache: which arrays lie in a folder, how large they are, when each was last used.

The folder is the truth: a file that somebody deleted is forgotten here, and one that another process wrote is found
by its date. So the bank and the folder may each be lost without harm to the other.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from .database import Database
from .documents import column

ROWS_AT_ONCE = 500


class FeatureIndex:
    """What `io.cache.Cache` asks of an index, kept in the bank."""

    def __init__(self, database: Database, folder: str) -> None:
        self._database, self._folder = database, column(os.path.realpath(folder))

    def record(self, entries: Mapping[str, tuple[int, float]]) -> None:
        """Notes (bytes, last used) of arrays by key; of two dates for one array the later stays."""
        from .tables import cached

        if not entries:
            return
        with self._database.writing() as connection:
            known = self._known(connection)
            new = {key: (size, max(used, known.get(key, (0, used))[1])) for key, (size, used) in entries.items()}
            rows = [{"folder": self._folder, "key": k, "bytes": size, "used": used} for k, (size, used) in new.items()]
            self._database.insert_or_replace(connection, cached, rows)

    def entries(self) -> dict[str, tuple[int, float]]:
        """(bytes, last used) of each array, by key."""
        with self._database.reading() as connection:
            return self._known(connection)

    def forget(self, keys: Sequence[str]) -> None:
        """Drops arrays that are gone."""
        from sqlalchemy import delete

        from .tables import cached

        if not keys:
            return
        with self._database.writing() as connection:
            for start in range(0, len(keys), ROWS_AT_ONCE):
                some = list(keys[start : start + ROWS_AT_ONCE])
                here = (cached.c.folder == self._folder) & cached.c.key.in_(some)
                connection.execute(delete(cached).where(here))

    def _known(self, connection: object) -> dict[str, tuple[int, float]]:
        from sqlalchemy import Connection, select

        from .tables import cached

        assert isinstance(connection, Connection)
        query = select(cached.c.key, cached.c.bytes, cached.c.used).where(cached.c.folder == self._folder)
        return {key: (int(size), float(used)) for key, size, used in connection.execute(query)}
