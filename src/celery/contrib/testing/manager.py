"""Waiting for what workers do, from tests that run against real ones (API-108).

Everything here waits in one way, `wait_for`: call a function again and again, with growing pauses, until it no longer
raises, or until the number of retries is used up. What has not come by then is an error that the test shows.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from typing import TYPE_CHECKING, Any, TextIO

from celery import exceptions, states
from celery.result import AsyncResult, ResultSet
from celery.utils.text import truncate
from celery.utils.time import humanize_seconds

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from celery.app.base import Celery

__all__ = ("Manager", "ManagerMixin", "Sentinel")

#: States that workers report of tasks they know, in the replies of query_task.
_RECEIVED = frozenset({"reserved", "ready", "active"})
_ACCEPTED = frozenset({"active"})


class Sentinel(Exception):  # noqa: N818 - the documented name
    """Something has not happened yet; `wait_for` goes on."""


class ManagerMixin:
    """The methods of `Manager`, for classes of one's own; they call `_init_manager`."""

    app: Celery

    def _init_manager(
        self,
        block_timeout: float = 30 * 60.0,
        no_join: bool = False,
        stdout: TextIO | None = None,
        stderr: TextIO | None = None,
    ) -> None:
        self.block_timeout = block_timeout
        self.no_join = no_join
        self.stdout = sys.stdout if stdout is None else stdout
        self.stderr = sys.stderr if stderr is None else stderr

    def remark(self, s: str, sep: str = "-") -> None:
        """Print a remark."""
        print(f"{sep}{s}", file=self.stdout)

    def warn(self, s: str) -> None:
        """Print a warning."""
        print(s, file=self.stderr)

    # -- waiting

    def wait_for(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
        errback: Callable[..., Any] | None = None,
        max_retries: int = 10,
        interval_start: float = 0.1,
        interval_step: float = 0.5,
        interval_max: float = 5.0,
        emit_warning: bool = False,
        **options: Any,  # noqa: ARG002 - in Celery's signature
    ) -> Any:
        """Call a function until it does not raise, and return what it returns.

        Args:
            fun: the function.
            catch: exceptions that mean "not yet".
            desc: what is waited for.
            args: of the function.
            kwargs: of the function.
            errback: called with the exception, the pauses to come, and the number of retries so far.
            max_retries: calls after the first one.
            interval_start: first pause, in seconds.
            interval_step: by how much pauses grow.
            interval_max: longest pause.
            emit_warning: print a warning before each pause.
            options: ignored.

        Raises:
            Exception: the last of those in *catch*, when there are no retries left; any other at once.
        """
        pause = interval_start
        for retries in range(max_retries + 1):
            try:
                return fun(*args, **kwargs or {})
            except catch as exc:
                if retries == max_retries:
                    raise
                if errback is not None:
                    errback(exc, iter((pause,)), retries)
                if emit_warning:
                    when = humanize_seconds(pause, "in", " ")
                    self.warn(f"Still waiting for {desc}.  Trying again {when}: {exc!r}")
            time.sleep(pause)
            pause = min(pause + interval_step, interval_max)
        raise AssertionError("not reached")

    def ensure_not_for_a_while(
        self,
        fun: Callable[..., Any],
        catch: Any,
        desc: str = "thing",
        max_retries: int = 20,
        interval_start: float = 0.1,
        interval_step: float = 0.02,
        interval_max: float = 1.0,
        emit_warning: bool = False,
        **options: Any,
    ) -> None:
        """Make sure that a function goes on raising; arguments as of `wait_for`.

        Raises:
            AssertionError: it did not raise. (Celery returns the value then, and so notices nothing.)
        """
        try:
            self.wait_for(
                fun, catch, desc, max_retries=max_retries, interval_start=interval_start, interval_step=interval_step,
                interval_max=interval_max, emit_warning=emit_warning, **options,
            )  # fmt: skip
        except catch:
            return
        raise AssertionError(f"Should not have happened: {desc}")

    def retry_over_time(self, *args: Any, **kwargs: Any) -> Any:
        """`wait_for`, by kombu's name for it."""
        return self.wait_for(*args, **kwargs)

    def true_or_raise(self, fun: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the function returns, if that is true.

        Raises:
            Sentinel: it is not.
        """
        value = fun(*args, **kwargs)
        if not value:
            raise Sentinel
        return value

    def wait_until_idle(self) -> None:
        """Delete what is in the queues, and wait until no worker runs or holds a task."""
        self.app.control.purge()
        self.wait_for(self.true_or_raise, Sentinel, "workers to be idle", (self._is_idle,), interval_step=0.1)

    def _is_idle(self) -> bool:
        inspect = self.inspect(timeout=0.5)
        tasks = [*(inspect.active() or {}).values(), *(inspect.reserved() or {}).values()]
        return not any(tasks)

    # -- results

    def missing_results(self, r: Iterable[AsyncResult[Any]]) -> list[str]:
        """Ids of the tasks that have not ended."""
        return [result.id for result in r if not result.ready()]

    def join(self, r: Any, propagate: bool = False, max_retries: int = 10, **kwargs: Any) -> Any:
        """Wait for a result, or a set of them, and return the values.

        Args:
            r: AsyncResult or ResultSet.
            propagate: raise what a task raised.
            max_retries: how often to go on waiting after a time-out.
            kwargs: of `ResultSet.get`; ``timeout`` is `block_timeout` unless given.

        Raises:
            AssertionError: results are missing.
        """
        if self.no_join:
            return None
        results = r if isinstance(r, ResultSet) else ResultSet([r], app=self.app)
        kwargs.setdefault("timeout", self.block_timeout)
        for attempt in range(max_retries + 1):
            try:
                return results.get(propagate=propagate, **kwargs)
            except exceptions.TimeoutError:
                missing = self.missing_results(results)
                self.remark(
                    f"Still waiting for {len(missing)} of {len(results)} results (attempt {attempt + 1}): "
                    f"{truncate(', '.join(missing))}", "!",
                )  # fmt: skip
        raise AssertionError(f"Results are missing: {', '.join(self.missing_results(results))}")

    def assert_result_tasks_in_progress_or_completed(
        self,
        async_results: Iterable[AsyncResult[Any]],
        interval: float = 0.5,
        desc: str = "waiting for tasks to be started or completed",
        **policy: Any,
    ) -> Any:
        """Wait until all have started, by their results."""
        return self.assert_task_state_from_result(
            self.is_result_task_in_progress, list(async_results), interval=interval, desc=desc, **policy
        )

    def assert_task_state_from_result(
        self, fun: Callable[..., Any], results: Any, interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until ``fun(results, timeout=interval)`` is true."""
        return self._assert(fun, results, interval, policy)

    @staticmethod
    def is_result_task_in_progress(results: Iterable[AsyncResult[Any]], **kwargs: Any) -> bool:  # noqa: ARG004 - in Celery's signature
        """Whether all have started or ended well."""
        return all(result.state in (states.STARTED, states.SUCCESS) for result in results)

    # -- workers

    def inspect(self, timeout: float = 3.0) -> Any:
        """``app.control.inspect``."""
        return self.app.control.inspect(timeout=timeout)

    def query_tasks(self, ids: Iterable[str], timeout: float = 0.5) -> Iterator[tuple[str, dict[str, Any]]]:
        """What each worker knows of tasks: (node name, {id: [state, info]})."""
        yield from (self.inspect(timeout).query_task(*ids) or {}).items()

    def query_task_states(self, ids: Iterable[str], timeout: float = 0.5) -> dict[str, set[str]]:
        """Which of the tasks are in which state, by the workers: {state: ids}."""
        found: dict[str, set[str]] = defaultdict(set)
        for _, tasks in self.query_tasks(ids, timeout):
            for task_id, (state, _) in tasks.items():
                found[state].add(task_id)
        return found

    def assert_accepted(
        self, ids: Iterable[str], interval: float = 0.5, desc: str = "waiting for tasks to be accepted", **policy: Any
    ) -> Any:
        """Wait until workers run all of them."""
        return self.assert_task_worker_state(self.is_accepted, ids, interval=interval, desc=desc, **policy)

    def assert_received(
        self, ids: Iterable[str], interval: float = 0.5, desc: str = "waiting for tasks to be received", **policy: Any
    ) -> Any:
        """Wait until workers have all of them."""
        return self.assert_task_worker_state(self.is_received, ids, interval=interval, desc=desc, **policy)

    def assert_task_worker_state(
        self, fun: Callable[..., Any], ids: Iterable[str], interval: float = 0.5, **policy: Any
    ) -> Any:
        """Wait until ``fun(ids, timeout=interval)`` is true."""
        return self._assert(fun, list(ids), interval, policy)

    def _assert(self, fun: Callable[..., Any], subject: Any, interval: float, policy: dict[str, Any]) -> Any:
        policy = {"interval_start": interval, **policy}
        return self.wait_for(self.true_or_raise, Sentinel, args=(fun, subject), kwargs={"timeout": interval}, **policy)

    def is_received(self, ids: Iterable[str], **kwargs: Any) -> bool:
        """Whether workers have all of them, running or not."""
        return self._are_in(_RECEIVED, ids, **kwargs)

    def is_accepted(self, ids: Iterable[str], **kwargs: Any) -> bool:
        """Whether workers run all of them."""
        return self._are_in(_ACCEPTED, ids, **kwargs)

    def _are_in(self, expected: Iterable[str], ids: Iterable[str], timeout: float = 0.5) -> bool:
        known = self.query_task_states(ids, timeout)
        return set(ids) <= set().union(*(known[state] for state in expected))


class Manager(ManagerMixin):
    """Waits for what workers of one application do.

    Args:
        app: the application.
        kwargs: block_timeout (seconds that `join` waits at a time), no_join (`join` does nothing), stdout, stderr.
    """

    def __init__(self, app: Celery, **kwargs: Any) -> None:
        self.app = app
        self._init_manager(**kwargs)
