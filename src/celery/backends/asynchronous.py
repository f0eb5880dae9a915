"""Waiting for results.

Rules
    1. A `Watcher` is told which task ids matter and reports every record stored for them after *or before* it was
       told: a driver subscribes first and looks once afterwards, so no result falls between.
    2. One thread drains a watcher; any thread may add and discard ids or wake it.
    3. Every drain has a bound. A lost connection is mended inside the watcher, which then looks at all its ids
       again; only a store that stays away raises OperationalError.
    4. A blocking `get()` drains a watcher of its thread; all coroutines of a process share one, drained by a
       thread (`ResultHub`).
"""

from __future__ import annotations

import abc
import threading
import time
from typing import TYPE_CHECKING, Any

from celery import exceptions, states

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable, Iterable

    from celery.backends.base import Backend

#: A result record, decoded (wire.md 4.1).
Meta = dict[str, Any]


class Watcher(abc.ABC):
    """Reports records of the tasks it watches. See the rules above."""

    #: Why the last drain could not look; None: it could.
    trouble: Exception | None = None

    def excuse(self) -> str:
        """What to add to the error of who has waited in vain."""
        return f" The result store cannot be reached: {self.trouble}." if self.trouble else ""

    @abc.abstractmethod
    def add(self, task_ids: Iterable[str]) -> None:
        """Watch these too. Any thread."""

    @abc.abstractmethod
    def discard(self, task_ids: Iterable[str]) -> None:
        """Stop watching these. Any thread; unknown ids are ignored."""

    @abc.abstractmethod
    def drain(self, timeout: float) -> list[Meta]:
        """Wait up to `timeout` seconds for records of watched tasks, intermediate states included.

        Returns early, perhaps with nothing, after `wake`. A record may be reported more than once.
        """

    @abc.abstractmethod
    def wake(self) -> None:
        """Make a running or the next `drain` return at once. Any thread."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give up the connection. Idempotent."""


class PollingWatcher(Watcher):
    """For stores that cannot tell: asks for every watched id, again and again, and reports what has changed."""

    def __init__(self, backend: Backend, interval: float = 0.5) -> None:
        self._backend = backend
        self._interval = interval
        #: Watched id -> what was reported of it last.
        self._reported: dict[str, Any] = {}
        self._lock = threading.Lock()
        self._wakeup = threading.Event()

    def add(self, task_ids: Iterable[str]) -> None:
        with self._lock:
            self._reported.update(dict.fromkeys(task_ids))

    def discard(self, task_ids: Iterable[str]) -> None:
        with self._lock:
            for task_id in task_ids:
                self._reported.pop(task_id, None)

    def drain(self, timeout: float) -> list[Meta]:
        deadline = time.monotonic() + timeout
        while True:
            found = self._look()
            left = deadline - time.monotonic()
            if found or left <= 0:
                return found
            if self._wakeup.wait(min(self._interval, left)):
                self._wakeup.clear()
                return []

    def _look(self) -> list[Meta]:
        with self._lock:
            before = dict(self._reported)
        news = []
        for meta in self._backend.get_many_meta(list(before)):
            status = meta["status"]
            # An exception is another object each time it is read.
            value = None if status in states.EXCEPTION_STATES else meta["result"]
            seen = (status, meta.get("date_done"), value)
            if status == states.PENDING or seen == before[meta["task_id"]]:
                continue
            news.append(meta)
            with self._lock:
                if meta["task_id"] in self._reported:
                    self._reported[meta["task_id"]] = seen
        return news

    def wake(self) -> None:
        self._wakeup.set()

    def close(self) -> None:
        self.wake()


class ResultHub:
    """Lets any number of coroutines, of any loop, wait on one watcher drained by one daemon thread.

    The thread lives while somebody waits, and half a minute longer.
    """

    #: Seconds that the thread outlives its last waiter, and the longest single drain.
    LINGER = 30.0
    #: Seconds that `close` waits for the thread.
    ENDING = 2.0

    def __init__(self, make_watcher: Callable[[], Watcher]) -> None:
        self._make_watcher = make_watcher
        self._lock = threading.Lock()
        self._watcher: Watcher | None = None
        self._waiting: dict[str, list[_Waiter]] = {}
        self._thread: threading.Thread | None = None
        self._closed = False

    async def wait(
        self,
        task_id: str,
        timeout: float | None,
        on_message: Callable[[Meta], Any] | None = None,
        unless: Iterable[str] = (),
    ) -> Meta | None:
        """The final record of the task, or None after `timeout` seconds (None: no bound).

        Args:
            task_id: the task.
            timeout: in seconds.
            on_message: called on the loop with every record of the task, intermediate states included.
            unless: other tasks; the record of the first of them that fails is the answer, if it comes before.

        Raises:
            OperationalError: the store cannot be reached, or the hub was closed.
        """
        import asyncio  # here, as this module serves programs without a loop too

        loop = asyncio.get_running_loop()
        waiter = _Waiter(loop, loop.create_future(), task_id, on_message)
        watched = {task_id, *unless}
        self._enlist(watched, waiter)
        try:
            return await asyncio.wait_for(waiter.future, timeout)
        except TimeoutError:
            return None
        finally:
            self._delist(watched, waiter)

    def excuse(self) -> str:
        """As the watcher's."""
        watcher = self._watcher
        return "" if watcher is None else watcher.excuse()

    def close(self) -> None:
        """End the thread and its watcher; who still waits gets OperationalError. Idempotent, and final."""
        with self._lock:
            self._closed = True
            watcher, thread = self._watcher, self._thread
        self._fail(exceptions.OperationalError("the result backend was closed while its results were waited for"))
        if watcher is not None and thread is not None:
            watcher.wake()
            if thread is not threading.current_thread():
                thread.join(self.ENDING)

    def _enlist(self, task_ids: set[str], waiter: _Waiter) -> None:
        with self._lock:
            if self._closed:
                raise exceptions.OperationalError("the result backend was closed")
            for task_id in task_ids:
                self._waiting.setdefault(task_id, []).append(waiter)
            watcher = self._watcher
            if watcher is None:
                watcher = self._watcher = self._make_watcher()
                self._thread = threading.Thread(
                    target=self._drain, args=(watcher,), name="celery-results", daemon=True
                )
                self._thread.start()
        # Adding again an id that is watched makes the driver look at the store once more, for this waiter.
        watcher.add(task_ids)
        watcher.wake()

    def _delist(self, task_ids: set[str], waiter: _Waiter) -> None:
        gone = []
        with self._lock:
            for task_id in task_ids:
                waiters = self._waiting.get(task_id, [])
                if waiter in waiters:
                    waiters.remove(waiter)
                if not waiters:
                    self._waiting.pop(task_id, None)
                    gone.append(task_id)
            watcher = self._watcher
        if gone and watcher is not None:
            watcher.discard(gone)
            # Coroutines of other loops may have come for them meanwhile, and must not be forgotten with us.
            with self._lock:
                wanted = [task_id for task_id in gone if task_id in self._waiting and watcher is self._watcher]
            if wanted:
                watcher.add(wanted)
                watcher.wake()

    def _drain(self, watcher: Watcher) -> None:
        idle_since = time.monotonic()
        try:
            while not self._closed:
                for meta in watcher.drain(self.LINGER):
                    self._report(meta)
                with self._lock:
                    if self._waiting:
                        idle_since = time.monotonic()
                    elif time.monotonic() - idle_since >= self.LINGER:
                        self._watcher = None
                        return
        except Exception as exc:  # noqa: BLE001 - whatever ends the thread must reach those who wait on it
            with self._lock:
                self._watcher = None
            self._fail(exc)
        finally:
            watcher.close()

    def _fail(self, exc: Exception) -> None:
        with self._lock:
            waiters = [waiter for waiters in self._waiting.values() for waiter in waiters]
        for waiter in waiters:
            waiter.fail(exc)

    def _report(self, meta: Meta) -> None:
        with self._lock:
            waiters = list(self._waiting.get(meta["task_id"], ()))
        for waiter in waiters:
            waiter.tell(meta)


class _Waiter:
    """One coroutine's wait: results arrive on the hub's thread and are handed to the coroutine's loop."""

    __slots__ = ("future", "loop", "on_message", "task_id")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        future: asyncio.Future[Meta],
        task_id: str,
        on_message: Callable[[Meta], Any] | None,
    ) -> None:
        self.loop = loop
        self.future = future
        self.task_id = task_id
        self.on_message = on_message

    def tell(self, meta: Meta) -> None:
        self._call(self._arrived, meta)

    def fail(self, exc: Exception) -> None:
        self._call(self._failed, exc)

    def _call(self, function: Callable[[Any], None], value: Any) -> None:
        if not self.loop.is_closed():
            try:
                self.loop.call_soon_threadsafe(function, value)
            except RuntimeError:  # the loop was closed between the two lines: nobody waits any more
                return

    def _arrived(self, meta: Meta) -> None:
        own = meta["task_id"] == self.task_id
        if own and self.on_message is not None:
            self.on_message(meta)
        ends = states.READY_STATES if own else states.PROPAGATE_STATES
        if meta["status"] in ends and not self.future.done():
            self.future.set_result(meta)

    def _failed(self, exc: Exception) -> None:
        if not self.future.done():
            self.future.set_exception(exc)


class RecordCache:
    """Finished records of this process (`result_cache_max`: -1 none, 0 or None all, n the last n used)."""

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._records: dict[str, Meta] = {}
        self._lock = threading.Lock()

    def get(self, key: str) -> Meta | None:
        with self._lock:
            meta = self._records.pop(key, None)
            if meta is not None:
                self._records[key] = meta
            return meta

    def put(self, key: str, meta: Meta) -> None:
        if self._limit == -1:
            return
        with self._lock:
            self._records.pop(key, None)
            self._records[key] = meta
            if self._limit and len(self._records) > self._limit:
                del self._records[next(iter(self._records))]

    def drop(self, key: str) -> None:
        with self._lock:
            self._records.pop(key, None)
