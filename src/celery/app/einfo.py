"""An exception with its traceback as text: what hooks get as `einfo`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import TracebackType

__all__ = ("ExceptionInfo",)


class ExceptionInfo:
    """`type`, `exception`, `tb` and `traceback` (text) of an exception. str() gives the text."""

    __slots__ = ("exception", "internal", "tb", "traceback", "type")

    def __init__(self, exception: BaseException, internal: bool = False, hide: str | None = None) -> None:
        """Read an exception.

        Args:
            exception: the exception.
            internal: it came from the machinery, not from the task.
            hide: leading frames of this file are left out.
        """
        import traceback  # only where something failed

        tb = exception.__traceback__
        while hide is not None and tb is not None and tb.tb_next is not None and tb.tb_frame.f_code.co_filename == hide:
            tb = tb.tb_next
        self.type = type(exception)
        self.exception = exception
        self.tb: TracebackType | None = tb
        self.internal = internal
        self.traceback = "".join(traceback.format_exception(self.type, exception, tb))

    @property  # type: ignore[misc]  # nobody sets it
    def __class__(self) -> Any:
        """For isinstance(): billiard's class where a program has loaded it, as OpenTelemetry asks for that one."""
        theirs = sys.modules.get("billiard.einfo")
        return ExceptionInfo if theirs is None else theirs.ExceptionInfo

    def __str__(self) -> str:
        return self.traceback

    def __repr__(self) -> str:
        return f"<ExceptionInfo: {self.exception!r}>"

    @property
    def exc_info(self) -> tuple[type[BaseException], BaseException, TracebackType | None]:
        """For logging."""
        return self.type, self.exception, self.tb
