"""What a worker's main process decides by: a few headers of each message. Bodies and the rest stay closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

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


def label_of(headers: Headers) -> Label:
    """The label of complete headers, as `celery.wire.protocol` reads them."""
    return Label(headers["task"], headers["id"], headers["eta"], headers["expires"], tuple(headers["timelimit"]))
