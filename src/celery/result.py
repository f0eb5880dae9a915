"""Results: what a caller holds while, and after, a task runs (API-052..060).

Rules
    1. A result is an id and where to look it up; it holds nothing else until a *final* record (of a task that is
       ready) was seen, which it keeps.
    2. Waiting is the backend's: `wait_for_many` for threads, `hub` for coroutines. Nothing polls here.
    3. A wait inside a task may wait for a task that has no place to run: it is refused unless allowed.
    4. Callbacks of `then` run when this object learns the final record, in whoever's call that happens.

`AsyncResult` is one task, `ResultSet` many in order, `GroupResult` a set with an id that can be saved, `EagerResult`
the outcome of a task that ran in place. This file is long because they are one page of documentation and lean on each
other; records, and the form in which results travel, live in `celery.wire.results`.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from celery import _state, states
from celery.exceptions import (
    ImproperlyConfigured,
    IncompleteStream,
    TaskRevokedError,
    TimeoutError,  # noqa: A004: the documented name
)
from celery.local import try_import
from celery.utils.graph import DependencyGraph
from celery.wire.results import ResultNode, read_tuple

if TYPE_CHECKING:
    from celery.app.base import Celery
    from celery.backends.asynchronous import Meta
    from celery.backends.base import Backend

__all__ = ("AsyncResult", "EagerResult", "GroupResult", "ResultBase", "ResultSet", "result_from_tuple")

R = TypeVar("R")

#: Called with (task id, value).
Callback = Callable[[str, Any], Any]


def assert_will_not_block() -> None:
    """Refuse to wait inside a task (rule 3). Raises RuntimeError."""
    if _state.task_join_will_block():
        raise RuntimeError(
            "Never call result.get() within a task! The task waited for may have no process left to run in. "
            "Link the tasks in a chain or chord; or, if you know better, wait within allow_join_result()."
        )


@contextmanager
def allow_join_result() -> Generator[None]:
    """Allow waiting for results inside a task."""
    token = _state.set_join_denied(False)
    try:
        yield
    finally:
        _state.reset_join_denied(token)


@contextmanager
def denied_join_result() -> Generator[None]:
    """Refuse waiting for results."""
    token = _state.set_join_denied(True)
    try:
        yield
    finally:
        _state.reset_join_denied(token)


class _Listeners:
    """Callbacks of `then`: called once, when what they wait for is ready (rule 4)."""

    __slots__ = ("_done", "_waiting")

    def __init__(self) -> None:
        self._waiting: list[tuple[Callable[[Any], Any], Callable[[BaseException], Any] | None]] = []
        self._done = False

    def add(self, callback: Callable[[Any], Any], on_error: Callable[[BaseException], Any] | None, result: Any) -> None:
        self._waiting.append((callback, on_error))
        if self._done:
            self.tell(result)

    def tell(self, result: Any) -> None:
        self._done = True
        waiting, self._waiting = self._waiting, []
        for callback, on_error in waiting:
            try:
                callback(result)
            except Exception as exc:
                if on_error is None:
                    raise
                on_error(exc)


class ResultBase:
    """Base of all results."""

    #: The result of the task that came before, in a chain.
    parent: ResultBase | None = None

    def as_tuple(self) -> Any:
        """How it travels (wire.md 4.3)."""
        raise NotImplementedError(f"{type(self).__name__} has no id to travel by")


class AsyncResult(ResultBase, Generic[R]):
    """The result of one task.

    Args:
        id: the task's id.
        backend: where its record is; default the application's backend.
        task_name: the task's name.
        app: the application; default the current one.
        parent: the result of the task before it, in a chain.

    Raises:
        ValueError: the id is None.
    """

    app: Any = None
    TimeoutError = TimeoutError

    def __init__(
        self,
        id: str,
        backend: Backend | None = None,
        task_name: str | None = None,
        app: Celery | None = None,
        parent: ResultBase | None = None,
    ) -> None:
        if id is None:
            raise ValueError(f"{type(self).__name__} requires the id of a task, not None.")
        self.id = id
        self.app = app or self.app or _state.get_current_app()
        self._backend = backend
        self._name = task_name
        self.parent = parent
        self._ignored = False
        self._record: Meta | None = None
        self._listeners: _Listeners | None = None

    # -- identity

    @property
    def task_id(self) -> str:
        """The task's id."""
        return self.id

    @task_id.setter
    def task_id(self, id: str) -> None:
        self.id = id

    @property
    def backend(self) -> Backend:
        """Where the record is."""
        return self._backend or cast("Backend", self.app.backend)

    @backend.setter
    def backend(self, backend: Backend | None) -> None:
        self._backend = backend

    @property
    def ignored(self) -> bool:
        """Whether the call asked for no result: waiting for it gives None at once."""
        return self._ignored

    @ignored.setter
    def ignored(self, value: bool) -> None:
        self._ignored = value

    def as_tuple(self) -> tuple[tuple[str, Any], None]:
        """((id, parent tuple or None), None)."""
        return (self.id, self.parent and self.parent.as_tuple()), None

    def as_list(self) -> list[str]:
        """Its id and those of its parents."""
        parent = self.parent
        return [self.id, *(parent.as_list() if isinstance(parent, AsyncResult) else ())]

    def __str__(self) -> str:
        return str(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id}>"

    def __hash__(self) -> int:
        return hash(self.id)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, AsyncResult):
            return bool(other.id == self.id)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __copy__(self) -> AsyncResult[R]:
        return type(self)(self.id, self._backend, self._name, self.app, self.parent)

    def __reduce__(self) -> tuple[Any, ...]:
        return _importable(type(self)), (self.id, None, self._name, None, self.parent)

    # -- waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        no_ack: bool = True,
        follow_parents: bool = True,
        callback: Callback | None = None,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
        EXCEPTION_STATES: frozenset[str] = states.EXCEPTION_STATES,  # noqa: ARG002, N803: in Celery's signature
        PROPAGATE_STATES: frozenset[str] = states.PROPAGATE_STATES,  # noqa: N803: in Celery's signature
    ) -> R:
        """Wait for the task, and give its value (API-053).

        Args:
            timeout: seconds to wait; None waits for ever, 0 looks once.
            propagate: raise the task's exception; False returns it.
            interval: seconds between two calls of `on_interval`.
            no_ack: has no meaning here.
            follow_parents: raise what a parent raised, as this task will then never run.
            callback: called with (id, value).
            on_message: called with every record, intermediate states included.
            on_interval: called while waiting.
            disable_sync_subtasks: refuse to wait inside a task.
            EXCEPTION_STATES: has no meaning here.
            PROPAGATE_STATES: states whose value is raised.

        Raises:
            TimeoutError: the task was not ready in time.
            RuntimeError: called inside a task.
            OperationalError: the store cannot be reached.
        """
        if self.ignored:
            return cast(R, None)
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._record is None:
            follow = self._raise_parent_error if propagate and follow_parents and self.parent is not None else None
            if follow is not None:
                follow()
            waiting = _both(follow, on_interval)
            self._learn(self.backend.wait_for(self.id, timeout, interval, no_ack, waiting, on_message))
        return self._conclude(propagate, callback, PROPAGATE_STATES)

    wait = get

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        follow_parents: bool = True,
        callback: Callback | None = None,
        on_message: Callable[[Meta], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> R:
        """`get` for coroutines: the loop is not blocked."""
        if self.ignored:
            return cast(R, None)
        if disable_sync_subtasks:
            assert_will_not_block()
        if self._record is None and propagate and follow_parents and self.parent is not None:
            await _in_thread(self._raise_parent_error)
        if self._record is None:
            await self._await_record(timeout, on_message)
        return self._conclude(propagate, callback)

    async def _await_record(self, timeout: float | None, on_message: Callable[[Meta], Any] | None = None) -> None:
        if timeout is not None and timeout <= 0:
            await _in_thread(self._meta)
        else:
            meta = await self.backend.hub.wait(self.id, timeout, on_message)
            if meta is not None:
                self._learn(meta)
        if self._record is None:
            raise TimeoutError(f"Task {self.id} was not ready within {timeout} s.")

    def _raise_parent_error(self) -> None:
        for node in reversed(list(self._parents())):
            node.maybe_throw()

    def _parents(self) -> Iterator[Any]:
        node = self.parent
        while node is not None:
            yield node
            node = node.parent

    def _conclude(
        self, propagate: bool, callback: Callback | None, raised: frozenset[str] = states.PROPAGATE_STATES
    ) -> R:
        """The value of a known record, or its exception raised."""
        meta = self._meta()
        value = meta["result"]
        if propagate and meta["status"] in raised:
            self._raise(value, meta.get("traceback"))
        if callback is not None:
            callback(self.id, value)
        return cast(R, value)

    def _raise(self, exc: Any, traceback: str | None) -> None:
        error = exc if isinstance(exc, BaseException) else Exception(exc)
        tblib = try_import("tblib") if traceback and self.app.conf.task_remote_tracebacks else None
        if tblib is not None:
            raise error.with_traceback(tblib.Traceback.from_string(traceback).as_traceback())
        raise error

    def maybe_throw(self, propagate: bool = True, callback: Callback | None = None) -> Any:
        """Raise the task's exception if it failed; else its value as far as it is known."""
        return self._conclude(propagate, callback)

    maybe_reraise = maybe_throw

    def throw(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002: in Celery's signature
        """Raise an exception in the name of the task."""
        self._raise(args[0] if args else self.result, None)

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[BaseException], Any] | None = None,
        weak: bool = False,  # noqa: ARG002: in Celery's signature
    ) -> AsyncResult[R]:
        """Call `callback(self)` once this object learns that the task is ready (rule 4); returns itself.

        Args:
            callback: called with this result.
            on_error: called with what the callback raises.
            weak: has no meaning here.
        """
        if self._listeners is None:
            self._listeners = _Listeners()
        self._listeners.add(callback, on_error, self)
        if self._record is not None:
            self._listeners.tell(self)
        return self

    # -- what is known

    def _meta(self) -> Meta:
        """The record: the final one if it was seen, else what the store has now."""
        if self._record is None:
            meta = self.backend.get_task_meta(self.id)
            if meta["status"] not in states.READY_STATES:
                return meta
            self._learn(meta)
        assert self._record is not None
        return self._record

    def _learn(self, meta: Meta) -> None:
        self._record = meta
        if self._listeners is not None:
            self._listeners.tell(self)

    def _field(self, name: str) -> Any:
        return self._meta().get(name)

    @property
    def state(self) -> str:
        """The task's state (API-069); PENDING for an id that nobody knows."""
        return str(self._meta()["status"])

    status = state

    @property
    def result(self) -> Any:
        """The value, or the exception, or the meta of a custom state."""
        return self._meta()["result"]

    info = result

    @property
    def traceback(self) -> str | None:
        """The remote traceback of a task that failed."""
        return cast("str | None", self._field("traceback"))

    @property
    def children(self) -> list[Any] | None:
        """Results of the tasks that this one sent; None while that is not known."""
        found = self._field("children")
        return [result_from_tuple(child, self.app) for child in found] if found else found

    @property
    def name(self) -> str | None:
        """The task's name, if known here or stored (result_extended)."""
        return self._name or self._field("name")

    @property
    def args(self) -> Any:
        """Its positional arguments (result_extended)."""
        return self._field("args")

    @property
    def kwargs(self) -> Any:
        """Its keyword arguments (result_extended)."""
        return self._field("kwargs")

    @property
    def worker(self) -> str | None:
        """The node that ran it (result_extended)."""
        return cast("str | None", self._field("worker"))

    @property
    def retries(self) -> int | None:
        """How often it was retried (result_extended)."""
        return cast("int | None", self._field("retries"))

    @property
    def queue(self) -> str | None:
        """The routing key it came by (result_extended)."""
        return cast("str | None", self._field("queue"))

    @property
    def date_done(self) -> datetime.datetime | None:
        """When it became ready, aware."""
        moment = self._field("date_done")
        return datetime.datetime.fromisoformat(moment) if isinstance(moment, str) else moment

    @property
    def supports_native_join(self) -> bool:
        """Whether the backend waits for many at the cost of one."""
        return bool(self.backend.supports_native_join)

    def ready(self) -> bool:
        """Whether it is over: SUCCESS, FAILURE or REVOKED."""
        return self.state in states.READY_STATES

    def successful(self) -> bool:
        """Whether it succeeded."""
        return self.state == states.SUCCESS

    def failed(self) -> bool:
        """Whether it failed."""
        return self.state == states.FAILURE

    def exists(self) -> bool:
        """Whether the store knows the id at all."""
        return self._record is not None or self.backend.task_result_exists(self.id)

    async def astate(self) -> str:
        """`state` for coroutines."""
        return str((await _in_thread(self._meta))["status"])

    async def aready(self) -> bool:
        """`ready` for coroutines."""
        return await self.astate() in states.READY_STATES

    async def asuccessful(self) -> bool:
        """`successful` for coroutines."""
        return await self.astate() == states.SUCCESS

    async def afailed(self) -> bool:
        """`failed` for coroutines."""
        return await self.astate() == states.FAILURE

    # -- acting on it

    def forget(self) -> None:
        """Delete the record, and those of its parents."""
        self._record = None
        if isinstance(self.parent, (AsyncResult, ResultSet)):
            self.parent.forget()
        self.backend.forget(self.id)

    async def aforget(self) -> None:
        """`forget` for coroutines."""
        await _in_thread(self.forget)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers to drop the task.

        Args:
            connection: kombu's, to use instead of the application's.
            terminate: kill the process that runs it, if it runs.
            signal: by this signal, default TERM.
            wait: for the workers' replies.
            timeout: seconds to wait for them.
        """
        self.app.control.revoke(
            self.id, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    async def arevoke(self, terminate: bool = False, signal: str | None = None) -> None:
        """`revoke` for coroutines."""
        await _in_thread(lambda: self.revoke(terminate=terminate, signal=signal))

    def revoke_by_stamped_headers(
        self,
        headers: dict[str, Any],
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers to drop every task that has one of these stamps. See `revoke`."""
        self.app.control.revoke_by_stamped_headers(
            headers, connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout
        )

    # -- the tasks that it sent

    def iterdeps(self, intermediate: bool = False) -> Iterator[tuple[Any, Any]]:
        """(parent, result) of this and all that came of it, breadth first (API-055).

        Args:
            intermediate: pass over tasks that are not ready instead of raising.

        Raises:
            IncompleteStream: a task is not ready, so what it will send is not known.
        """
        waiting: list[tuple[Any, Any]] = [(None, self)]
        for parent, node in waiting:
            yield parent, node
            if node.ready():
                waiting.extend((node, child) for child in node.children or ())
            elif not intermediate:
                raise IncompleteStream(f"{node!r} is not ready, so the tasks that it sends are not known yet.")

    def collect(self, intermediate: bool = False, **kwargs: Any) -> Iterator[tuple[Any, Any]]:
        """(result, value) of this and all that came of it, waiting for each. `kwargs` as of `get`."""
        for _, node in self.iterdeps(intermediate=intermediate):
            yield node, node.get(**kwargs)

    def get_leaf(self) -> Any:
        """The value of the last task that came of this one."""
        value = None
        for _, node in self.iterdeps():
            value = node.get()
        return value

    def build_graph(self, intermediate: bool = False, formatter: Any = None) -> DependencyGraph:
        """Who sent whom, as a graph. Raises IncompleteStream, as `iterdeps`."""
        graph = DependencyGraph(formatter=formatter)
        for parent, node in self.iterdeps(intermediate=intermediate):
            graph.add_arc(node)
            if parent is not None:
                graph.add_edge(parent, node)
        return graph

    @property
    def graph(self) -> DependencyGraph:
        """`build_graph` of what is known."""
        return self.build_graph(intermediate=True)


class ResultSet(ResultBase, Generic[R]):
    """Many results, in order, each once.

    Args:
        results: the results.
        app: the application; default that of the first result.
        ready_barrier: has no meaning here.
        kwargs: have no meaning here.
    """

    _app: Any = None

    def __init__(
        self,
        results: Iterable[Any],
        app: Celery | None = None,
        ready_barrier: Any = None,  # noqa: ARG002: in Celery's signature
        **kwargs: Any,  # noqa: ARG002: in Celery's signature
    ) -> None:
        if app is not None:
            self._app = app
        self.results: list[Any] = list(results)
        self._listeners: _Listeners | None = None

    @property
    def app(self) -> Any:
        """The application."""
        if self._app is None:
            self._app = self.results[0].app if self.results else _state.get_current_app()
        return self._app

    @app.setter
    def app(self, app: Celery) -> None:
        self._app = app

    @property
    def backend(self) -> Backend:
        """Where the records are."""
        return cast("Backend", self.results[0].backend if self.results else self.app.backend)

    @property
    def supports_native_join(self) -> bool:
        """Whether the backend waits for many at the cost of one."""
        return bool(self.results and self.results[0].supports_native_join)

    # -- as a collection

    def add(self, result: Any) -> None:
        """Add a result at the end, unless it is in the set."""
        if result not in self.results:
            self.results.append(result)

    def remove(self, result: Any) -> None:
        """Take out a result, or the one with this id. Raises KeyError when it is not in the set."""
        if result not in self.results:
            raise KeyError(result)
        self.results.remove(result)

    def discard(self, result: Any) -> None:
        """Take out a result, if it is in the set."""
        if result in self.results:
            self.results.remove(result)

    def update(self, results: Iterable[Any]) -> None:
        """Add results that are not in the set."""
        for result in results:
            self.add(result)

    def clear(self) -> None:
        """Take out all."""
        self.results.clear()

    def __iter__(self) -> Iterator[Any]:
        return iter(self.results)

    def __getitem__(self, index: int) -> Any:
        return self.results[index]

    def __len__(self) -> int:
        return len(self.results)

    def __eq__(self, other: object) -> bool:
        return other.results == self.results if isinstance(other, ResultSet) else NotImplemented

    __hash__ = None  # type: ignore[assignment]  # it changes

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: [{', '.join(r.id for r in self.results)}]>"

    # -- what is known

    def successful(self) -> bool:
        """Whether all succeeded."""
        return all(result.successful() for result in self.results)

    def failed(self) -> bool:
        """Whether any failed."""
        return any(result.failed() for result in self.results)

    def waiting(self) -> bool:
        """Whether any is not ready."""
        return any(not result.ready() for result in self.results)

    def ready(self) -> bool:
        """Whether all are ready."""
        return all(result.ready() for result in self.results)

    def completed_count(self) -> int:
        """How many succeeded."""
        return sum(result.successful() for result in self.results)

    async def aready(self) -> bool:
        """`ready` for coroutines."""
        return bool(await _in_thread(self.ready))

    def maybe_throw(self, callback: Callback | None = None, propagate: bool = True) -> None:
        """Raise the exception of the first one that failed."""
        for result in self.results:
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[BaseException], Any] | None = None,
        weak: bool = False,  # noqa: ARG002: in Celery's signature
    ) -> ResultSet[R]:
        """Call `callback(self)` once all results have learnt that they are ready; returns itself."""
        if self._listeners is None:
            listeners = self._listeners = _Listeners()
            missing = [len(self.results)]

            def one_ready(_: Any) -> None:
                missing[0] -= 1
                if missing[0] == 0:
                    listeners.tell(self)

            for result in self.results:
                result.then(one_ready)
            if not self.results:
                listeners.tell(self)
        self._listeners.add(callback, on_error, self)
        return self

    # -- waiting

    def get(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callback | None = None,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[R]:
        """Wait for all, and give their values in order: `join_native` where the backend can, else `join`."""
        wait = self.join_native if self.supports_native_join else self.join
        return wait(
            timeout=timeout, propagate=propagate, interval=interval, callback=callback, no_ack=no_ack,
            on_message=on_message, disable_sync_subtasks=disable_sync_subtasks, on_interval=on_interval,
        )  # type: ignore[return-value]  # None only from join_native with a callback  # fmt: skip

    def join(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callback | None = None,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        disable_sync_subtasks: bool = True,
        on_interval: Callable[[], Any] | None = None,
    ) -> list[R]:
        """Wait for one after the other, in order. Arguments as of `AsyncResult.get`.

        Returns:
            The values; an empty list when there is a `callback`, which gets them as (id, value).

        Raises:
            TimeoutError: not all were ready in time.
            ImproperlyConfigured: `on_message` was given, which only `join_native` can serve.
        """
        if disable_sync_subtasks:
            assert_will_not_block()
        if on_message is not None:
            raise ImproperlyConfigured(f"{type(self.backend).__name__} does not support on_message in join().")
        deadline = None if timeout is None else time.monotonic() + timeout
        values = []
        for result in self.results:
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            value = result.get(
                timeout=left, propagate=propagate, interval=interval, no_ack=no_ack, on_interval=on_interval,
                disable_sync_subtasks=disable_sync_subtasks,
            )  # fmt: skip
            if callback is not None:
                callback(result.id, value)
            else:
                values.append(value)
        return values

    def iter_native(
        self,
        timeout: float | None = None,
        interval: float = 0.5,
        no_ack: bool = True,  # noqa: ARG002: in Celery's signature
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """(id, record) in the order in which they become ready; a group's record is the list of its results."""
        unknown: dict[str, AsyncResult[Any]] = {}
        for result in self.results:
            if isinstance(result, ResultSet):
                yield result.id, result.results  # type: ignore[attr-defined]  # a member of a set is a group
            elif result._record is not None:
                yield result.id, result._record
            else:
                unknown[result.id] = result
        if unknown:
            for meta in self.backend.wait_for_many(list(unknown), timeout, interval, on_interval, on_message):
                task_id = meta["task_id"]
                unknown[task_id]._learn(meta)
                yield task_id, meta

    def join_native(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        interval: float = 0.5,
        callback: Callback | None = None,
        no_ack: bool = True,
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R] | None:
        """Wait for all at once. As `join`, but `callback` gets values as they come, and then there is no list."""
        if disable_sync_subtasks:
            assert_will_not_block()
        deadline = None if timeout is None else time.monotonic() + timeout
        values: dict[str, Any] = {}
        for task_id, meta in self.iter_native(timeout, interval, no_ack, on_message, on_interval):
            if isinstance(meta, list):
                left = None if deadline is None else max(0.0, deadline - time.monotonic())
                value: Any = [
                    child.get(left, propagate, disable_sync_subtasks=disable_sync_subtasks) for child in meta
                ]
            else:
                value = meta["result"]
                if propagate and meta["status"] in states.PROPAGATE_STATES:
                    raise value
            if callback is not None:
                callback(task_id, value)
            else:
                values[task_id] = value
        return None if callback is not None else [values[result.id] for result in self.results]

    async def aget(
        self,
        timeout: float | None = None,
        propagate: bool = True,
        callback: Callback | None = None,
        on_message: Callable[[Meta], Any] | None = None,
        disable_sync_subtasks: bool = True,
    ) -> list[R]:
        """Wait for all without blocking the loop; their values in order. The first failure to come is raised."""
        import asyncio

        if disable_sync_subtasks:
            assert_will_not_block()
        waits = [
            asyncio.ensure_future(
                result.aget(
                    timeout, propagate, callback=callback, on_message=on_message,
                    disable_sync_subtasks=disable_sync_subtasks,
                )
            )
            for result in self.results
        ]  # fmt: skip
        try:
            return list(await asyncio.gather(*waits))
        finally:
            for wait in waits:
                wait.cancel()

    async def __aiter__(self) -> AsyncIterator[Any]:
        """The results, each as it becomes ready, without blocking the loop."""
        import asyncio

        assert_will_not_block()
        waits = {asyncio.ensure_future(result._await_record(None)): result for result in self.results}
        try:
            pending = set(waits)
            while pending:
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for wait in done:
                    wait.result()
                    yield waits[wait]
        finally:
            for wait in waits:
                wait.cancel()

    async def _await_record(self, timeout: float | None, on_message: Callable[[Meta], Any] | None = None) -> None:
        await self.aget(timeout, propagate=False, on_message=on_message)

    # -- acting on them

    def forget(self) -> None:
        """Delete the records."""
        for result in self.results:
            result.forget()

    async def aforget(self) -> None:
        """`forget` for coroutines."""
        await _in_thread(self.forget)

    def revoke(
        self,
        connection: Any = None,
        terminate: bool = False,
        signal: str | None = None,
        wait: bool = False,
        timeout: float | None = None,
    ) -> None:
        """Tell all workers to drop the tasks. See `AsyncResult.revoke`."""
        self.app.control.revoke(
            [result.id for result in self.results],
            connection=connection, terminate=terminate, signal=signal, reply=wait, timeout=timeout,
        )  # fmt: skip


class GroupResult(ResultSet[R]):
    """The results of a group, with an id under which they can be saved.

    Args:
        id: the group's id.
        results: its members' results.
        parent: the result of what came before, in a chain.
        kwargs: as of `ResultSet`.
    """

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[Any] | None = None,
        parent: ResultBase | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(results or (), **kwargs)
        # `app.GroupResult` binds the application by a class attribute.
        self.id: Any = id
        self.parent = parent

    def save(self, backend: Backend | None = None) -> Any:
        """Store the ids, for `restore`."""
        return (backend or self.app.backend).save_group(self.id, self)

    def delete(self, backend: Backend | None = None) -> None:
        """Delete what `save` stored."""
        (backend or self.app.backend).delete_group(self.id)

    @classmethod
    def restore(cls, id: str, backend: Backend | None = None, app: Celery | None = None) -> GroupResult[Any] | None:
        """The group saved under an id, or None.

        Args:
            id: the group's id.
            backend: where it was saved; default the application's.
            app: the application; default the current one.
        """
        bound = cls.__dict__.get("app")
        app = app or (None if isinstance(bound, property) else bound) or _state.get_current_app()
        return cast("GroupResult[Any] | None", (backend or app.backend).restore_group(id))

    @property
    def children(self) -> list[Any]:
        """Its members' results."""
        return self.results

    def as_tuple(self) -> Any:
        """((id, parent tuple or None), [tuples of the members])."""
        return (self.id, self.parent and self.parent.as_tuple()), [result.as_tuple() for result in self.results]

    def __bool__(self) -> bool:
        return bool(self.id or self.results)

    def __eq__(self, other: object) -> bool:
        if isinstance(other, GroupResult):
            return bool(other.id == self.id and other.results == self.results and other.parent == self.parent)
        return other == self.id if isinstance(other, str) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.id)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.id} [{', '.join(str(result.id) for result in self.results)}]>"

    def __reduce__(self) -> tuple[Any, ...]:
        return _importable(type(self)), (self.id, self.results, self.parent)


class EagerResult(AsyncResult[R]):
    """The outcome of a task that ran in place (API-058).

    Args:
        id: the task's id.
        ret_value: its value or exception.
        state: its state.
        traceback: of its exception.
        name: the task's name.
    """

    def __init__(
        self, id: str, ret_value: Any, state: str, traceback: str | None = None, name: str | None = None
    ) -> None:
        super().__init__(id, task_name=name)
        self._children: list[Any] | None = None
        self._set(ret_value, state, traceback)

    def _set(self, value: Any, state: str, traceback: str | None = None) -> None:
        self._record = {"task_id": self.id, "status": state, "result": value, "traceback": traceback}

    @property
    def children(self) -> list[Any] | None:
        """Results of the tasks that it sent."""
        return self._children

    @property
    def supports_native_join(self) -> bool:
        """False: there is nothing to join."""
        return False

    def ready(self) -> bool:
        """True: it is over."""
        return True

    def get(  # type: ignore[override]  # Celery's signature has fewer positions
        self,
        timeout: float | None = None,  # noqa: ARG002: in Celery's signature
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        callback: Callback | None = None,
        **kwargs: Any,  # noqa: ARG002: there is nothing to wait for
    ) -> R:
        """The value, or its exception raised. Other arguments of `AsyncResult.get` have no meaning."""
        if disable_sync_subtasks:
            assert_will_not_block()
        return self._conclude(propagate, callback)

    wait = get  # type: ignore[assignment]  # as get

    def forget(self) -> None:
        """Nothing is stored, so nothing is deleted."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002: in Celery's signature
        """It ran already: only the state changes, to REVOKED."""
        self._set(TaskRevokedError("revoked"), states.REVOKED)

    def __copy__(self) -> EagerResult[R]:
        make, args = self.__reduce__()
        return cast("EagerResult[R]", make(*args))

    def __reduce__(self) -> tuple[Any, ...]:
        meta = self._meta()
        return _importable(type(self)), (self.id, meta["result"], meta["status"], meta["traceback"], self._name)


def result_from_tuple(r: Any, app: Celery | None = None) -> Any:
    """A result of its tuple (wire.md 4.3): a GroupResult when it has members, else an AsyncResult.

    Args:
        r: the tuple; a result is taken as it is.
        app: the application; default the current one.

    Raises:
        ValueError: the value has another shape.
    """
    if isinstance(r, ResultBase):
        return r
    return _result_of(read_tuple(r), app or _state.get_current_app())


def _result_of(node: ResultNode, app: Celery) -> Any:
    parent = _result_of(node.parent, app) if node.parent is not None else None
    if node.members is None:
        return app.AsyncResult(node.id, parent=parent)
    return app.GroupResult(node.id, [_result_of(member, app) for member in node.members], parent=parent)


def _importable(cls: type[Any]) -> type[Any]:
    """The class to pickle by: `app.AsyncResult` and its like are made for an application, and no module has them."""
    return next(base for base in cls.__mro__ if getattr(sys.modules.get(base.__module__), base.__name__, None) is base)


def _both(first: Callable[[], Any] | None, second: Callable[[], Any] | None) -> Callable[[], Any] | None:
    if first is None or second is None:
        return first or second

    def call_both() -> None:
        first()
        second()

    return call_both


async def _in_thread(call: Callable[[], Any]) -> Any:
    import asyncio

    return await asyncio.to_thread(call)
