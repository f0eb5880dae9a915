"""Waiting for results on Redis: one connection, subscribed to the channels of what is watched (wire.md 4.4).

It speaks RESP3, so that SUBSCRIBE and the MGET that looks for what was stored before share the connection, and their
order on it is the order in which the server obeys: no record falls between the two. The look is answered at once, so
its answer is asked for as that to a command is (`celery.brokers.redis.spinning`): it has the records of what is ready.

After a lost connection everything is subscribed to and looked at again. It counts as lost too when an answer is
overdue, and there is one to expect at least every `_LOOK_AGAIN` seconds. The server cuts off a subscriber to which it
owes too much (`client-output-buffer-limit pubsub`, by default 32 MB), and so one that waits for a larger record: after
a loss comes a look before anything is subscribed to, for which there is no such limit.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from celery import exceptions, states
from celery.backends.asynchronous import Meta, Watcher
from celery.brokers.redis import resp
from celery.brokers.redis.blocking import Connection, usable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from celery.brokers.redis.address import Address
    from celery.brokers.redis.resp import Command

#: Seconds after which all that is watched is looked at again: it shows that the connection lives.
_LOOK_AGAIN = 30.0
#: Seconds within which such a look must be answered.
_ANSWER = 10.0
#: Keys in one command.
_AT_ONCE = 500


class RedisWatcher(Watcher):
    """Reports records as they are published.

    Args:
        address: the server.
        key: from a task id to the key of its record.
        decode: from a stored record to a Meta.
        patience: seconds for which a lost connection is tried again, before OperationalError.
    """

    #: Until there is something to close.
    _closed = True

    def __init__(
        self, address: Address, *, key: Callable[[str], str], decode: Callable[[bytes], Meta], patience: float
    ) -> None:
        self._connection = Connection(address, pushes=True)
        self._address = address
        self._key = key
        self._decode = decode
        self._patience = patience
        self._lock = threading.Lock()
        #: What is watched; those not looked at yet are in `_fresh`, those no longer watched in `_stale`.
        self._watched: set[bytes] = set()
        self._fresh: set[bytes] = set()
        self._stale: set[bytes] = set()
        #: The draining thread's: channels subscribed to, and how many answers are outstanding since when.
        self._subscribed: set[bytes] = set()
        self._asked: deque[float] = deque()
        self._looked = time.monotonic()
        #: Whether the connection was lost, and nothing has been looked at since.
        self._lost = False
        self._woken, self._waker = os.pipe()
        os.set_blocking(self._waker, False)
        os.set_blocking(self._woken, False)
        self._closed = False

    def __del__(self) -> None:
        # A thread's own watcher has nobody who could close it when the thread, or the application, is gone.
        self.close()

    def add(self, task_ids: Iterable[str]) -> None:
        """Watch these too."""
        keys = {self._key(task_id).encode() for task_id in task_ids}
        with self._lock:
            self._watched |= keys
            self._fresh |= keys
            self._stale -= keys

    def discard(self, task_ids: Iterable[str]) -> None:
        """Stop watching these."""
        keys = {self._key(task_id).encode() for task_id in task_ids}
        with self._lock:
            self._watched -= keys
            self._fresh -= keys
            self._stale |= keys

    def drain(self, timeout: float) -> list[Meta]:
        """Wait up to `timeout` seconds for records."""
        deadline = time.monotonic() + timeout
        give_up: float | None = None
        while True:
            try:
                if self._lost and (found := self._look_unsubscribed()):
                    return found
                looks = self._ask()
                left = max(deadline - time.monotonic(), 0.0)
                read = looks and self._connection.spin()
                woken = not read and self._wait(left)
                found = self._collect(read)
                self.trouble = None
                if found or woken or not left:
                    return found
            except exceptions.OperationalError as exc:
                self.trouble = exc
                now = time.monotonic()
                give_up = now + self._patience if give_up is None else give_up
                if now >= give_up:
                    raise
                self._start_over()
                if now >= deadline:
                    return []
                usable((self._woken,), min(0.2, deadline - now))

    def wake(self) -> None:
        """Make `drain` return."""
        with self._lock:
            if not self._closed:
                try:
                    os.write(self._waker, b"\0")
                except BlockingIOError:
                    return  # full: it will wake as it is

    def close(self) -> None:
        """Disconnect."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
        self._connection.close()
        os.close(self._woken)
        os.close(self._waker)

    def _wait(self, left: float) -> bool:
        """Wait for data or `wake`, or until an overdue answer has to be missed; whether it was `wake`."""
        if self._woken not in self._connection.ready(min(left, _ANSWER), self._woken):
            return False
        with contextlib.suppress(BlockingIOError):
            os.read(self._woken, 4096)
        return True

    def _collect(self, read: bool) -> list[Meta]:
        """Read what is here, unless it was read."""
        found: list[Meta] = []
        if not self._connection.connected:
            return found
        for reply in self._connection.arrived(read=read):
            if isinstance(reply, resp.PushNotification):
                self._heard(reply, found)
            else:
                self._asked.popleft()
                found.extend(self._decode(payload) for payload in resp.check(self._address, reply) if payload)
        if self._asked and time.monotonic() - self._asked[0] > _ANSWER:
            self._connection.close()
            raise resp.lost(self._address, f"no answer within {_ANSWER:g} s")
        return _stored(found)

    def _look_unsubscribed(self) -> list[Meta]:
        with self._lock:
            watched = sorted(self._watched)
        found = [
            self._decode(payload)
            for keys in _parts(watched)
            for payload in self._connection.call("MGET", *keys)
            if payload
        ]
        self._lost = False
        return _stored(found)

    def _heard(self, push: list[Any], found: list[Meta]) -> None:
        if push[0] != b"message":
            return
        with self._lock:
            watched = push[1] in self._watched
        if watched:
            found.append(self._decode(push[2]))

    def _ask(self) -> bool:
        """Subscribe to what is new and look at it, unsubscribe from what is not watched now. Gives whether it looks."""
        now = time.monotonic()
        with self._lock:
            if self._watched and now - self._looked >= _LOOK_AGAIN:
                self._fresh |= self._watched
            if not self._fresh and not self._stale:
                return False
            fresh, self._fresh = sorted(self._fresh), set()
            stale, self._stale = sorted(self._stale & self._subscribed), set()
        new = [key for key in fresh if key not in self._subscribed]
        looks: list[Command] = [("MGET", *keys) for keys in _parts(fresh)]
        commands: list[Command] = [("SUBSCRIBE", *keys) for keys in _parts(new)]
        commands += looks
        commands.extend(("UNSUBSCRIBE", *keys) for keys in _parts(stale))
        if looks:
            self._looked = now
            self._asked.extend(now for _ in looks)
        self._subscribed.update(fresh)
        self._subscribed.difference_update(stale)
        if commands:
            try:
                self._connection.send(commands)
            except exceptions.ImproperlyConfigured:
                self._start_over()
                raise
        return bool(looks)

    def _start_over(self) -> None:
        """The connection is gone: everything is new."""
        self._connection.close()
        self._lost = True
        self._asked.clear()
        self._subscribed.clear()
        with self._lock:
            self._fresh |= self._watched


def _stored(found: list[Meta]) -> list[Meta]:
    return [meta for meta in found if meta["status"] != states.PENDING]


def _parts(keys: list[bytes]) -> list[list[bytes]]:
    if len(keys) <= _AT_ONCE:
        return [keys] if keys else []
    return [keys[at : at + _AT_ONCE] for at in range(0, len(keys), _AT_ONCE)]
