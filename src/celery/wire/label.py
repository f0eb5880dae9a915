"""A few headers of each message: those that a worker's main process decides by, and those that running the task takes.
Bodies and the rest stay closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import msgspec

if TYPE_CHECKING:
    from celery.wire.envelope import Headers


class Label(msgspec.Struct, gc=False):
    """These headers, of the kinds that `celery.wire.protocol` demands. Without a task, the body has to be opened."""

    task: str | None = None
    id: str | None = None
    #: As sent.
    eta: str | None = None
    expires: str | None = None
    #: Hard and soft, seconds.
    timelimit: tuple[float | None, float | None] | None = None
    # Not decided by; read for their kinds.
    retries: int | None = None
    replaced_task_nesting: int | None = None
    stamps: dict[str, Any] | None = None


class Facts(Label, gc=False):
    """These headers, and what else an attempt looks at though nobody asks for its request. The names are those of a
    request (`celery.app.context`), which takes the place of this when somebody does.
    """

    # None is no name and no id: a message without one is not read so far.
    task: str = ""
    id: str = ""
    group: Any = None
    group_index: Any = None
    parent_id: Any = None
    ignore_result: Any = None
    compression: Any = None
    #: A property of the message.
    reply_to: Any = None
    #: Who sends tasks has asked for the request.
    children: ClassVar[tuple[()]] = ()


def label_in(headers: Headers) -> Label | None:
    """The label of headers as they came, in a third of the time that completing them takes. None: they name a time,
    or only `celery.wire.protocol` can tell what they are, or what is wrong with them. Where there is one, reading them
    there raises nothing.
    """
    try:
        label = msgspec.convert(headers, Label)
    except msgspec.ValidationError:
        return None
    return label if label.task and label.id and label.eta is None and label.expires is None else None


def label_of(headers: Headers) -> Label:
    """The label of complete headers, as `celery.wire.protocol` reads them."""
    return Label(headers["task"], headers["id"], headers["eta"], headers["expires"], tuple(headers["timelimit"]))
