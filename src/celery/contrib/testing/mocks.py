"""Messages and contexts for unit tests of code that handles them (API-108)."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock, Mock

from celery.utils.uniqueid import uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from celery.app.base import Celery
    from celery.canvas.signature import Signature

__all__ = ("ContextMock", "TaskMessage", "TaskMessage1", "task_message_from_sig")


def TaskMessage(  # noqa: N802 - the documented name
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] | None = None,
    errbacks: Sequence[Any] | None = None,
    chain: Sequence[Any] | None = None,
    shadow: str | None = None,
    utc: bool | None = None,  # noqa: ARG001 - in Celery's signature
    **options: Any,
) -> Mock:
    """A message of protocol 2 (wire.md 1.2), as a mock with headers, content_type, content_encoding, body and payload.

    Args:
        name: of the task.
        id: of the task; a new one if None.
        args: of the task.
        kwargs: of the task.
        callbacks: signatures to call on success.
        errbacks: signatures to call on failure.
        chain: signatures that follow.
        shadow: name to show.
        utc: unused.
        options: more headers.
    """
    task_id = id or uuid()
    embed = {"callbacks": callbacks, "errbacks": errbacks, "chain": chain}
    headers = {"id": task_id, "task": name, "shadow": shadow, **options}
    return _message(task_id, headers, (args, kwargs or {}, embed))


def TaskMessage1(  # noqa: N802 - the documented name
    name: str,
    id: str | None = None,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] | None = None,
    callbacks: Sequence[Any] | None = None,
    errbacks: Sequence[Any] | None = None,
    chain: Sequence[Any] | None = None,  # noqa: ARG001 - protocol 1 has none
    **options: Any,
) -> Mock:
    """A message of protocol 1: as `TaskMessage`, with everything in the body and no headers."""
    task_id = id or uuid()
    body = {
        "task": name,
        "id": task_id,
        "args": args,
        "kwargs": kwargs or {},
        "callbacks": callbacks,
        "errbacks": errbacks,
        **options,
    }
    return _message(task_id, {}, body)


def task_message_from_sig(
    app: Celery,
    sig: Signature[Any],
    utc: bool = True,
    TaskMessage: Callable[..., Mock] = TaskMessage,  # noqa: N803 - the documented name
) -> Mock:
    """The message that calling a signature would send.

    Args:
        app: the application; gives ``reply_to``.
        sig: the signature, which stays as it is.
        utc: handed on.
        TaskMessage: makes the message.
    """
    options = dict(sig.options)
    task_id = options["task_id"] = options.get("task_id") or uuid()
    options["reply_to"] = options.get("reply_to") or app.thread_oid
    now = datetime.now(UTC)
    countdown, eta, expires = options.pop("countdown", None), options.pop("eta", None), options.pop("expires", None)
    if countdown is not None:
        eta = now + timedelta(seconds=countdown)
    if isinstance(expires, int | float):
        expires = now + timedelta(seconds=expires)
    return TaskMessage(
        sig.task,
        id=task_id,
        args=sig.args,
        kwargs=sig.kwargs,
        callbacks=_as_dicts(options.pop("link", None)),
        errbacks=_as_dicts(options.pop("link_error", None)),
        eta=_iso(eta),
        expires=_iso(expires),
        utc=utc,
        **options,
    )


def ContextMock(*args: Any, **kwargs: Any) -> MagicMock:  # noqa: N802 - the documented name
    """A mock that is a context manager too; `with` gives the mock itself, and lets exceptions through.

    Args:
        args: of `Mock`.
        kwargs: of `Mock`.
    """
    mock = MagicMock(*args, **kwargs)
    mock.__enter__.return_value = mock
    mock.__exit__.return_value = None
    return mock


def _message(task_id: str, headers: dict[str, Any], payload: Any) -> Mock:
    message = Mock(name=f"TaskMessage-{task_id}")
    message.headers = headers
    message.content_type, message.content_encoding = "application/json", "utf-8"
    message.body, message.payload = json.dumps(payload), payload
    return message


def _as_dicts(signatures: Any) -> list[dict[str, Any]] | None:
    if not signatures:
        return None
    return [dict(each) for each in (signatures if isinstance(signatures, list | tuple) else [signatures])]


def _iso(moment: datetime | str | None) -> str | None:
    return moment.isoformat() if isinstance(moment, datetime) else moment
