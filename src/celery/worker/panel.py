"""The register of remote control commands (CTL-008, CTL-009).

A command is a function `fn(state, **arguments)`. It is registered for the whole process when its module is imported:
in a worker, which runs it, and in the `celery` program, which offers it.
"""

from __future__ import annotations

from collections import UserDict
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from celery.app.base import Celery
    from celery.worker.consumer import Consumer
    from celery.worker.worker import WorkController

F = TypeVar("F", bound="Callable[..., Any]")


class CommandInfo(NamedTuple):
    """What the command line needs to know of a command."""

    #: Another name for it.
    alias: str | None = None
    #: "control" changes something, "inspect" asks.
    type: str = "control"
    #: Whether it is listed.
    visible: bool = True
    #: Seconds to wait for replies.
    default_timeout: float = 1.0
    help: str | None = None
    #: How its arguments are shown.
    signature: str | None = None
    #: (name, converter) of positional words.
    args: Sequence[tuple[str, Callable[[str], Any]]] | None = None
    #: Name of the argument that takes all other words.
    variadic: str | None = None


class ControlState(NamedTuple):
    """What a command may look at."""

    app: Celery
    #: Node name.
    hostname: str
    #: None before the first connection.
    consumer: Consumer | None
    worker: WorkController
    #: Calls a function on the event loop, with arguments, soon: commands run beside it.
    call_soon: Callable[..., Any]
    #: Kind of set to list ids in.
    tset: type = set


class Panel(UserDict[str, Any]):
    """All commands of this process: `Panel.data` by name and alias, `Panel.meta` by name."""

    data: dict[str, Callable[..., Any]] = {}
    meta: dict[str, CommandInfo] = {}

    @classmethod
    def register(cls, *, name: str | None = None, type: str = "control", **details: Any) -> Callable[[F], F]:
        """Enter a function.

        Args:
            name: of the command, if not the function's.
            type: "control" or "inspect".
            details: other fields of `CommandInfo`; `help` is the first line of the function's docstring, if not given.
        """

        def enter(function: F) -> F:
            command = name or function.__name__
            summary = (function.__doc__ or "").strip().partition("\n")[0]
            info = CommandInfo(type=type, **{"help": summary or None, **details})
            cls.data[command] = function
            cls.meta[command] = info
            if info.alias:
                cls.data[info.alias] = function
            return function

        return enter


def control_command(**details: Any) -> Callable[[F], F]:
    """Make a function a command that changes something; see `Panel.register`."""
    return Panel.register(type="control", **details)


def inspect_command(**details: Any) -> Callable[[F], F]:
    """Make a function a command that asks; see `Panel.register`."""
    return Panel.register(type="inspect", **details)
