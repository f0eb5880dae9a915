"""One connection to the file that holds broker and results: opening, schema, transactions, errors, forks.

Rules
    1. The file is in WAL mode: readers and one writer at a time, of any number of processes of this machine.
       WAL keeps its index in shared memory, so the file must be on a local disk, never on a network file system.
    2. `synchronous=NORMAL` (the default): a commit survives the death of every process, and is written to the disk
       at the next checkpoint; a power cut may take the last ones. `synchronous=FULL` waits for the disk each time.
    3. Writing transactions begin IMMEDIATE: whoever has begun cannot be refused halfway. Who finds another one writing
       tries again after a fraction of a millisecond: SQLite's own way of waiting sleeps for up to 100 ms at a time,
       and with six busy processes one in a thousand sends then took 60 ms and some more than a second.
    4. No connection crosses a fork, because SQLite's locks belong to a process while its memory of them would be
       copied: every idle connection is closed before `os.fork` and opened again on its next use, in both processes.
       One that could not be closed in time is left alone in the child, neither used nor closed.
    5. An error of SQLite becomes OperationalError where a later try may succeed and ImproperlyConfigured where it
       will not; both name the file and what to do. A transaction that failed has changed nothing.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, NoReturn

from celery import exceptions
from celery.brokers import url as urls

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

SCHEMA_VERSION = 2
#: Seconds to wait for another process's transaction.
BUSY_TIMEOUT = 5.0
#: Seconds between two tries to begin, at first and at most.
_PAUSES = (0.0002, 0.002)
#: Pages of the write-ahead log after which a commit moves them into the file: 16 MB.
CHECKPOINT_PAGES = 4000
_SYNCHRONOUS = ("OFF", "NORMAL", "FULL", "EXTRA")
#: First bytes of SQLite's names of results, and what to tell the user. The first match counts.
_FOR_GOOD = (
    ("SQLITE_CANTOPEN", "cannot be opened: its folder must exist and be writable for this user"),
    ("SQLITE_READONLY", "is read-only for this user: make the file and its folder writable, also for -wal and -shm"),
    ("SQLITE_PERM", "may not be used by this user: check the permissions of the file and its folder"),
    ("SQLITE_NOTADB", "is not a SQLite database: move it away, or name another file in the URL"),
    ("SQLITE_CORRUPT", "is damaged: stop all workers, save what `sqlite3 FILE .recover` finds, and move it away"),
    # Our statements never vary, so it is the tables that they do not fit.
    ("SQLITE_ERROR", "has tables of another program: name another file in the URL"),
)
_FOR_NOW = (
    ("SQLITE_BUSY", "stayed locked by another process: look for a long transaction, or raise busy_timeout"),
    ("SQLITE_LOCKED", "stayed locked by another connection: look for a long transaction, or raise busy_timeout"),
    ("SQLITE_FULL", "has no room to grow: free space on its disk; nothing of this step was written"),
    ("SQLITE_IOERR", "cannot be read or written: check its disk; nothing of this step was written"),
)

#: Every store of this process, and who may add one or begin a transaction: held while the process forks.
_stores: weakref.WeakSet[Store] = weakref.WeakSet()
_gate = threading.RLock()
#: While this process forks: None, and the stores whose locks are held.
_stopped: list[Store | None] = []
#: Connections of a parent process, kept from being closed.
_inherited: list[sqlite3.Connection] = []


def path_of(url: str) -> str:
    """The absolute path that a `sqlite:///relative.db` or `sqlite:////absolute.db` URL names.

    Raises:
        ImproperlyConfigured: the URL names no file.
    """
    name = urls.parse(url).file
    if not name or name == ":memory:":
        raise exceptions.ImproperlyConfigured(
            f"{urls.mask(url)!r} names no file: write sqlite:///relative.db or sqlite:////absolute/path.db "
            "(memory:// is the broker that lives in one process)"
        )
    return os.path.abspath(name)


class Store:
    """A connection that opens itself; used by one thread at a time.

    Args:
        url: the `sqlite://` URL.
        options: `synchronous` (OFF, NORMAL, FULL, EXTRA) and `busy_timeout` (seconds); others are ignored.
    """

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self.path = path_of(url)
        self.synchronous = str(options.get("synchronous", "NORMAL")).upper()
        if self.synchronous not in _SYNCHRONOUS:
            raise exceptions.ImproperlyConfigured(
                f"synchronous={self.synchronous!r} of {self.path}: expected one of {', '.join(_SYNCHRONOUS)}"
            )
        self.busy_timeout = float(options.get("busy_timeout", BUSY_TIMEOUT))
        self._patience = self.busy_timeout
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self._busy = threading.RLock()
        with _gate:
            _stores.add(self)

    @contextlib.contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """The connection, for single statements that only read."""
        self._wait_for_fork()
        with self._busy:
            try:
                connection = self._open()
                self._be_patient(connection, self.busy_timeout)
                yield connection
            except sqlite3.Error as exc:
                self._fail(exc)

    @contextlib.contextmanager
    def writing(self, patience: float | None = None) -> Iterator[sqlite3.Connection]:
        """The connection inside a transaction, which is committed at the end and undone by an exception.

        Args:
            patience: seconds to wait for other writers, when less than `busy_timeout`.
        """
        self._wait_for_fork()
        with self._busy:
            try:
                connection = self._open()
                self._be_patient(connection, 0.0)
                self._begin(connection, patience)
                try:
                    yield connection
                    connection.execute("COMMIT")
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
            except sqlite3.Error as exc:
                self._fail(exc)

    def close(self) -> None:
        """Close the connection; a later use opens another."""
        with self._busy:
            connection, self._connection = self._connection, None
            if connection is None:
                return
            if self._pid != os.getpid():
                _inherited.append(connection)
                return
            with contextlib.suppress(sqlite3.Error):  # e.g. no room for the last checkpoint: the log stays
                connection.close()

    def _wait_for_fork(self) -> None:
        """Let a thread that forks go first: it needs every lock, and would starve among busy threads."""
        if _stopped:
            with _gate:
                pass

    def _begin(self, connection: sqlite3.Connection, patience: float | None) -> None:
        """Begin a transaction as soon as no other process is in one (rule 3)."""
        deadline = None
        pause, longest = _PAUSES
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError as exc:
                now = time.monotonic()
                if deadline is None:
                    deadline = now + (self.busy_timeout if patience is None else min(patience, self.busy_timeout))
                if not exc.sqlite_errorname.startswith("SQLITE_BUSY") or now >= deadline:
                    raise
            else:
                return
            time.sleep(pause)
            pause = min(1.5 * pause, longest)

    def _be_patient(self, connection: sqlite3.Connection, seconds: float) -> None:
        """How long SQLite itself waits."""
        if seconds != self._patience:
            connection.execute(f"PRAGMA busy_timeout = {int(seconds * 1000)}")
            self._patience = seconds

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None:
            if self._pid == os.getpid():
                return self._connection
            self.close()
        self._pid = os.getpid()
        self._patience = self.busy_timeout
        connection = sqlite3.connect(
            self.path, timeout=self.busy_timeout, isolation_level=None, check_same_thread=False, cached_statements=128
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        connection.execute(f"PRAGMA synchronous = {self.synchronous}")
        # Debian's SQLite overwrites what is deleted with zeros, and writes those pages to the log.
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > SCHEMA_VERSION:
            raise exceptions.ImproperlyConfigured(
                f"{self.path} has schema version {version} and this release knows up to {SCHEMA_VERSION}: "
                "upgrade celeriac here, or name another file in the URL"
            )
        if version < SCHEMA_VERSION:
            self._create(connection)

    def _create(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN EXCLUSIVE")  # one of several first comers; also waits, as the next line does not
        connection.execute("ROLLBACK")
        connection.execute("PRAGMA journal_mode = WAL")
        with open(os.path.join(os.path.dirname(__file__), "schema.sql"), encoding="utf-8") as file:
            schema = file.read()
        connection.executescript(f"BEGIN IMMEDIATE; {schema}; PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def _fail(self, exc: sqlite3.Error) -> NoReturn:
        """Raise what the error means to the user. The connection is given up: the next use opens a new one."""
        name = getattr(exc, "sqlite_errorname", "") or ""
        self.close()
        for known, advice in _FOR_GOOD:
            if name.startswith(known):
                raise exceptions.ImproperlyConfigured(f"{self.path} {advice} ({exc})") from exc
        for known, advice in _FOR_NOW:
            if name.startswith(known):
                raise exceptions.OperationalError(f"{self.path} {advice} ({exc})") from exc
        raise exceptions.OperationalError(f"{self.path}: {exc}") from exc


def _before_fork() -> None:
    _gate.acquire()
    _stopped.append(None)
    for store in list(_stores):
        if store._busy.acquire(timeout=store.busy_timeout):
            _stopped.append(store)
            # A connection inside a transaction means that this very thread forks in the middle of one.
            if store._connection is None or not store._connection.in_transaction:
                store.close()


def _after_fork_in_parent() -> None:
    while _stopped:
        store = _stopped.pop()
        if store is not None:
            store._busy.release()
    _gate.release()


def _after_fork_in_child() -> None:
    global _gate  # noqa: PLW0603 - the holders of the old locks may be threads that do not exist here
    _gate = threading.RLock()
    _stopped.clear()
    for store in list(_stores):
        store._busy = threading.RLock()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
