"""Coroutines of several loops that wait for one task."""

from __future__ import annotations

import asyncio
import contextlib
import threading

from celery.backends.asynchronous import ResultHub, Watcher

RECORD = {"task_id": "shared", "status": "SUCCESS", "result": 7}


class Store(Watcher):
    """Has a record, once it is told to, and reports it while somebody watches."""

    def __init__(self):
        self.watched = []
        self.added = threading.Semaphore(0)
        self.before_discard = lambda: None
        self._stored = threading.Event()
        self._woken = threading.Event()

    def store(self):
        self._stored.set()
        self.wake()

    def add(self, task_ids):
        self.watched = sorted({*self.watched, *task_ids})
        self.added.release()

    def discard(self, task_ids):
        self.before_discard()
        self.watched = sorted({*self.watched}.difference(task_ids))

    def drain(self, timeout):
        self._woken.wait(timeout)
        self._woken.clear()
        return [RECORD] if self._stored.is_set() and "shared" in self.watched else []

    def wake(self):
        self._woken.set()

    def close(self):
        pass


def test_who_begins_to_wait_while_another_loop_gives_up_is_told():
    store, told = Store(), []
    with contextlib.closing(ResultHub(lambda: store)) as hub:

        def wait_too():
            told.append(asyncio.run(hub.wait("shared", 5)))

        second = threading.Thread(target=wait_too)

        def begin_second():
            store.before_discard = lambda: None
            second.start()
            assert store.added.acquire(timeout=5)

        store.before_discard = begin_second
        first = asyncio.run(given_up(hub, store))
        store.store()
        second.join()
        assert (first, told) == (None, [RECORD])
        assert store.watched == []


async def given_up(hub, store):
    """Wait so shortly that nothing can come."""
    waiting = asyncio.create_task(hub.wait("shared", 0.01))
    await asyncio.to_thread(store.added.acquire, timeout=5)
    return await waiting
