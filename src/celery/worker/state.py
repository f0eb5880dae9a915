"""What a worker knows about its tasks: for remote control, and for people's own commands and monitors.

Rules
    1. Nothing is recorded twice. The consumer holds the requests; `requests`, `reserved_requests` and
       `active_requests` are views of what it holds at this moment (`watch`). Reading them is safe in any thread.
    2. `scheduled_requests` remembers the tasks that this worker has put back to wait for their time. Each entry ends
       with its time: then some worker receives the message again. It is an index for people, bounded, and not what
       keeps the tasks.
    3. `revoked` is bounded in number and age (CTL-049), and counts from the moment that an id is added.
"""

from __future__ import annotations

import os
import platform
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import celery
from celery.exceptions import ImproperlyConfigured, WorkerShutdown, WorkerTerminate
from celery.utils.collections import LimitedSet

if TYPE_CHECKING:
    from collections.abc import Callable

    from celery.brokers.base import Delivery
    from celery.worker.request import Request

__all__ = (
    "SOFTWARE_INFO",
    "active_requests",
    "maybe_shutdown",
    "merge_revoked",
    "requests",
    "reserved_requests",
    "revoked",
    "scheduled_requests",
    "task_scheduled",
    "total_count",
)

SOFTWARE_INFO = {"sw_ident": "py-celery", "sw_ver": celery.__version__, "sw_sys": platform.system()}

#: Tasks in `scheduled_requests` at most.
SCHEDULED_MAX = 10_000
#: Seconds between two searches for entries whose time has come.
_SWEEP_PAUSE = 1.0


def _from_environment(name: str, default: float) -> float:
    text = os.environ.get(name)
    try:
        return float(text) if text else default
    except ValueError:
        raise ImproperlyConfigured(f"The environment variable {name} is {text!r}; it must be a number.") from None


REVOKES_MAX = int(_from_environment("CELERY_WORKER_REVOKES_MAX", 50_000))
REVOKE_EXPIRES = _from_environment("CELERY_WORKER_REVOKE_EXPIRES", 10_800)

#: Ids of tasks that must not run.
revoked = LimitedSet(maxlen=REVOKES_MAX, expires=REVOKE_EXPIRES)

#: How many tasks of each name were accepted.
total_count: Counter[str] = Counter()
total = total_count

#: Set by people's code to end the worker: an exit code; None and False: go on.
should_stop: int | bool | None = None
should_terminate: int | bool | None = None

#: What the consumer holds, by job number.
_held: Mapping[int, Request] = {}


def watch(held: Mapping[int, Request]) -> None:
    """Let the views show the requests of a consumer from now on."""
    global _held  # noqa: PLW0603 - a worker has one consumer, and the module is the documented place to look
    _held = held


def _snapshot() -> list[Request]:
    """The requests of this moment; a list is made of a dict's values in one step, so the loop may go on changing it."""
    return list(_held.values())


class _Requests(AbstractSet["Request"]):
    """The requests that some condition holds for, now."""

    def __init__(self, holds: Callable[[Request], bool]) -> None:
        self._holds = holds

    def __iter__(self) -> Iterator[Request]:
        return iter([request for request in _snapshot() if self._holds(request)])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, item: object) -> bool:
        return any(request is item for request in self)


class _RequestsById(Mapping[str, "Request"]):
    """All requests, by task id."""

    def __getitem__(self, task_id: str) -> Request:
        for request in _snapshot():
            if request.id == task_id:
                return request
        raise KeyError(task_id)

    def __iter__(self) -> Iterator[str]:
        return iter([request.id for request in _snapshot()])

    def __len__(self) -> int:
        return len(_held)


requests = _RequestsById()
#: Received, not found running yet.
reserved_requests = _Requests(lambda request: request.started_at is None)
#: Running.
active_requests = _Requests(lambda request: request.started_at is not None)


class Scheduled(NamedTuple):
    """A task that waits for its time."""

    #: Unix seconds.
    until: float
    #: As `Request.info` (CTL-027).
    info: dict[str, Any]

    @property
    def eta(self) -> str:
        """ISO 8601, in UTC."""
        return datetime.fromtimestamp(self.until, UTC).isoformat()


class _Schedule(Mapping[str, Scheduled]):
    """Waiting tasks by id, those that came first to begin with; rule 2."""

    def __init__(self) -> None:
        self._tasks: dict[str, Scheduled] = {}
        self._next_sweep = 0.0

    def add(self, task: Scheduled) -> None:
        """Remember a task; beyond the bound, the one that was added first is forgotten."""
        if len(self._tasks) >= SCHEDULED_MAX and time.monotonic() >= self._next_sweep:
            self._next_sweep = time.monotonic() + _SWEEP_PAUSE
            self._forget_past()
        if len(self._tasks) >= SCHEDULED_MAX:
            del self._tasks[next(iter(self._tasks))]
        self._tasks[task.info["id"]] = task

    def discard(self, task_id: str) -> None:
        """Forget a task, if it is there."""
        self._tasks.pop(task_id, None)

    def clear(self) -> None:
        """Forget all."""
        self._tasks.clear()

    def _forget_past(self) -> None:
        now = time.time()
        self._tasks = {task_id: task for task_id, task in self._tasks.items() if task.until > now}

    def _current(self) -> list[Scheduled]:
        now = time.time()
        return [task for task in list(self._tasks.values()) if task.until > now]

    def __getitem__(self, task_id: str) -> Scheduled:
        task = self._tasks[task_id]
        if task.until <= time.time():
            raise KeyError(task_id)
        return task

    def __iter__(self) -> Iterator[str]:
        return iter([task.info["id"] for task in self._current()])

    def __len__(self) -> int:
        return len(self._current())


scheduled_requests = _Schedule()


def task_scheduled(delivery: Delivery, headers: Mapping[str, Any], until: float, hostname: str) -> None:
    """Remember that a delivery was put back to wait.

    Args:
        delivery: as received.
        headers: of the task, complete.
        until: unix seconds.
        hostname: node name.
    """
    info = {
        "id": headers["id"],
        "name": headers.get("shadow") or headers["task"],
        "args": headers.get("argsrepr") or "",
        "kwargs": headers.get("kwargsrepr") or "",
        "type": headers["task"],
        "hostname": hostname,
        "time_start": None,
        "acknowledged": False,
        "delivery_info": delivery.info,
        "worker_pid": None,
    }
    scheduled_requests.add(Scheduled(until, info))


def merge_revoked(task_ids: Iterable[str]) -> None:
    """Take over ids that other workers have revoked. Mappings of id to time, of old peers, count by their ids."""
    revoked.update(list(task_ids))


def maybe_shutdown() -> None:
    """End the worker if `should_terminate` or `should_stop` says so.

    Raises:
        WorkerTerminate, WorkerShutdown: with the exit code.
    """
    if should_terminate is not None and should_terminate is not False:
        raise WorkerTerminate(int(should_terminate))
    if should_stop is not None and should_stop is not False:
        raise WorkerShutdown(int(should_stop))


def reset_state() -> None:
    """Forget everything. For tests."""
    watch({})
    scheduled_requests.clear()
    revoked.clear()
    total_count.clear()
