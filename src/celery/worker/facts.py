"""What can be known of a request: read from its headers, its message and its task when asked (API-042).

Bodies stay closed in the worker's main process. `args` and `kwargs` open one, each time; so does `request_dict`, but of
a request of the task's own class, which keeps it (`celery.worker.gate`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from celery.wire.protocol import header_time, read_task
from celery.wire.serializers import resolve_accept

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import datetime

    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.brokers.base import Delivery
    from celery.concurrency.base import Job
    from celery.worker.gate import Turn


class MessageParts(NamedTuple):
    """A message as it was received, under the names that kombu's have."""

    headers: Mapping[str, Any]
    body: bytes
    properties: Mapping[str, Any]
    content_type: str | None
    content_encoding: str | None
    delivery_info: Mapping[str, Any]


class RequestFacts:
    """The documented properties of a request."""

    __slots__ = ()

    #: Times are aware.
    utc = True

    if TYPE_CHECKING:
        app: Celery
        delivery: Delivery
        @property
        def headers(self) -> dict[str, Any]: ...
        hostname: str
        job: Job
        keeper: Turn | None
        pid: int | None
        started_at: float | None
        task: Task[..., Any]

    # -- who

    @property
    def id(self) -> str:
        """Task id."""
        return self.headers["id"]  # type: ignore[no-any-return]  # checked when it was decided on

    task_id = id  # noqa: A003 - the property above is meant

    @property
    def type(self) -> str:
        """Name of the registered task."""
        return self.task.name

    @property
    def name(self) -> str:
        """The name to show."""
        return self.headers["shadow"] or self.task.name

    task_name = name

    @property
    def root_id(self) -> str | None:
        """First task of the workflow."""
        return self.headers["root_id"]  # type: ignore[no-any-return]  # as sent

    @property
    def parent_id(self) -> str | None:
        """The task that sent it."""
        return self.headers["parent_id"]  # type: ignore[no-any-return]  # as sent

    @property
    def group(self) -> str | None:
        """Its group."""
        return self.headers.get("group")

    @property
    def group_index(self) -> int | None:
        """Its place in the group."""
        return self.headers.get("group_index")

    @property
    def stamped_headers(self) -> list[str]:
        """Names of its stamps."""
        return self.headers.get("stamped_headers") or []

    @property
    def stamps(self) -> dict[str, Any]:
        """Stamps."""
        return self.headers.get("stamps") or {}

    @property
    def replaced_task_nesting(self) -> int:
        """How often it was replaced."""
        return self.headers.get("replaced_task_nesting") or 0

    # -- when

    @property
    def eta(self) -> datetime | None:
        """Not before; aware."""
        return header_time(self.headers, "eta")

    @property
    def expires(self) -> datetime | None:
        """Not after; aware."""
        return header_time(self.headers, "expires")

    @property
    def time_limits(self) -> Sequence[float | None]:
        """Hard and soft time limit of the call, in seconds."""
        return self.headers["timelimit"]  # type: ignore[no-any-return]  # as sent

    @property
    def time_start(self) -> float | None:
        """Unix seconds; None until a tick has seen it run."""
        return self.started_at

    @property
    def worker_pid(self) -> int | None:
        """The process that runs it; None until a tick has seen it run."""
        return self.pid

    # -- what

    @property
    def argsrepr(self) -> str:
        """Arguments, for people."""
        return self.headers.get("argsrepr") or ""

    @property
    def kwargsrepr(self) -> str:
        """Keyword arguments, for people."""
        return self.headers.get("kwargsrepr") or ""

    def read(self) -> Sequence[Any]:
        """Arguments, keyword arguments, and what follows. Raises what `read_task` does."""
        accept = resolve_accept(self.app.conf.accept_content)
        message = read_task(self.delivery.envelope, accept, self.app.timezone)
        return message.args, message.kwargs, message.embed

    @property
    def args(self) -> Any:
        """Arguments."""
        return self.read()[0]

    @property
    def kwargs(self) -> Any:
        """Keyword arguments."""
        return self.read()[1]

    @property
    def chord(self) -> Any:
        """The body of the chord that it is a part of."""
        return self.read()[2].get("chord")

    @property
    def errbacks(self) -> Any:
        """Signatures to send should it fail."""
        return self.read()[2].get("errbacks")

    @property
    def request_dict(self) -> dict[str, Any]:
        """What `Context` is made of: headers, what follows, where it came from."""
        return self._request_dict() if self.keeper is None else self.keeper.request_dict(self._request_dict)

    def _request_dict(self) -> dict[str, Any]:
        args, kwargs, embed = self.read()
        return {
            **self.headers,
            **embed,
            "args": args,
            "kwargs": kwargs,
            "delivery_info": self.delivery_info,
            "hostname": self.hostname,
            "reply_to": self.reply_to,
            "correlation_id": self.correlation_id,
        }

    # -- how it came

    @property
    def message(self) -> Any:
        """The message."""
        envelope = self.delivery.envelope
        return MessageParts(
            envelope.headers, envelope.body, envelope.properties, envelope.content_type, envelope.content_encoding,
            self.delivery_info,
        )  # fmt: skip

    @property
    def body(self) -> bytes:
        """As received."""
        return self.delivery.envelope.body

    @property
    def content_type(self) -> str | None:
        """Of the body."""
        return self.delivery.envelope.content_type

    @property
    def content_encoding(self) -> str | None:
        """Of the body."""
        return self.delivery.envelope.content_encoding

    @property
    def delivery_info(self) -> dict[str, Any]:
        """exchange, routing_key, priority, redelivered."""
        return self.delivery.info

    @property
    def reply_to(self) -> str | None:
        """The sender's reply queue."""
        return self.delivery.envelope.properties.get("reply_to")

    @property
    def correlation_id(self) -> str | None:
        """As sent."""
        return self.delivery.envelope.properties.get("correlation_id")

    # -- what becomes of it

    @property
    def ignores_result(self) -> bool:
        """Whether its result is unwanted."""
        wanted = self.headers["ignore_result"]
        return bool(self.task.ignore_result if wanted is None else wanted)

    ignore_result = ignores_result

    @property
    def store_errors(self) -> bool:
        """Whether its failure is stored."""
        return not self.ignores_result or bool(self.task.store_errors_even_if_ignored)
