"""What a result backend is, and what third parties subclass (API-052..068).

A backend stores one *record* per task (wire.md 4.1). Three layers:

`Backend`
    The public surface: states, values, exceptions, groups, waiting. A driver gives it three verbs, `_store_result`,
    `_get_task_meta_for` and `_forget`, and the like for groups.
`KeyValueStoreBackend` (`BaseKeyValueStoreBackend`)
    The same from `get`, `mget`, `set`, `delete` over keys (wire.md 4.4): most stores need no more.
`DisabledBackend`
    No results: storing is a no-op, reading says what to configure.

What Celery's backends offer third parties beside is in `celery.backends.thirdparty`; chords are in
`celery.backends.chord_hooks`.

Who stores an attempt's result: where `async_writer` is true, the worker's main process does, in batches, through
`open_writer`, `write`, `close_writer`; else (the default for third-party subclasses, whose verbs block) the child
that ran the task does, through `store_result`.

A stored SUCCESS is final: nothing replaces it (wire.md 4.1).

The file is longer than others because it is what third parties derive from, by name and by method.
"""

from __future__ import annotations

import datetime
import os
import sys
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from celery import exceptions, states
from celery.backends.asynchronous import Meta, PollingWatcher, RecordCache, ResultHub, Watcher
from celery.backends.chord_hooks import ChordHooks, CountingHooks
from celery.backends.thirdparty import KeyForm, SyncBackendMixin
from celery.brokers.base import BriefWrite, ResultWrite
from celery.brokers.url import mask
from celery.exceptions import ImproperlyConfigured, TaskRevokedError, TimeoutError  # noqa: A004 - the documented name
from celery.utils.imports import symbol_by_name
from celery.utils.iso8601 import utc_text
from celery.wire import errors, results, serializers
from celery.wire.compression import content_type_of
from celery.wire.compression import pack_result as compress_payload
from celery.wire.compression import unpack_result as decompress_payload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from celery.app.base import Celery

#: How often third parties try again on their own.
RETRY_POLICY = {"max_retries": 20, "interval_start": 0, "interval_step": 1, "interval_max": 1}

DISABLED = """\
No result backend is configured.
Set result_backend (or Celery(backend=...)), or leave out the broker too to use the embedded SQLite store."""


#: What a backend may make of a value and of what its task has sent, and of both.
_FORMS = ("make_record", "encode_result", "prepare_value", "current_task_children")
_NONE_SENT: list[Any] | None = []


class Backend(ChordHooks):
    """Base of every result backend."""

    READY_STATES = states.READY_STATES
    UNREADY_STATES = states.UNREADY_STATES
    EXCEPTION_STATES = states.EXCEPTION_STATES
    TimeoutError = TimeoutError

    #: The worker's main process stores results through `write`; see the module's docstring.
    async_writer: ClassVar[bool] = False
    #: A record is sent to whoever waits for it, whom it has to name.
    addressed: ClassVar[bool] = True
    #: `get_many_meta` costs one round trip for many ids.
    supports_native_join = False
    #: Records vanish by themselves after `expires` seconds.
    supports_autoexpire = False
    #: Records outlive the process that wrote them, and anyone may read them, any number of times.
    persistent = True
    supports_result_compression = False
    supports_failure_expires = False
    retry_policy: ClassVar[dict[str, Any]] = RETRY_POLICY
    #: Seconds between two looks of a polling wait.
    subpolling_interval: float | None = None

    def __init__(
        self,
        app: Celery,
        serializer: str | None = None,
        max_cached_results: int | None = None,
        accept: Iterable[str] | None = None,
        expires: float | datetime.timedelta | None = None,
        expires_type: type | None = None,
        url: str | None = None,
        **kwargs: Any,
    ) -> None:
        self.app = app
        conf = app.conf
        self.url = url
        self.options = kwargs
        self.serializer: str = serializer or conf.result_serializer
        self.content_type, self.content_encoding = serializers.content_of(self.serializer)
        allowed = accept or conf.result_accept_content or conf.accept_content
        self.accept = serializers.resolve_accept(allowed) | {self.content_type}
        self.expires: Any = self.prepare_expires(expires, expires_type)
        self.extended = bool(conf.result_extended)
        self.compression = self.prepare_compression(conf.result_compression)
        #: A value that is plain goes into its record as it is.
        self._own_forms = all(getattr(type(self), name) is getattr(Backend, name) for name in _FORMS)
        self._cache = RecordCache(conf.result_cache_max if max_cached_results is None else max_cached_results)
        self._local = threading.local()
        self._hub: ResultHub | None = None
        self._hub_pid = 0

    # -- values

    def prepare_expires(self, value: Any, type: type | None = None) -> Any:
        """Seconds until a record expires: `value`, else `result_expires`; None or 0 is never."""
        if value is None:
            value = self.app.conf.result_expires
        if isinstance(value, datetime.timedelta):
            value = value.total_seconds()
        return type(value) if value is not None and type is not None else value

    def prepare_compression(self, compression: str | None) -> str | None:
        """The content type of a method; None for none, and where records are not compressed. Raises KeyError."""
        return content_type_of(compression) if compression and self.supports_result_compression else None

    def prepare_persistent(self, enabled: bool | None = None) -> bool:
        """Whether records outlive the server: `enabled`, else `result_persistent`, else what is usual here."""
        if enabled is None:
            enabled = self.app.conf.result_persistent
        return self.persistent if enabled is None else enabled

    def prepare_value(self, result: Any) -> Any:
        """A value as it is stored: results travel as tuples (wire.md 4.3), but in pickle."""
        # By shape, as results live upstairs; a Decimal has an as_tuple() too.
        is_result = hasattr(result, "as_tuple") and hasattr(result, "forget")
        return result.as_tuple() if is_result and self.serializer != "pickle" else result

    def prepare_exception(self, exc: BaseException, serializer: str | None = None) -> Any:
        """An exception as it is stored: a mapping, or itself for pickle (wire.md 4.2)."""
        return errors.encode_exception(exc, serializer or self.serializer)

    def exception_to_python(self, exc: Any) -> BaseException | None:
        """The other way (API-062). Raises SecurityError for what is no exception class."""
        return None if exc is None else errors.decode_exception(exc)

    def encode_result(self, result: Any, state: str) -> Any:
        """The value of a record: exceptions become data, the rest stays."""
        if state in states.EXCEPTION_STATES and isinstance(result, BaseException):
            return self.prepare_exception(result)
        return self.prepare_value(result)

    def make_record(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None
    ) -> Meta:
        """The record of an attempt (wire.md 4.1), extended where `result_extended` asks for it."""

        def get(name: str) -> Any:
            # Whatever has attributes of a request will do, None too: integrations bring their own kinds.
            return getattr(request, name, None)

        extended = None
        if self.extended and request is not None:
            extended = results.extended_fields(
                get("task"),
                get("args"),
                get("kwargs"),
                worker=get("hostname"),
                retries=get("retries") or 0,
                queue=(get("delivery_info") or {}).get("routing_key"),
                stamped_headers=get("stamped_headers"),
                stamps=get("stamps"),
            )
        return results.make_record(
            task_id,
            self.encode_result(result, state),
            state,
            now=datetime.datetime.now(datetime.UTC),
            traceback=traceback,
            children=self.current_task_children(request),
            group_id=get("group"),
            parent_id=get("parent_id"),
            extended=extended,
            serializer=self.serializer,
        )

    def prepare_write(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None
    ) -> ResultWrite:
        """The record as bytes for `write`. Raises EncodeError when the value cannot be serialized."""
        if state == states.SUCCESS and traceback is None and (write := self.prepare_success(task_id, result, request)):
            return write
        record = self.make_record(task_id, result, state, traceback, request)
        content_type, content_encoding, payload = serializers.dumps(record, self.serializer)
        return ResultWrite(task_id, state, payload, content_type, content_encoding, getattr(request, "reply_to", None))

    def prepare_success(self, task_id: str, result: Any, facts: Any) -> ResultWrite | None:
        """The record of a success, straight to bytes; None: it has another form, or cannot be written. `facts` is a
        request, or what has its `group`, `parent_id`, `children` and `reply_to`.
        """
        if self.serializer != "json" or self.extended:
            return None
        try:
            value, children = result, _NONE_SENT
            if not self._own_forms or type(result) not in results.SCALARS or facts is None or facts.children:
                if type(self).make_record is not Backend.make_record:
                    return None
                value, children = self.encode_result(result, states.SUCCESS), self.current_task_children(facts)
            group_id, parent_id = (None, None) if facts is None else (facts.group, facts.parent_id)
            payload = results.success_json(task_id, value, utc_text(), children, group_id, parent_id)
        except (exceptions.EncodeError, AttributeError, TypeError, ValueError):
            return None
        if not self.addressed:
            return BriefWrite(task_id, states.SUCCESS, payload)  # type: ignore[return-value]  # has all that it has
        return ResultWrite(task_id, states.SUCCESS, payload, reply_to=getattr(facts, "reply_to", None))

    def encode(self, data: Any) -> Any:
        """Serialize (and compress, where configured). Bytes; text where it is for a store of a third party."""
        if self.compression:
            return compress_payload(serializers.dumps(data, self.serializer)[2], self.compression)
        return serializers.dumps(data, self.serializer)[2] if self.async_writer else self._encode(data)[2]

    def _encode(self, data: Any) -> tuple[str, str, str | bytes]:
        """Content type, encoding and payload, text where it is; for columns of a database (django-celery-results)."""
        content_type, encoding, payload = serializers.dumps(data, self.serializer)
        return content_type, encoding, payload.decode() if encoding == "utf-8" else payload

    def decode(self, payload: bytes | str) -> Any:
        """The other way. Whatever compression a payload says it has is undone."""
        raw = payload.encode() if isinstance(payload, str) else bytes(payload)
        return serializers.loads(decompress_payload(raw), self.content_type, self.content_encoding, self.accept)

    def decode_result(self, payload: bytes | str) -> Meta:
        """A stored record, with its exception restored."""
        return self.meta_from_decoded(self.decode(payload))

    def meta_from_decoded(self, meta: Meta) -> Meta:
        """Restore the exception inside a decoded record."""
        if meta.get("status") in states.EXCEPTION_STATES:
            meta["result"] = self.exception_to_python(meta["result"])
        return meta

    def current_task_children(self, request: Any = None) -> list[Any] | None:
        """The result tuples of the tasks that `request` has sent (wire.md 4.3)."""
        if request is None:
            return None
        children = getattr(request, "children", None)
        return [child.as_tuple() for child in children] if children else []

    # -- storing (blocking; the child's way, and everybody's outside a worker)

    def store_result(
        self,
        task_id: str,
        result: Any,
        state: str,
        traceback: str | None = None,
        request: Any = None,
        **kwargs: Any,
    ) -> Any:
        """Store a state and its value, now. Returns the value as stored."""
        encoded = self.encode_result(result, state)
        self._store_result(task_id, encoded, state, traceback, request=request, **kwargs)
        return encoded

    def mark_as_started(self, task_id: str, **meta: Any) -> Any:
        """Store STARTED with `pid` and `hostname` (API-070)."""
        return self.store_result(task_id, meta, states.STARTED)

    def mark_as_done(
        self, task_id: str, result: Any, request: Any = None, store_result: bool = True, state: str = states.SUCCESS
    ) -> None:
        """Store a success, and tell the chord that counts it."""
        if store_result:
            self.store_result(task_id, result, state, request=request)
        self._count(request, state, result)

    def mark_as_failure(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        call_errbacks: bool = True,  # noqa: ARG002 - in Celery's signature; callbacks follow an Outcome here
        state: str = states.FAILURE,
    ) -> None:
        """Store a failure, and tell the chord. Error callbacks are sent by whoever settles the attempt."""
        if store_result:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)
        self._count(request, state, exc)

    def fail_from_current_stack(self, task_id: str, exc: BaseException | None = None) -> Any:
        """Store a failure by the exception that is being handled, or by `exc`. Returns its ExceptionInfo."""
        error = exc or sys.exception()
        if error is None:
            raise RuntimeError("fail_from_current_stack() stores the exception that is being handled; there is none")
        einfo = self.app._load("celery.app.einfo:ExceptionInfo")(error)
        self.mark_as_failure(task_id, error, einfo.traceback)
        return einfo

    def mark_as_revoked(
        self,
        task_id: str,
        reason: str = "",
        request: Any = None,
        store_result: bool = True,
        state: str = states.REVOKED,
    ) -> None:
        """Store REVOKED with TaskRevokedError(reason), and tell the chord."""
        error = TaskRevokedError(reason)
        if store_result:
            self.store_result(task_id, error, state, request=request)
        self._count(request, state, error)

    def mark_as_retry(
        self,
        task_id: str,
        exc: BaseException,
        traceback: str | None = None,
        request: Any = None,
        store_result: bool = True,
        state: str = states.RETRY,
    ) -> None:
        """Store RETRY with the exception that caused it."""
        if store_result:
            self.store_result(task_id, exc, state, traceback=traceback, request=request)

    def _count(self, request: Any, state: str, result: Any) -> None:
        if request is not None and getattr(request, "chord", None):
            self.on_chord_part_return(request, state, result)

    # -- storing (async; the worker's main process)

    async def open_writer(self) -> None:
        """Connect for `write`. Only where `async_writer`. Raises OperationalError."""

    async def write(self, batch: Sequence[ResultWrite]) -> None:
        """Store many records. Raises OperationalError when it is not known to be done; writing again is safe."""
        raise NotImplementedError(f"{type(self).__name__} stores through store_result (async_writer is false)")

    async def close_writer(self) -> None:
        """Disconnect. Idempotent."""

    # -- reading

    def get_task_meta(self, task_id: str, cache: bool = True) -> Meta:
        """The record of a task; PENDING for an unknown id.

        Raises:
            OperationalError: the store cannot be reached.
        """
        self._ensure_not_eager()
        if cache and (known := self._cache.get(task_id)) is not None:
            return known
        meta = self._get_task_meta_for(task_id)
        if meta.get("status") == states.SUCCESS:
            self._cache.put(task_id, meta)
        return meta

    def get_many_meta(self, task_ids: Sequence[str]) -> list[Meta]:
        """The records of many tasks, in order."""
        return [self._get_task_meta_for(task_id) for task_id in task_ids]

    def get_state(self, task_id: str) -> str:
        """The state of a task."""
        return str(self.get_task_meta(task_id)["status"])

    get_status = get_state

    def get_traceback(self, task_id: str) -> str | None:
        """The remote traceback of a failed task."""
        return self.get_task_meta(task_id).get("traceback")

    def get_result(self, task_id: str) -> Any:
        """The value, or the exception, of a task."""
        return self.get_task_meta(task_id).get("result")

    def get_children(self, task_id: str) -> Any:
        """The result tuples of the tasks that this one sent."""
        return self.get_task_meta(task_id).get("children")

    def reload_task_result(self, task_id: str) -> None:
        """Read the record anew into the cache."""
        self._cache.put(task_id, self.get_task_meta(task_id, cache=False))

    def task_result_exists(self, task_id: str) -> bool:
        """Whether anything is stored for the id."""
        return bool(self._get_task_meta_for(task_id)["status"] != states.PENDING)

    def is_cached(self, task_id: str) -> bool:
        """Whether the record is in this process's cache (`result_cache_max`)."""
        return self._cache.get(task_id) is not None

    def forget(self, task_id: str) -> None:
        """Delete the record."""
        self._cache.drop(task_id)
        self._forget(task_id)

    def _ensure_not_eager(self) -> None:
        conf = self.app.conf
        if conf.task_always_eager and not conf.task_store_eager_result:
            import warnings

            warnings.warn(
                "task_always_eager is on and task_store_eager_result is off: results of eager tasks are not stored, "
                "so there is nothing to read from the result backend.",
                RuntimeWarning,
                stacklevel=3,
            )

    # -- waiting

    def make_watcher(self) -> Watcher:
        """A new watcher (`celery.backends.asynchronous`); polls unless the driver knows better."""
        return PollingWatcher(self, self.subpolling_interval or 0.5)

    @property
    def hub(self) -> ResultHub:
        """Where coroutines of this process wait."""
        # The thread of an inherited hub was not forked with us.
        if self._hub is None or self._hub_pid != os.getpid():
            self._hub, self._hub_pid = ResultHub(self.make_watcher), os.getpid()
        return self._hub

    def wait_for_many(
        self,
        task_ids: Iterable[str],
        timeout: float | None = None,
        interval: float = 0.5,
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Meta], Any] | None = None,
    ) -> Iterator[Meta]:
        """Final records in the order of their arrival, until all have come.

        Args:
            task_ids: the tasks.
            timeout: seconds for the whole wait, None for no bound.
            interval: seconds between two calls of `on_interval`.
            on_interval: called while waiting.
            on_message: called with every record, intermediate states included.

        Raises:
            TimeoutError: not all came in time.
            OperationalError: the store cannot be reached.
        """
        waiting = set(task_ids)
        deadline = None if timeout is None else time.monotonic() + timeout
        watcher = self._watcher_of_this_thread()
        watcher.add(waiting)
        try:
            while waiting:
                left = interval if deadline is None else max(0.0, min(interval, deadline - time.monotonic()))
                for meta in watcher.drain(left):
                    if meta["task_id"] not in waiting:
                        continue
                    if on_message is not None:
                        on_message(meta)
                    if meta["status"] in states.READY_STATES:
                        waiting.discard(meta["task_id"])
                        yield meta
                if waiting and deadline is not None and time.monotonic() >= deadline:
                    raise TimeoutError(f"The operation timed out.{watcher.excuse()}")
                if waiting and on_interval is not None:
                    on_interval()
        finally:
            watcher.discard(task_ids)

    def wait_for(
        self,
        task_id: str,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002 - in Celery's signature, without a meaning for stores
        on_interval: Callable[[], Any] | None = None,
        on_message: Callable[[Meta], Any] | None = None,
    ) -> Meta:
        """The final record of one task. See `wait_for_many`."""
        return next(self.wait_for_many([task_id], timeout, interval, on_interval, on_message))

    def _watcher_of_this_thread(self) -> Watcher:
        local = self._local
        # A watcher holds a connection: a forked process must not read from its parent's.
        if getattr(local, "pid", None) != os.getpid():
            local.watcher, local.pid = self.make_watcher(), os.getpid()
        watcher: Watcher = local.watcher
        return watcher

    def on_task_call(self, producer: Any, task_id: str) -> None:
        """A task is about to be sent: what has to exist before its result can arrive is made here."""

    @property
    def reply_to(self) -> str | None:
        """The queue where results of tasks sent by this process should go (rpc); None: they are looked up."""
        return None

    # -- groups

    def get_group_meta(self, group_id: str, cache: bool = True) -> Meta | None:
        """The stored group, or None."""
        if cache and (known := self._cache.get(group_id)) is not None:
            return known
        meta = self._restore_group(group_id)
        if meta is not None:
            self._cache.put(group_id, meta)
        return meta

    def restore_group(self, group_id: str, cache: bool = True) -> Any:
        """The GroupResult saved under the id, or None."""
        meta = self.get_group_meta(group_id, cache=cache)
        return None if meta is None else meta["result"]

    def reload_group_result(self, group_id: str) -> None:
        """Read a group anew into the cache."""
        self.get_group_meta(group_id, cache=False)

    def save_group(self, group_id: str, result: Any) -> Any:
        """Store a GroupResult."""
        self._save_group(group_id, result)
        return result

    def delete_group(self, group_id: str) -> None:
        """Delete a stored group."""
        self._cache.drop(group_id)
        self._delete_group(group_id)

    # -- upkeep

    def cleanup(self) -> None:
        """Delete expired records (for stores without expiry of their own)."""

    def process_cleanup(self) -> None:
        """Called in a child after each task that settled there."""

    def close(self) -> None:
        """Give up what this thread and the coroutines of this process hold open. Other threads' goes with them.

        Coroutines that still wait get OperationalError. Idempotent; a later use opens anew. Drivers close their own
        connections and call this.
        """
        pid, local = os.getpid(), self._local
        if getattr(local, "pid", None) == pid:
            local.pid = None
            local.watcher.close()
            del local.watcher
        hub, self._hub = self._hub, None
        if hub is not None and self._hub_pid == pid:
            hub.close()

    def as_uri(self, include_password: bool = False) -> str:
        """The URL, for people: with the password masked unless asked."""
        url = self.url or ""
        return url if include_password else mask(url)

    def exception_safe_to_retry(self, exc: BaseException) -> bool:  # noqa: ARG002 - a hook
        """Whether an error of the store may go away by trying again (`result_backend_always_retry`)."""
        return False

    def on_backend_retryable_error(self, exc: BaseException) -> None:
        """Called before such an error is retried."""

    # -- what a driver gives

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **kwargs: Any
    ) -> Any:
        raise NotImplementedError(f"{type(self).__name__} does not say how to store a result (_store_result)")

    def _get_task_meta_for(self, task_id: str) -> Meta:
        raise NotImplementedError(f"{type(self).__name__} does not say how to read a result (_get_task_meta_for)")

    def _forget(self, task_id: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} cannot forget results")

    def _save_group(self, group_id: str, result: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} cannot save groups")

    def _restore_group(self, group_id: str) -> Meta | None:
        raise NotImplementedError(f"{type(self).__name__} cannot restore groups")

    def _delete_group(self, group_id: str) -> None:
        raise NotImplementedError(f"{type(self).__name__} cannot delete groups")


class BaseBackend(Backend, SyncBackendMixin):
    """What a backend of one's own derives from."""


#: Its old name; django-celery-results derives from it.
BaseDictBackend = BaseBackend


class BaseKeyValueStoreBackend(KeyForm, CountingHooks, Backend):
    """A backend over keys and values: a driver gives `get`, `mget`, `set`, `delete` (and `incr`, `expire`).

    Keys and values have the form that `celery.backends.thirdparty` says.
    """

    implements_incr = False

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.form_keys((self.app.conf.result_backend_transport_options or {}).get("global_keyprefix", ""))

    def get(self, key: Any) -> Any:
        """The value, or None."""
        raise NotImplementedError("Must implement the get method.")

    def mget(self, keys: Sequence[Any]) -> Sequence[Any] | Mapping[Any, Any]:
        """The values in order, None where there is none; or those that there are, by key."""
        return [self.get(key) for key in keys]

    def set(self, key: Any, value: Any) -> Any:
        """Store a value, with the backend's expiry."""
        raise NotImplementedError("Must implement the set method.")

    def delete(self, key: Any) -> Any:
        """Delete a key; no error when there is none."""
        raise NotImplementedError("Must implement the delete method.")

    def incr(self, key: Any) -> int:
        """Add one, atomically; the new value."""
        raise NotImplementedError("Does not implement incr")

    def expire(self, key: Any, value: float) -> Any:
        """Let a key vanish after `value` seconds."""
        raise NotImplementedError("Does not implement expire")

    def get_many_meta(self, task_ids: Sequence[str]) -> list[Meta]:
        keys = [self.get_key_for_task(task_id) for task_id in task_ids]
        payloads = self.mget(keys) if keys else []
        if isinstance(payloads, Mapping):
            payloads = [payloads.get(key) for key in keys]
        return [self._meta_of(task_id, payload) for task_id, payload in zip(task_ids, payloads, strict=True)]

    def task_result_exists(self, task_id: str) -> bool:
        return bool(self.get(self.get_key_for_task(task_id)))

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        key = self.get_key_for_task(task_id)
        stored = self._meta_of(task_id, self.get(key))
        if states.may_follow(stored["status"], state):
            self._set_with_state(key, self.encode(self.make_record(task_id, result, state, traceback, request)), state)
        return result

    def _set_with_state(self, key: Any, value: Any, state: str) -> None:  # noqa: ARG002 - for stores where failures expire apart
        self.set(key, value)

    def _get_task_meta_for(self, task_id: str) -> Meta:
        return self._meta_of(task_id, self.get(self.get_key_for_task(task_id)))

    def _meta_of(self, task_id: str, payload: Any) -> Meta:
        if not payload:
            return {"status": states.PENDING, "result": None, "task_id": task_id}
        return self.decode_result(payload)

    def _forget(self, task_id: str) -> None:
        self.delete(self.get_key_for_task(task_id))

    def _save_group(self, group_id: str, result: Any) -> Any:
        self._set_with_state(
            self.get_key_for_group(group_id), self.encode({"result": result.as_tuple()}), states.SUCCESS
        )
        return result

    def _restore_group(self, group_id: str) -> Meta | None:
        payload = self.get(self.get_key_for_group(group_id))
        if not payload:
            return None
        meta: Meta = self.decode(payload)
        meta["result"] = self.app.result_from_tuple(meta["result"])
        return meta

    def _delete_group(self, group_id: str) -> None:
        self.delete(self.get_key_for_group(group_id))


class KeyValueStoreBackend(BaseKeyValueStoreBackend, SyncBackendMixin):
    """What a backend over keys and values derives from."""


class DisabledBackend(BaseBackend):
    """What an application with a broker and without a backend has."""

    async_writer = True
    persistent = False

    async def write(self, batch: Sequence[ResultWrite]) -> None:
        """Results go nowhere, by configuration."""

    def store_result(self, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002 - nothing is stored
        """Results go nowhere, by configuration."""
        return None

    def ensure_chords_allowed(self) -> None:
        raise NotImplementedError("Starting chords requires a result backend to be configured.")

    def as_uri(self, include_password: bool = False) -> str:  # noqa: ARG002 - there is none
        return "disabled://"

    def _is_disabled(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(DISABLED)

    get_task_meta = get_task_meta_for = get_many_meta = get_many = _is_disabled
    wait_for = wait_for_many = make_watcher = _is_disabled
    get_state = get_status = get_result = get_traceback = get_children = _is_disabled


def require(module: str, extra: str, wanted_by: str) -> ImproperlyConfigured:
    """The error for a missing optional library: names it and the extra that brings it."""
    return ImproperlyConfigured(f"{wanted_by} needs {module}: pip install 'celeriac[{extra}]'")


def unpickle_backend(cls: type[Backend], args: Sequence[Any], kwargs: dict[str, Any]) -> None:
    """The backend inside a result that Celery 5.7 pickled: none, so that the result asks its application's."""


def __getattr__(name: str) -> Any:
    """`get_current_task`, which django-celery-results imports from here; it lives upstairs."""
    if name == "get_current_task":
        return symbol_by_name("celery._state:get_current_task")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
