"""The bank's database: opened, brought to this version, and used in short transactions.

SQLite keeps a write-ahead log, so that one process writes while others read; a second writer waits its turn. Every
write begins by taking the lock, so no transaction has to be given up half-way.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.core import Problem, Refused, Unreadable

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine, Table

BANK_VERSION = 4
APPLICATION = 0x68647374  # "hdst", written into each bank's header
WAIT_SECONDS = 30.0
SCHEMA = "headstart"  # on a server, where other programs have tables too
UPGRADE = "pip install --upgrade headstart"


class Database:
    """An opened bank: `reading()` and `writing()` give a connection inside one transaction."""

    def __init__(self, engine: Engine, where: str) -> None:
        self.engine, self.where = engine, where

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """One transaction that only reads; all of it sees the same moment."""
        with self._translated(), self.engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """One transaction that writes all or nothing."""
        with self._translated(), self.engine.execution_options(writes=True).begin() as connection:
            yield connection

    def insert_new(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        """Adds rows; those whose key is known are left as they are."""
        if rows:
            connection.execute(self._insert(table).on_conflict_do_nothing(), rows)

    def insert_or_replace(self, connection: Connection, table: Table, rows: list[dict[str, Any]]) -> None:
        """Adds rows; those whose key is known get the new values."""
        if rows:
            insert = self._insert(table)
            keys = [c.name for c in table.primary_key]
            new = {c.name: insert.excluded[c.name] for c in table.columns if c.name not in keys}
            connection.execute(insert.on_conflict_do_update(index_elements=keys, set_=new), rows)

    def close(self) -> None:
        self.engine.dispose()

    def _insert(self, table: Table) -> Any:
        if self.engine.dialect.name == "sqlite":
            from sqlalchemy.dialects import sqlite

            return sqlite.insert(table)
        from sqlalchemy.dialects import postgresql

        return postgresql.insert(table)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        from sqlalchemy.exc import DBAPIError

        try:
            yield
        except DBAPIError as error:
            raise problem_of(error, self.where) from error


def open_file(path: Path) -> Database:
    """The bank in this file; made when missing, brought to this version when older.

    Errors: `Unreadable` for a file that is damaged or is no bank, `Refused` for one of a newer version.
    """
    from sqlalchemy import URL, create_engine, event

    engine = create_engine(URL.create("sqlite+pysqlite", database=str(path)), connect_args={"timeout": WAIT_SECONDS})

    @event.listens_for(engine, "connect")
    def connected(raw: Any, _: Any) -> None:
        raw.isolation_level = None  # sqlite3 opens no transaction of its own: `began` does
        cursor = raw.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {int(WAIT_SECONDS * 1000)}")
        _turn_on_log(cursor)
        cursor.execute("PRAGMA synchronous = NORMAL")
        cursor.close()

    @event.listens_for(engine, "begin")
    def began(connection: Connection) -> None:
        writes = connection.get_execution_options().get("writes")
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    database = Database(engine, f"the bank `{path}`")
    _upgraded(database)
    return database


def open_server(url: str) -> Database:
    """The bank on a PostgreSQL server, in its schema `headstart`; made or upgraded as `open_file` does."""
    try:
        import psycopg  # noqa: F401  # asked for here so that a missing extra is a sentence
    except ImportError as error:
        raise Refused(
            "a bank on PostgreSQL needs the package psycopg",
            where="the location of the bank",
            fix="pip install 'headstart[postgres]'",
        ) from error
    from sqlalchemy import create_engine, event
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        address = make_url(url)
    except (ArgumentError, ValueError) as error:
        raise Unreadable(
            "the address of the server could not be understood",
            where="the location of the bank",
            fix="write it like postgresql://user:password@host:5432/database",
        ) from error
    engine = create_engine(address, connect_args={"connect_timeout": int(WAIT_SECONDS)}, pool_pre_ping=True)

    @event.listens_for(engine, "connect")
    def connected(raw: Any, _: Any) -> None:
        with raw.cursor() as cursor:
            cursor.execute(f"SET search_path TO {SCHEMA}")
        raw.commit()

    database = Database(engine, f"the bank `{address.render_as_string(hide_password=True)}`")
    _upgraded(database)
    return database


def problem_of(error: Exception, where: str) -> Problem:
    """What a person can do about an error of the database."""
    said = str(getattr(error, "orig", error)).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "locked" in said or "busy" in said:
        what, fix = f"another process kept it for {WAIT_SECONDS:.0f} s: {said}", "wait for the other run, and try again"
    elif "full" in said:
        what, fix = f"nothing more could be written: {said}", "make room on that disk, and run again with --resume"
    elif "readonly" in said or "unable to open" in said:
        what, fix = said, "name a file in a folder that you may write to, with --bank or HEADSTART_HOME"
    elif any(word in said for word in ("not a database", "malformed", "disk I/O", "no such", "has no column")):
        what = f"the file is damaged, or is no bank: {said}"
        fix = "put a copy of it back, or move it away: a new one is then begun"
    elif any(word in said for word in ("connect", "refused", "authentication", "does not exist", "resolve")):
        what, fix = f"the server did not answer as a bank: {said}", "see that it runs, and that user and database exist"
    else:
        what, fix = said, "try again; `headstart inventory verify` looks for damage"
    return Unreadable(what, where=where, fix=fix)


def _turn_on_log(cursor: Any) -> None:
    """The write-ahead log, for good; two processes may begin a bank at once, and this one switch does not wait."""
    import sqlite3

    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            if str(cursor.execute("PRAGMA journal_mode").fetchone()[0]).lower() != "wal":
                cursor.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _upgraded(database: Database) -> None:
    with database.reading() as connection:
        found = _version(connection, database.where)
    if found == BANK_VERSION:
        return
    with database.writing() as connection:
        if connection.dialect.name != "sqlite":
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({APPLICATION})")
            connection.exec_driver_sql(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}")
        if _version(connection, database.where) < BANK_VERSION:  # another process may have been first
            _migrate(connection)
            if connection.dialect.name == "sqlite":
                connection.exec_driver_sql(f"PRAGMA application_id = {APPLICATION}")


def _version(connection: Connection, where: str) -> int:
    """0 for an empty database; raises for one that is not a bank, or is of a newer version."""
    from sqlalchemy import inspect

    tables = inspect(connection).get_table_names()
    if "headstart_version" not in tables:
        if tables:
            raise Unreadable(
                f"it holds tables of something else, such as `{min(tables)}`",
                where=where,
                fix="name another file; a new bank is then begun there",
            )
        return 0
    found = connection.exec_driver_sql("SELECT version_num FROM headstart_version").scalar()
    if found is None or not str(found).isdigit():
        raise Unreadable(
            f"its version is `{found}`, which no headstart has written",
            where=where,
            fix="put a copy of it back, or move it away: a new one is then begun",
        )
    if int(found) > BANK_VERSION:
        raise Refused(
            f"it is of version {int(found)}, and this headstart reads up to version {BANK_VERSION}",
            where=where,
            fix=UPGRADE,
        )
    return int(found)


def _migrate(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    config.attributes["connection"] = connection
    command.upgrade(config, f"{BANK_VERSION:04d}")
