"""The results of many tasks, in order: ResultSet, and GroupResult with an id (API-056, API-057).

Members are results of tasks, or of groups inside the group. `join` waits for one after the other; `join_native`,
`aget` and `async for` wait for all at once.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

from celery import _state, states
from celery.exceptions import ImproperlyConfigured
from celery.result.waiting import Callback, Listeners, ResultBase, assert_will_not_block, importable, in_thread

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator

    from celery.app.base import Celery
    from celery.backends.asynchronous import Meta
    from celery.backends.base import Backend
    from celery.result.single import AsyncResult

R = TypeVar("R")


class ResultSet(ResultBase, Generic[R]):
    """Many results, in order, each once.

    Args:
        results: the results.
        app: the application; default that of the first result.
        ready_barrier: has no meaning here.
        kwargs: have no meaning here.
    """

    __module__ = "celery.result"  # where pickles look for it, 5.7's too
    _app: Any = None

    def __init__(
        self,
        results: Iterable[Any],
        app: Celery | None = None,
        ready_barrier: Any = None,  # noqa: ARG002 - in Celery's signature
        **kwargs: Any,  # noqa: ARG002 - in Celery's signature
    ) -> None:
        if app is not None:
            self._app = app
        self.results: list[Any] = list(results)
        self._listeners: Listeners | None = None

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

    def __hash__(self) -> int:
        raise TypeError(f"{type(self).__name__} can change, and so cannot be hashed")

    def __reduce__(self) -> tuple[Any, ...]:
        return importable(type(self)), (self.results,)

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
        return bool(await in_thread(self.ready))

    def maybe_throw(self, callback: Callback | None = None, propagate: bool = True) -> None:
        """Raise the exception of the first one that failed."""
        for result in self.results:
            result.maybe_throw(callback=callback, propagate=propagate)

    maybe_reraise = maybe_throw

    def then(
        self,
        callback: Callable[[Any], Any],
        on_error: Callable[[BaseException], Any] | None = None,
        weak: bool = False,  # noqa: ARG002 - in Celery's signature
    ) -> ResultSet[R]:
        """Call `callback(self)` once all results have learnt that they are ready; returns itself."""
        if self._listeners is None:
            listeners = self._listeners = Listeners()
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
        no_ack: bool = True,  # noqa: ARG002 - in Celery's signature
        on_message: Callable[[Meta], Any] | None = None,
        on_interval: Callable[[], Any] | None = None,
    ) -> Iterator[tuple[str, Any]]:
        """(id, record) in the order in which they become ready; a group's record is the list of its results."""
        unknown: dict[str, AsyncResult[Any]] = {}
        for result in self.results:
            if isinstance(result, ResultSet):
                yield result.id, result.results  # type: ignore[attr-defined]  # a member of a set is a group
            elif result.ignored:
                yield result.id, {"task_id": result.id, "status": states.SUCCESS, "result": None}
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

    async def _await_record(
        self,
        timeout: float | None,
        on_message: Callable[[Meta], Any] | None = None,
    ) -> None:
        await self.aget(timeout, propagate=False, on_message=on_message)

    # -- acting on them

    def forget(self) -> None:
        """Delete the records."""
        for result in self.results:
            result.forget()

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

    __module__ = "celery.result"

    def __init__(
        self,
        id: str | None = None,
        results: Iterable[Any] | None = None,
        parent: ResultBase | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(results or (), **kwargs)
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
        # `app.GroupResult` has its application as a class attribute.
        app = app or cls.__dict__.get("app") or _state.get_current_app()
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
        return importable(type(self)), (self.id, self.results, self.parent)
