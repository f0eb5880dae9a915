"""What to do with a delivery: decided without I/O and without awaiting.

The rules, in this order; the first that applies decides.

    | the delivery ...                                        | decision                                       |
    |---------------------------------------------------------|------------------------------------------------|
    | is no task message, or lacks what one must have         | REFUSE: to the dead queue, logged              |
    | has a content type that is not accepted                 | REFUSE                                         |
    | names a task that is not registered                     | REFUSE, and its failure is stored              |
    | was lost by a worker that died after starting it        | FAIL with WorkerLostError                      |
    | was lost more often than `task_delivery_limit`          | REFUSE, and its failure is stored              |
    | is revoked                                              | DROP: state REVOKED, acknowledged              |
    | is past its expiry                                      | DROP                                           |
    | has an eta ahead                                        | WAIT until then                                |
    | came back uncounted, and is acknowledged when it ended  | COUNT: will come again with its count          |
    | else                                                    | RUN                                            |

The last but one is about RabbitMQ, and about late acknowledgement, as only such a task can kill worker after worker.

Bodies stay closed here (but of protocol 1, where the task's name is inside): a body that cannot be read fails in the
child.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import msgspec

from celery.app.task import Task
from celery.concurrency.base import Handling
from celery.exceptions import ImproperlyConfigured, InvalidTaskError, NotRegistered, TaskRevokedError, WorkerLostError
from celery.utils.text import rate
from celery.wire.envelope import Envelope
from celery.wire.label import Label, label_in, label_of
from celery.wire.protocol import UnknownMessageError, header_time, read_headers, read_task

if TYPE_CHECKING:
    from collections.abc import Callable, Container, Iterable

    from celery.app.base import Celery
    from celery.brokers.base import Delivery

Source = Mapping[str, Any] | Envelope

_NO_LIMITS = (None, None)
#: The reason for DROP of what is past its expiry.
EXPIRED = "expired"
#: What a protocol 1 body has beside metadata.
_IN_THE_BODY = frozenset({"args", "kwargs", "embed", "callbacks", "errbacks", "chain", "chord", "taskset", "utc"})


class Action(enum.Enum):
    """What becomes of a delivery now."""

    RUN = "run"
    WAIT = "wait"
    COUNT = "count"
    DROP = "drop"
    FAIL = "fail"
    REFUSE = "refuse"


#: Of nearly every message: Python 3.11 takes 0.1 us to find a member of an enumeration.
_RUN, _COUNT = Action.RUN, Action.COUNT


class Decision(msgspec.Struct, gc=False):
    """An action, and what it takes."""

    action: Action
    #: Headers; or the message that has them, which is opened when they are asked for.
    source: Source
    task: Task[..., Any] | None = None
    handling: Handling | None = None
    #: Unix seconds from which on it is too late to RUN.
    expires: float | None = None
    #: Unix seconds, for WAIT.
    until: float | None = None
    #: Stored as the task's outcome, for DROP, FAIL and some of REFUSE; None: nothing is stored.
    error: Exception | None = None
    #: For people.
    reason: str = ""

    @property
    def headers(self) -> Mapping[str, Any]:
        """Complete where they could be read, else as received."""
        return headers_of(self.source)


class Strategy:
    """Decides, for one worker."""

    def __init__(
        self,
        tasks: Mapping[str, Task[..., Any]],
        accept: frozenset[str],
        *,
        revoked: Container[str] = (),
        is_revoked: Callable[[Mapping[str, Any]], str | None] | None = None,
        delivery_limit: int = 0,
        hard_limit: float | None = None,
        soft_limit: float | None = None,
    ) -> None:
        """Set the rules.

        Args:
            tasks: the registered ones.
            accept: content types.
            revoked: ids.
            is_revoked: by other properties of a task: why, or None.
            delivery_limit: how often a message may be lost; 0 is without bound.
            hard_limit: seconds, for calls and tasks without one of their own.
            soft_limit: the same.
        """
        self.tasks = tasks
        self.accept = accept
        self.revoked = revoked
        self.is_revoked = is_revoked
        self.delivery_limit = delivery_limit
        self.hard_limit = hard_limit
        self.soft_limit = soft_limit
        self._handling: dict[str, Handling] = {}

    def decide(self, delivery: Delivery, now: float) -> Decision:
        """What to do with a delivery.

        Args:
            delivery: as received.
            now: unix seconds.
        """
        try:
            return self._decide(delivery, now)
        except UnknownMessageError as exc:
            return _refusal(delivery.envelope.headers, f"Received and deleted unknown message. {exc}")
        except Exception as exc:  # noqa: BLE001 - whatever a peer sends must not end the worker
            return _refusal(delivery.envelope.headers, f"Received invalid task message: {exc}", _as_error(exc))

    def _decide(self, delivery: Delivery, now: float) -> Decision:
        envelope = delivery.envelope
        if envelope.content_type not in self.accept:
            return _refusal(envelope.headers, f"content type {envelope.content_type!r} is not in accept_content")
        source: Source = envelope
        label = delivery.label or label_in(envelope.headers)
        if label is None:
            source = headers = read_headers(envelope) or read_task(envelope, self.accept).headers
            label = label_of(headers)
        assert label.task is not None
        task = self.tasks.get(label.task)
        if task is None:
            error: Exception = NotRegistered(label.task)
            return _refusal(source, f"Received unregistered task of type {label.task!r}.", error)
        if delivery.lost:
            error = WorkerLostError("the worker that ran it died, after the message had been acknowledged")
            return Decision(Action.FAIL, source, task, self._handle(task, label), error=error)
        if self.delivery_limit and delivery.failures >= self.delivery_limit:
            error = WorkerLostError(
                f"workers or pool processes died too often while they had it: {delivery.failures} (task_delivery_limit)"
            )
            return Decision(Action.REFUSE, source, task, error=error, reason=str(error))
        if (label.id in self.revoked or self.is_revoked is not None) and (reason := self._revocation(label, source)):
            return revocation(source, task, reason)
        expires = None if label.expires is None else _moment(source, "expires")
        if expires is not None and expires <= now:
            return revocation(source, task, EXPIRED)
        handling = self._handle(task, label)
        if label.eta is not None and (eta := _moment(source, "eta")) > now:
            return Decision(Action.WAIT, source, task, handling, until=eta)
        action = _COUNT if delivery.uncounted and task.acks_late and self.delivery_limit else _RUN
        return Decision(action, source, task, handling, expires)

    def _revocation(self, label: Label, source: Source) -> str | None:
        if label.id in self.revoked:
            return "revoked"
        return self.is_revoked(headers_of(source)) if self.is_revoked is not None else None

    def _handle(self, task: Task[..., Any], label: Label) -> Handling:
        """Limits: the call's, else the task's, else the worker's (ROUTE-054)."""
        hard, soft = label.timelimit or _NO_LIMITS
        if hard is None and soft is None:
            known = self._handling.get(task.name)
            if known is None:
                known = self._handling[task.name] = self.handling(task, None, None)
            return known
        return self.handling(task, soft, hard)

    def handling(self, task: Task[..., Any], soft: float | None, hard: float | None) -> Handling:
        """How to treat an attempt whose call has these limits, in seconds."""
        return Handling(
            task.name,
            task.is_async,
            _first(soft, task.soft_time_limit, self.soft_limit),
            _first(hard, task.time_limit, self.hard_limit),
        )


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value), None)


def revocation(source: Source, task: Task[..., Any] | None, reason: str) -> Decision:
    """It is not going to run: revoked, or `EXPIRED`."""
    return Decision(Action.DROP, source, task, error=TaskRevokedError(reason), reason=reason)


def _refusal(source: Source, reason: str, error: Exception | None = None) -> Decision:
    return Decision(Action.REFUSE, source, error=error, reason=reason)


def headers_of(source: Source) -> Mapping[str, Any]:
    """Headers as they were given, or those of a message, complete."""
    if isinstance(source, Mapping):
        return source
    try:
        return read_headers(source) or source.headers
    except InvalidTaskError:  # a time that is none, which what was decided did not depend on
        return source.headers


def _moment(source: Source, name: str) -> float:
    """A time in the headers that is there, in unix seconds."""
    moment = header_time(dict(headers_of(source)), name)
    assert moment is not None
    return moment.timestamp()


def _as_error(exc: Exception) -> Exception:
    return exc if isinstance(exc, InvalidTaskError) else InvalidTaskError(str(exc))


# -- for strategies that tasks bring (`celery.worker.handover`)


def default(task: Task[..., Any], app: Celery, consumer: Any, **_: Any) -> Callable[..., None]:  # noqa: ARG001 - the documented signature
    """The handler of a task without a strategy of its own, for strategies that only add to it.

    Returns:
        Takes a message and runs its task; what else handlers are given makes no difference.
    """

    def handle(message: Any, *_args: Any, **_kwargs: Any) -> None:
        consumer.run(message)

    return handle


def hybrid_to_proto2(message: Any, body: Mapping[str, Any]) -> tuple[Any, dict[str, Any], bool, bool]:
    """A message whose metadata is in its body, in the parts of protocol 2; headers win.

    Args:
        message: has `headers`.
        body: decoded.

    Returns:
        ((args, kwargs, embed), headers, True, whether its times are in UTC)
    """
    given = {name: value for name, value in (message.headers or {}).items() if value is not None}
    embed = {name: body.get(name) for name in ("callbacks", "errbacks", "chain", "chord")}
    headers = {**{name: value for name, value in body.items() if name not in _IN_THE_BODY}, **given}
    headers["group"] = body.get("taskset") or headers.get("group")
    return (body.get("args") or (), body.get("kwargs") or {}, embed), headers, True, body.get("utc", True)


#: The documented name for messages of protocol 1, whose headers are empty.
proto1_to_proto2 = hybrid_to_proto2

def check_numbers(tasks: Iterable[Task[..., Any]]) -> None:
    """Look at the numbers among the attributes of tasks, which classes, options and annotations may have set.

    Raises:
        ImproperlyConfigured: one is something else.
    """
    for task in tasks:
        for attribute in ("time_limit", "soft_time_limit", "max_retries", "default_retry_delay"):
            value = getattr(task, attribute, None)
            if value is not None and not isinstance(value, (int, float)):
                raise ImproperlyConfigured(f"{attribute} of task {task.name} is {value!r}: it must be a number.")
        try:
            rate(task.rate_limit)
        except (AttributeError, ValueError) as exc:
            raise ImproperlyConfigured(f"rate_limit of task {task.name}: {exc}") from None
