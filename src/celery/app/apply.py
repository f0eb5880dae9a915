"""Eager mode: a whole attempt in place, its Outcome applied at once (API-030, API-031).

The second of the two that apply an Outcome. There is no delivery to acknowledge and no monitor to tell; what follows
(callbacks, chain steps, error callbacks) is applied eagerly in turn; a retry is made at once, without its delay; the
result is stored only with `task_store_eager_result`.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from celery import _state, states
from celery.app.attempt import Attempt
from celery.app.context import Context
from celery.app.outcome import Outcome
from celery.app.trace import Tracer
from celery.exceptions import Retry
from celery.result import EagerResult
from celery.utils.uniqueid import uuid
from celery.wire import serializers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from celery.app.base import Celery
    from celery.app.task import Task
    from celery.canvas.signature import Signature


class EagerOutbox:
    """Takes what follows an attempt as signatures to apply, where a worker's Outbox takes messages to send."""

    __slots__ = ("begins", "messages", "signatures")

    def __init__(self) -> None:
        #: Always empty, both: nothing is sent.
        self.messages: list[Any] = []
        self.begins: list[Any] = []
        self.signatures: list[tuple[Signature[Any], tuple[Any, ...], dict[str, Any]]] = []

    def send(self, signature: Signature[Any], args: tuple[Any, ...], options: dict[str, Any]) -> None:
        """Keep a call."""
        self.signatures.append((signature, args, options))

    def clear(self) -> None:
        """Nothing of it follows."""
        self.signatures = []


def apply(
    task: Task[..., Any],
    args: Sequence[Any] | None = None,
    kwargs: Mapping[str, Any] | None = None,
    *,
    link: Any = None,
    link_error: Any = None,
    task_id: str | None = None,
    retries: int | None = None,
    throw: bool | None = None,
    **options: Any,
) -> EagerResult[Any]:
    """Make the attempt, and those that follow from it. See `Task.apply`."""
    app = task.app
    propagate = app.conf.task_eager_propagates if throw is None else throw
    call_args, call_kwargs = tuple(args or ()), dict(kwargs or {})
    request = _request(task, call_args, call_kwargs, task_id or uuid(), options)
    request.update(
        callbacks=_as_list(link), errbacks=_as_list(link_error), retries=retries or 0, chain=options.get("chain")
    )
    attempt, outcome = _make(app, task, request, call_args, call_kwargs)
    result: EagerResult[Any] = EagerResult(
        request.id,
        attempt.retval,
        outcome.state,
        traceback=outcome.traceback,
        name=task.name,
    )
    result._children = request._children
    if outcome.state in states.PROPAGATE_STATES and propagate and attempt.exc is not None:
        raise attempt.exc
    return result


def apply_as_if_sent(
    task: Task[..., Any],
    args: Sequence[Any],
    kwargs: Mapping[str, Any] | None,
    task_id: str | None,
    link: Any,
    link_error: Any,
    options: dict[str, Any],
) -> EagerResult[Any]:
    """What `apply_async` does with `task_always_eager`: arguments take the way through the serializer."""
    app = task.app
    serializer = options.get("serializer") or app.conf.task_serializer
    content_type, encoding, payload = serializers.dumps((args, kwargs or {}), serializer, names=("args", "kwargs"))
    args, kwargs = serializers.loads(payload, content_type, encoding, frozenset({content_type}))
    token = _state.set_join_denied(True)
    try:
        return apply(task, args, kwargs, link=link, link_error=link_error, task_id=task_id, **options)
    finally:
        _state.reset_join_denied(token)


def _request(
    task: Task[..., Any], args: Any, kwargs: Any, task_id: str, options: Mapping[str, Any]
) -> Context:
    headers = options.get("headers") or {}
    info = {"is_eager": True}
    for name in ("exchange", "routing_key", "priority"):
        if options.get(name) is not None:
            info[name] = options[name]
    frame = _state.worker_frame()
    parent = frame.request if frame is not None else None
    stamped = options.get("stamped_headers")
    request = Context(
        id=task_id,
        task=task.name,
        args=list(args),
        kwargs=kwargs,
        called_directly=False,
        is_eager=True,
        hostname=socket.gethostname(),
        delivery_info=info,
        headers=dict(headers) or None,
        logfile=options.get("logfile"),
        loglevel=options.get("loglevel") or 0,
        root_id=options.get("root_id") or (parent.root_id if parent else None) or task_id,
        parent_id=options.get("parent_id") or (parent.id if parent else None),
        group=options.get("group_id"),
        group_index=options.get("group_index"),
        chord=options.get("chord"),
        ignore_result=options.get("ignore_result"),
        replaced_task_nesting=options.get("replaced_task_nesting", 0),
        stamped_headers=stamped,
        stamps={name: options[name] for name in stamped or () if name in options},
        outbox=EagerOutbox(),
    )
    # A caller's header is an attribute of the request as well (API-045).
    for name, value in headers.items():
        request.__dict__.setdefault(name, value)
    return request


def _make(app: Celery, task: Task[..., Any], request: Context, args: Any, kwargs: Any) -> tuple[Attempt, Outcome]:
    """Attempts until one is no retry, each settled in place."""
    tracer = Tracer(app, request.hostname, eager=True)
    while True:
        attempt = Attempt.of(tracer.plan_of(task), request, args, kwargs, Outcome(0, states.SUCCESS))
        outcome = tracer.make(attempt)
        _settle(task, request, attempt, outcome)
        retry = attempt.retval
        if outcome.state != states.RETRY or not isinstance(retry, Retry) or retry.sig is None:
            return attempt, outcome
        args, kwargs = tuple(retry.sig.args or ()), dict(retry.sig.kwargs or {})
        again = Context(request.__dict__)
        again.update(args=list(args), kwargs=kwargs, retries=request.retries + 1, outbox=EagerOutbox(), _children=None)
        request = again


def _settle(task: Task[..., Any], request: Context, attempt: Attempt, outcome: Outcome) -> None:
    for signature, args, options in request.outbox.signatures:
        signature.apply(args, **options)
    if outcome.writes:
        value = attempt.exc if attempt.exc is not None else attempt.retval
        task.backend.store_result(request.id, value, outcome.state, outcome.traceback, request)


def _as_list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
