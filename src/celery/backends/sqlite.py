"""Results in the file that the embedded broker lives in, or in one of their own.

Records are values of the `result` table under the keys of wire.md 4.4. A worker whose broker is the same file stores
them while it settles, in that very transaction (`Receiver.share`); another one through `write`. Whoever waits is woken
by a bell beside the file (`celery.brokers.sqlite.bell`) and reads what is newer than what it has seen.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery.backends.asynchronous import Meta, Watcher
from celery.backends.base import KeyValueStoreBackend
from celery.backends.sqlite_chords import SQLiteBook
from celery.backends.thirdparty import as_text
from celery.brokers.sqlite import chords, results
from celery.brokers.sqlite.bell import RESULTS, Bell
from celery.brokers.sqlite.hearing import Hearing
from celery.brokers.sqlite.store import Store
from celery.exceptions import ImproperlyConfigured
from celery.utils.callthread import CallThread

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Iterable, Sequence

    from celery.brokers.base import ResultWrite

#: How many expired values one transaction of `cleanup` deletes.
_CLEANUP_STEP = 5000


class SQLiteBackend(KeyValueStoreBackend):
    """Stores results in a SQLite file: `sqlite:///relative.db` or `sqlite:////absolute.db`.

    `result_backend_transport_options` may hold `synchronous` and `busy_timeout` (see `Store`).
    """

    async_writer = True
    addressed = False
    key_t = staticmethod(as_text)
    supports_native_join = True
    supports_autoexpire = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if not self.url:
            raise ImproperlyConfigured("result_backend: the SQLite backend needs a URL such as sqlite:///celery.sqlite")
        self.store = Store(self.url, self.app.conf.result_backend_transport_options or {})
        self.path = self.store.path
        self.bell = Bell(self.path, RESULTS)
        self._writer: CallThread | None = None

    @cached_property
    def chords(self) -> SQLiteBook:
        """What counts chords here."""
        return SQLiteBook(self)

    # -- keys and values

    def get(self, key: str) -> bytes | None:
        """The value, or None."""
        return self.mget([key])[0]

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in order, None where there is none, in one query."""
        with self.store.reading() as db:
            found = results.read(db, keys, time.time())
        return [found.get(key) for key in keys]

    def set(self, key: str, value: bytes) -> None:
        """Store a value that may be replaced."""
        self._set_with_state(key, value, "")

    def delete(self, key: str) -> None:
        """Delete a value, if there is one."""
        with self.store.writing() as db:
            results.delete(db, key)

    def _set_with_state(self, key: str, value: bytes, state: str) -> None:
        # A success of a task is final; a saved group may be saved again.
        self._write([(key, state if key.startswith(self.task_keyprefix) else "", value)])

    def cleanup(self) -> None:
        """Delete expired records."""
        deleted = _CLEANUP_STEP
        while deleted == _CLEANUP_STEP:
            with self.store.writing() as db:
                deleted = results.delete_expired(db, time.time(), _CLEANUP_STEP)
        with self.store.writing() as db:
            chords.delete_expired(db, time.time())

    def close(self) -> None:
        """Close file and bell."""
        super().close()
        self.store.close()
        self.bell.close()

    # -- the worker's way

    async def open_writer(self) -> None:
        """Start the thread that `write` stores on."""
        import asyncio  # here, as those who only read do without

        self._writer = CallThread("celery-results", asyncio.get_running_loop())

    async def write(self, batch: Sequence[ResultWrite]) -> None:
        """Store records in one transaction, off the loop."""
        assert self._writer is not None, "open_writer comes first"
        await self._writer.call(self._write, self._values(batch))

    async def close_writer(self) -> None:
        """Let the thread end. Idempotent."""
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.end()

    def write_in(self, db: sqlite3.Connection, batch: Sequence[ResultWrite]) -> None:
        """Store records inside a transaction of the broker, which rings the bell after its commit."""
        now = time.time()
        results.write(db, self._values(batch), self._expires_at(now), now)

    def _values(self, batch: Iterable[ResultWrite]) -> list[results.Value]:
        return [(self.get_key_for_task(write.task_id), write.state, write.payload) for write in batch]

    def _write(self, values: Sequence[results.Value]) -> None:
        now = time.time()
        with self.store.writing() as db:
            results.write(db, values, self._expires_at(now), now)
        self.bell.ring()

    def _expires_at(self, now: float) -> float | None:
        return now + self.expires if self.expires else None

    # -- waiting

    def make_watcher(self) -> Watcher:
        """A watcher woken by the bell."""
        return SQLiteWatcher(self)


class SQLiteWatcher(Watcher):
    """Waits for the bell, then reads what is new."""

    #: Until there is something to close.
    _closed = True

    def __init__(self, backend: SQLiteBackend) -> None:
        self._backend = backend
        self._lock = threading.Lock()
        #: Key -> task id; those that no look has covered yet are in `_fresh`.
        self._watched: dict[str, str] = {}
        self._fresh: set[str] = set()
        self._seen = 0
        self._hearing = Hearing(backend.path + RESULTS)
        self._woken, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else os.pipe()
        self._closed = False

    def __del__(self) -> None:
        # A thread's own watcher has nobody who could close it when the thread, or the application, is gone.
        self.close()

    def add(self, task_ids: Iterable[str]) -> None:
        """Watch these too; the next look finds what is stored already."""
        keys = {self._backend.get_key_for_task(task_id): task_id for task_id in task_ids}
        with self._lock:
            self._watched.update(keys)
            self._fresh.update(keys)

    def discard(self, task_ids: Iterable[str]) -> None:
        """Stop watching these."""
        with self._lock:
            for task_id in task_ids:
                key = self._backend.get_key_for_task(task_id)
                self._watched.pop(key, None)
                self._fresh.discard(key)

    def drain(self, timeout: float) -> list[Meta]:
        """Wait up to `timeout` seconds for records of watched tasks."""
        deadline = time.monotonic() + timeout
        while True:
            self._hearing.clear()
            found = self._look()
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            self._hearing.wait(left, self._woken)
            if self._was_woken():
                return self._look()

    def _look(self) -> list[Meta]:
        with self._lock:
            fresh, self._fresh = self._fresh, set()
            watched = dict(self._watched)
        with self._backend.store.reading() as db:
            newest = results.newest(db)  # before reading: what is written in between is reported twice, not never
            found = results.newer(db, watched.keys() - fresh, self._seen)
            if fresh:
                found |= results.read(db, list(fresh), time.time())
        self._seen = newest
        return [self._backend.decode_result(payload) for payload in found.values()]

    def wake(self) -> None:
        """Make a running or the next `drain` return at once."""
        with self._lock:
            if not self._closed:
                with contextlib.suppress(BlockingIOError):  # full: it will wake as it is
                    os.write(self._waker, b"\0")

    def close(self) -> None:
        """Give up bell and pipe. Idempotent."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._hearing.close()
        os.close(self._woken)
        os.close(self._waker)

    def _was_woken(self) -> bool:
        try:
            return bool(os.read(self._woken, 4096))
        except BlockingIOError:
            return False
