"""The result of one task: AsyncResult, and EagerResult for one that ran in place (API-052..055, API-058).

Rules
    1. A result is an id and where to look it up; it holds nothing else until a *final* record (of a task that is
       ready) was seen, which it keeps.
    2. Waiting is the backend's: `wait_for` for threads, `hub` for coroutines. Nothing polls here. What parents have to
       do with it is in `celery.result.parents`.
    3. Callbacks of `then` run when this object learns the final record, in whoever's call that happens.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, cast, overload

from celery import _state, states
from celery.exceptions import IncompleteStream, TaskRevokedError
from celery.exceptions import TimeoutError as ResultTimeoutError
from celery.local import try_import
from celery.result import parents
from celery.result.waiting import Callback, Listeners, ResultBase, assert_will_not_block, importable, in_thread
from celery.utils.graph import DependencyGraph
from celery.wire.results import ResultNode, read_tuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from celery.app.base import Celery
    from celery.backends.asynchronous import Meta
    from celery.backends.base import Backend

R = TypeVar("R")
T = TypeVar("T")


class _Stored(Generic[T]):
    """A field of the record, as it is stored; None while there is none."""

    def __init__(self, name: str, doc: str) -> None:
        self._name = name
        self.__doc__ = doc

    @overload
    def __get__(self, result: None, cls: type) -> Self: ...
    @overload
    def __get__(self, result: AsyncResult[Any], cls: type) -> T: ...

    def __get__(self, result: AsyncResult[Any] | None, cls: type) -> Any:
        return self if result is None else result._meta().get(self._name)


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

    __module__ = "celery.result"  # where pickles look for it, 5.7's too
    app: Any = None
    TimeoutError = ResultTimeoutError

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
        self._listeners: Listeners | None = None

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
        return importable(type(self)), (self.id, None, self._name, None, self.parent)

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
        EXCEPTION_STATES: frozenset[str] = states.EXCEPTION_STATES,  # noqa: ARG002, N803 - in Celery's signature
        PROPAGATE_STATES: frozenset[str] = states.PROPAGATE_STATES,  # noqa: N803 - in Celery's signature
    ) -> R:
        """Wait for the task, and give its value (API-053).

        Args:
            timeout: seconds to wait; None waits for ever, 0 looks once.
            propagate: raise the task's exception; False returns it.
            interval: seconds between two calls of `on_interval`.
            no_ack: has no meaning here.
            follow_parents: raise what a parent raised (`celery.result.parents`), as this task will then never run.
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
        follow = propagate and follow_parents and self.parent is not None
        if self._record is None and follow:
            parents.wait(self, timeout, interval, on_interval, on_message)
        elif self._record is None:
            self._learn(self.backend.wait_for(self.id, timeout, interval, no_ack, on_interval, on_message))
        if follow and self._meta()["status"] in PROPAGATE_STATES:
            parents.raise_failure(self)
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
        follow = propagate and follow_parents and self.parent is not None
        if self._record is None and follow:
            await parents.await_record(self, timeout, on_message)
        else:
            await self._await_record(timeout, on_message)
        if follow and self._meta()["status"] in states.PROPAGATE_STATES:
            await in_thread(partial(parents.raise_failure, self))
        return self._conclude(propagate, callback)

    async def _await_record(
        self,
        timeout: float | None,
        on_message: Callable[[Meta], Any] | None = None,
    ) -> None:
        """Wait until the final record is known. Raises TimeoutError."""
        if self._record is not None:
            return
        if timeout is not None and timeout <= 0:
            await in_thread(self._meta)
        else:
            meta = await self.backend.hub.wait(self.id, timeout, on_message)
            if meta is not None:
                self._learn(meta)
        if self._record is None:
            raise self._late(timeout)

    def _late(self, timeout: float | None) -> ResultTimeoutError:
        why = self.backend.hub.excuse()
        return ResultTimeoutError(f"Task {self.id} was not ready within {timeout} s.{why}")

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

    def throw(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - in Celery's signature
        """Raise an exception in the name of the task."""
        self._raise(args[0] if args else self.result, None)

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[BaseException], Any] | None = None,
        weak: bool = False,  # noqa: ARG002 - in Celery's signature
    ) -> AsyncResult[R]:
        """Call `callback(self)` once this object learns that the task is ready (rule 4); returns itself.

        Args:
            callback: called with this result.
            on_error: called with what the callback raises.
            weak: has no meaning here.
        """
        if self._listeners is None:
            self._listeners = Listeners()
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
    def children(self) -> list[Any] | None:
        """Results of the tasks that this one sent; None while that is not known."""
        found = self._meta().get("children")
        return [result_from_tuple(child, self.app) for child in found] if found else found

    @property
    def name(self) -> str | None:
        """The task's name, if known here or stored (result_extended)."""
        return self._name or self._meta().get("name")

    args: _Stored[Any] = _Stored("args", "Its positional arguments (result_extended).")
    kwargs: _Stored[Any] = _Stored("kwargs", "Its keyword arguments (result_extended).")
    worker: _Stored[str | None] = _Stored("worker", "The node that ran it (result_extended).")
    retries: _Stored[int | None] = _Stored("retries", "How often it was retried (result_extended).")
    queue: _Stored[str | None] = _Stored("queue", "The routing key it came by (result_extended).")
    traceback: _Stored[str | None] = _Stored("traceback", "The remote traceback of a task that failed.")

    @property
    def date_done(self) -> datetime | None:
        """When it became ready, aware."""
        moment = self._meta().get("date_done")
        return datetime.fromisoformat(moment) if isinstance(moment, str) else moment

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
        return str((await in_thread(self._meta))["status"])

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
        if self.parent is not None:
            self.parent.forget()
        self.backend.forget(self.id)

    async def aforget(self) -> None:
        """`forget` for coroutines."""
        await in_thread(self.forget)

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
        await in_thread(lambda: self.revoke(terminate=terminate, signal=signal))

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


class EagerResult(AsyncResult[R]):
    """The outcome of a task that ran in place (API-058).

    Args:
        id: the task's id.
        ret_value: its value or exception.
        state: its state.
        traceback: of its exception.
        name: the task's name.
    """

    __module__ = "celery.result"

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
        timeout: float | None = None,  # noqa: ARG002 - in Celery's signature
        propagate: bool = True,
        disable_sync_subtasks: bool = True,
        callback: Callback | None = None,
        **kwargs: Any,  # noqa: ARG002 - there is nothing to wait for
    ) -> R:
        """The value, or its exception raised. Other arguments of `AsyncResult.get` have no meaning."""
        if disable_sync_subtasks:
            assert_will_not_block()
        if self.state != states.SUCCESS and self.state not in states.PROPAGATE_STATES:
            return cast(R, None)  # ignored, rejected: there is no value
        return self._conclude(propagate, callback)

    wait = get  # type: ignore[assignment]  # as get

    def forget(self) -> None:
        """Nothing is stored, so nothing is deleted."""

    def revoke(self, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002 - in Celery's signature
        """It ran already: only the state changes, to REVOKED."""
        self._set(TaskRevokedError("revoked"), states.REVOKED)

    def __copy__(self) -> EagerResult[R]:
        make, args = self.__reduce__()
        return cast("EagerResult[R]", make(*args))

    def __reduce__(self) -> tuple[Any, ...]:
        meta = self._meta()
        return importable(type(self)), (self.id, meta["result"], meta["status"], meta["traceback"], self._name)


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
