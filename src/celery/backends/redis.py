"""Results on a Redis server, under the keys and channels of wire.md 4.4.

Storing is one script: the check for a final record, the write, the publish. A worker whose broker is the same server
does it while it settles (`Receiver.share`), another one through `write`. Whoever waits is subscribed to the channel
that is named like the record's key.

Connections: each thread has one of its own for blocking calls, and notices when it lives in a forked process; each
watcher has one; the writer of a worker has one. A blocking call is tried again by the `retry_policy` of
`result_backend_transport_options` when the connection fails.
"""

from __future__ import annotations

import os
import threading
import time
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from celery import exceptions, states
from celery.backends.base import KeyValueStoreBackend
from celery.backends.redis_chords import RedisBook, chord_store
from celery.backends.redis_watcher import RedisWatcher
from celery.backends.thirdparty import as_text
from celery.brokers.redis import address, resp
from celery.brokers.redis.blocking import Connection
from celery.brokers.redis.scripts import load
from celery.brokers.redis.settling import ResultStore
from celery.brokers.url import parse
from celery.wire import compression

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.backends.asynchronous import Watcher
    from celery.brokers.base import ResultWrite
    from celery.brokers.redis.address import Address
    from celery.brokers.redis.scripts import Script
    from celery.brokers.redis.streaming import Stream

#: ROUTE-039.
_RETRY_POLICY = {"max_retries": 20, "interval_start": 0, "interval_step": 1, "interval_max": 1}

#: Transport options and the settings that give them where the options do not (SET-115..128).
_SETTINGS = {
    "credential_provider": "redis_backend_credential_provider",
    "health_check_interval": "redis_backend_health_check_interval",
    "client_name": "redis_client_name",
    "db": "redis_db",
    "username": "redis_username",
    "password": "redis_password",
    "socket_connect_timeout": "redis_socket_connect_timeout",
    "socket_keepalive": "redis_socket_keepalive",
    "socket_timeout": "redis_socket_timeout",
}

T = TypeVar("T")

#: A record to store: key, seconds it is kept ("": for ever), value, state.
_Value = tuple[str, int | str, bytes, str]


class RedisBackend(KeyValueStoreBackend):
    """Stores results on a Redis server.

    URLs: `redis://`, `rediss://`, `redis+socket://`, `socket://`, `sentinel://` (`celery.brokers.redis.address`).
    """

    async_writer = True
    addressed = False
    key_t = staticmethod(as_text)
    is_async = True
    supports_native_join = True
    supports_autoexpire = True
    supports_result_compression = True
    supports_failure_expires = True
    implements_incr = True

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        conf = self.app.conf
        options = dict(conf.result_backend_transport_options or {})
        self.address = read_address(self.url or "redis://", options, conf)
        self.failure_expires = (
            self.expires if conf.result_failure_expires is None else self.prepare_expires(conf.result_failure_expires)
        )
        self._retry = _RETRY_POLICY | dict(options.get("retry_policy") or {})
        self._threads = threading.local()
        self._stream: Stream | None = None

    @cached_property
    def chords(self) -> RedisBook:
        """What counts chords here."""
        return RedisBook(self)

    @property
    def shared_store(self) -> ResultStore | None:
        """How a receiver on the same server stores for us; None: only Python can read what is stored already."""
        if self.serializer != "json" or self.compression:
            return None
        lives = _life(self.expires), _life(self.failure_expires)
        return ResultStore(self.address, self.task_keyprefix, *lives, chord_store(self))

    # -- keys and values

    def get(self, key: str) -> bytes | None:
        """The value, or None."""
        found: bytes | None = self._call("GET", key)
        return found

    def mget(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in order, None where there is none."""
        found: list[bytes | None] = self._call("MGET", *keys) if keys else []
        return found

    def set(self, key: str, value: bytes) -> None:
        """Store a value for `result_expires` seconds, and publish it."""
        self._set_with_state(key, value, "")

    def delete(self, key: str) -> None:
        """Delete a key."""
        self._call("DEL", key)

    def incr(self, key: str) -> int:
        """Add one, atomically; the new value."""
        return int(self._call("INCR", key))

    def expire(self, key: str, value: float) -> bool:
        """Let a key vanish after `value` seconds."""
        return bool(self._call("PEXPIRE", key, int(value * 1000)))

    def _set_with_state(self, key: str, value: bytes, state: str) -> None:
        seconds = self._seconds(state)
        write = ("SETEX", key, seconds, value) if seconds else ("SET", key, value)
        commands = (("MULTI",), write, ("PUBLISH", key, value), ("EXEC",))
        self._retried(lambda link: link.pipeline(commands, check=True))

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        value = self.encode(self.make_record(task_id, result, state, traceback, request))
        pending = [(self.get_key_for_task(task_id), self._seconds(state), value, state)]
        known: dict[str, bytes] = {}
        while pending:
            undecided = self._run(load("store"), _arguments(pending, known))
            pending = self._replaceable(pending, undecided, known)
        return result

    def _seconds(self, state: str) -> int | str:
        return _life(self.failure_expires if state == states.FAILURE else self.expires) or ""

    def _replaceable(self, values: Sequence[_Value], undecided: Sequence[Any], known: dict[str, bytes]) -> list[_Value]:
        """Of what the script gave back, the records that are not final and have to be stored again."""
        again: list[_Value] = []
        for number, stored in zip(undecided[::2], undecided[1::2], strict=True):
            value = values[number]
            if states.may_follow(self.decode(stored)["status"], value[3]):
                known[value[0]] = stored
                again.append(value)
        return again

    # -- blocking connections

    def _connection(self) -> Connection:
        """This thread's own, in this process."""
        threads = self._threads
        if getattr(threads, "pid", None) != os.getpid():
            threads.connection, threads.pid = Connection(self.address), os.getpid()
        connection: Connection = threads.connection
        return connection

    def _call(self, *command: str | bytes | float) -> Any:
        return self._retried(lambda link: link.call(*command))

    def _run(self, script: Script, arguments: Sequence[str | bytes | int]) -> Any:
        return self._retried(lambda link: link.run(script, *arguments))

    def _retried(self, operation: Callable[[Connection], T]) -> T:
        """What the operation gives, tried again by the retry policy while the connection fails."""
        policy = self._retry
        bound = policy.get("timeout")
        deadline = None if bound is None else time.monotonic() + bound
        pause = float(policy["interval_start"])
        retries = 0
        while True:
            try:
                return operation(self._connection())
            except exceptions.OperationalError as error:
                late = deadline is not None and time.monotonic() + pause >= deadline
                most = policy["max_retries"]
                if late or (most is not None and retries >= most):
                    raise
                self.on_backend_retryable_error(error)
            retries += 1
            time.sleep(pause)
            pause = min(pause + policy["interval_step"], policy["interval_max"])

    def process_cleanup(self) -> None:
        """Nothing: the connection of a child is kept for its next task."""

    def exception_safe_to_retry(self, exc: BaseException) -> bool:
        """Whether the store was out of reach, or refused for now."""
        return isinstance(exc, exceptions.OperationalError)

    def close(self) -> None:
        """Disconnect this thread."""
        super().close()
        if getattr(self._threads, "pid", None) == os.getpid():
            self._threads.connection.close()

    # -- the worker's way

    async def open_writer(self) -> None:
        """Connect."""
        await self._writer()

    async def write(self, batch: Sequence[ResultWrite]) -> None:
        """Store many records in one round trip. A server that is silent for `redis_socket_timeout` seconds is left."""
        import asyncio  # only workers write so

        stream = await self._writer()
        pending: list[_Value] = [
            (self.get_key_for_task(write.task_id), self._seconds(write.state), self._packed(write), write.state)
            for write in batch
        ]
        known: dict[str, bytes] = {}
        try:
            async with asyncio.timeout(self.address.timeout):
                while pending:
                    undecided = await stream.run(load("store"), *_arguments(pending, known))
                    pending = self._replaceable(pending, undecided, known)
        except TimeoutError:
            silence = f"no answer within {self.address.timeout:g} s"
            stream.fail(silence)
            raise resp.lost(self.address, silence) from None

    async def close_writer(self) -> None:
        """Disconnect."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    async def _writer(self) -> Stream:
        """The writer's connection; a lost one is replaced."""
        from celery.brokers.redis import streaming  # asyncio: only workers write so

        if self._stream is None or self._stream.failure is not None:
            self._stream = await streaming.connect(self.address, lambda _push: None, lambda: None)
        return self._stream

    def _packed(self, write: ResultWrite) -> bytes:
        return compression.pack_result(write.payload, self.compression) if self.compression else write.payload

    # -- waiting

    def make_watcher(self) -> Watcher:
        """A watcher with a connection of its own."""
        return RedisWatcher(
            self.address,
            key=self.get_key_for_task,
            decode=self.decode_result,
            patience=float(self._retry["interval_max"] or 1) * float(self._retry["max_retries"] or 20),
        )


def read_address(url: str, options: Mapping[str, Any], conf: Any) -> Address:
    """The address of a result store: the URL, its transport options, and the redis_* settings.

    Raises:
        ImproperlyConfigured: `rediss://` does not say how to check the server's certificate, or the URL is wrong.
    """
    merged: dict[str, Any] = {
        name: conf.get(setting) for name, setting in _SETTINGS.items() if conf.get(setting) is not None
    }
    merged |= {name: value for name, value in options.items() if value is not None}
    merged["ssl"] = conf.get("redis_backend_use_ssl")
    read = address.read(url, merged)
    if url.startswith("rediss:") and "ssl_cert_reqs" not in (read.tls or {}):
        raise exceptions.ImproperlyConfigured(
            f"result_backend {read.url!r} must say how the server's certificate is checked: "
            "add ?ssl_cert_reqs=required (or optional, or none)."
        )
    if read.path is None and not read.sentinels and parse(url).host is None:
        read = msgspec.structs.replace(
            read, host=conf.get("redis_host") or read.host, port=parse(url).port or conf.get("redis_port") or read.port
        )
    return read


def _life(seconds: float | None) -> int | None:
    """Seconds as SETEX takes them; None: for ever."""
    return max(int(seconds), 1) if seconds else None


def _arguments(values: Sequence[_Value], known: Mapping[str, bytes]) -> list[str | bytes | int]:
    """Records as arguments of the script `store`."""
    return [word for key, seconds, value, _ in values for word in (key, seconds, value, known.get(key, b""))]


class SentinelBackend(RedisBackend):
    """The same for `sentinel://` URLs, under the name by which it is configured."""
