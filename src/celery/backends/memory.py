"""Results inside one process: `cache+memory://name`, shared by all who give the name; for tests.

A store keeps `(state, value, time of expiry)` by key under one lock; a stored SUCCESS stays (wire.md 4.1). Watchers
are told by the writer itself, so waiting costs nothing. A forked process keeps a copy of what was there.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery import states
from celery.backends.asynchronous import Meta, Watcher
from celery.backends.base import KeyValueStoreBackend
from celery.backends.memory_chords import Chord, MemoryBook, sweep
from celery.backends.thirdparty import as_text
from celery.brokers.url import mask, parse
from celery.exceptions import ImproperlyConfigured

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery.brokers.base import ResultWrite

#: How often, in writes, a store looks for what has expired.
SWEEP_EVERY = 1000


class _Store:
    """Keys and values of one name."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, bytes, float]] = {}
        self.chords: dict[str, Chord] = {}
        self._writes = 0
        self.begin_anew()

    def begin_anew(self) -> None:
        """Give up the lock and the watchers: in a forked process both belong to threads that are not there."""
        self.lock = threading.RLock()
        #: Weakly: a thread's watcher goes with its thread.
        self.watchers: weakref.WeakSet[MemoryWatcher] = weakref.WeakSet()

    def get(self, key: str) -> bytes | None:
        found = self._values.get(key)
        return None if found is None or found[2] <= time.monotonic() else found[1]

    def set(self, key: str, state: str, value: bytes, lifetime: float | None) -> None:
        now = time.monotonic()
        with self.lock:
            stored = self._values.get(key)
            if stored is not None and stored[2] > now and not states.may_follow(stored[0], state):
                return
            self._values[key] = (state, value, now + lifetime if lifetime else float("inf"))
            self._writes += 1
            if self._writes % SWEEP_EVERY == 0:
                self.sweep()
            watchers = list(self.watchers)
        for watcher in watchers:
            watcher.tell(key, value)

    def incr(self, key: str) -> int:
        with self.lock:
            state, value, end = self._values.get(key, ("", b"0", float("inf")))
            number = int(value) + 1
            self._values[key] = (state, b"%d" % number, end)
            return number

    def expire(self, key: str, lifetime: float) -> None:
        with self.lock:
            if key in self._values:
                state, value, _ = self._values[key]
                self._values[key] = (state, value, time.monotonic() + lifetime)

    def delete(self, key: str) -> None:
        with self.lock:
            self._values.pop(key, None)

    def sweep(self) -> None:
        """Delete what has expired."""
        now = time.monotonic()
        with self.lock:
            for key in [key for key, (_, _, end) in self._values.items() if end <= now]:
                del self._values[key]
            sweep(self.chords, now)


_stores: dict[str, _Store] = {}


def _store(name: str) -> _Store:
    return _stores.setdefault(name, _Store())


def _begin_anew() -> None:
    for store in _stores.values():
        store.begin_anew()


os.register_at_fork(after_in_child=_begin_anew)


class MemoryBackend(KeyValueStoreBackend):
    """Stores results in this process.

    Args:
        app: the application.
        expires: seconds a record is kept; None: `result_expires`.
        backend: where, as a name or URL (the setting `cache_backend`), when there is no `url`.
        options: for cache servers; unused here.
        url: `memory://name`.
        **kwargs: for the base class.
    """

    async_writer = True
    addressed = False
    key_t = staticmethod(as_text)
    supports_native_join = True
    supports_autoexpire = True
    implements_incr = True

    def __init__(
        self,
        app: Any,
        expires: Any = None,
        backend: str | None = None,
        options: Any = None,  # noqa: ARG002 - in Celery's signature
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(app, expires=expires, url=url or backend or app.conf.cache_backend or "memory", **kwargs)
        place = parse(str(self.url))
        if place.scheme != "memory":
            raise ImproperlyConfigured(
                f"result_backend {mask(str(self.url))!r}: of the caches this version has only cache+memory://; "
                "use Redis, a database or sqlite:/// instead"
            )
        self.store = _store((place.host or "") + place.path.rstrip("/"))

    @cached_property
    def chords(self) -> MemoryBook:
        """What counts chords here."""
        return MemoryBook(self)

    def get(self, key: str) -> bytes | None:
        return self.store.get(key)

    def set(self, key: str, value: bytes) -> None:
        self._set_with_state(key, value, "")

    def delete(self, key: str) -> None:
        self.store.delete(key)

    def incr(self, key: str) -> int:
        return self.store.incr(key)

    def expire(self, key: str, value: float) -> None:
        self.store.expire(key, value)

    def cleanup(self) -> None:
        """Delete expired records."""
        self.store.sweep()

    def _set_with_state(self, key: str, value: bytes, state: str) -> None:
        self.store.set(key, state, value, self.expires)

    async def write(self, batch: Sequence[ResultWrite]) -> None:
        for write in batch:
            self._set_with_state(self.get_key_for_task(write.task_id), write.payload, write.state)

    def make_watcher(self) -> Watcher:
        return MemoryWatcher(self)


class MemoryWatcher(Watcher):
    """Told by the store of every value that is written under the keys it watches."""

    def __init__(self, backend: MemoryBackend) -> None:
        self._backend = backend
        self._told = threading.Condition(threading.RLock())
        self._keys: set[str] = set()
        self._news: list[bytes] = []
        self._woken = False
        backend.store.watchers.add(self)

    def add(self, task_ids: Iterable[str]) -> None:
        keys = [self._backend.get_key_for_task(task_id) for task_id in task_ids]
        with self._told:
            self._keys.update(keys)
        # Only now, so that what is stored in between is told twice rather than never.
        for key in keys:
            value = self._backend.store.get(key)
            if value is not None:
                self.tell(key, value)

    def discard(self, task_ids: Iterable[str]) -> None:
        with self._told:
            self._keys.difference_update(map(self._backend.get_key_for_task, task_ids))

    def tell(self, key: str, value: bytes) -> None:
        """Report a value; ignored when nobody watches the key."""
        with self._told:
            if key in self._keys:
                self._news.append(value)
                self._told.notify_all()

    def drain(self, timeout: float) -> list[Meta]:
        with self._told:
            self._told.wait_for(lambda: self._news or self._woken, timeout)
            news, self._news, self._woken = self._news, [], False
        return [self._backend.decode_result(value) for value in news]

    def wake(self) -> None:
        with self._told:
            self._woken = True
            self._told.notify_all()

    def close(self) -> None:
        self._backend.store.watchers.discard(self)
        self.wake()
