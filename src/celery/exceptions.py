"""Every exception and warning that users of the system can meet (API-071 to API-073).

The rules of this module:

* An exception is its ``args`` plus, where documented, named attributes. Both survive pickling and both are
  accepted by the constructor, because results carry exceptions as ``(class, args)`` (wire.md 4.2).
* Classes whose base lives in a third-party package (kombu's ``OperationalError`` and codec errors, click's
  ``ClickException``) are found on first access: importing kombu's exceptions alone costs 50 ms, and most processes
  never see one of them. In our own code refer to them as attributes (``exceptions.OperationalError``), so that
  the price is paid when something is raised or caught, not at import.
"""
# ruff: noqa: N818 - the names are public and older than the rule
from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from datetime import datetime
    from types import TracebackType

    from click import ClickException

    class OperationalError(Exception):
        """The broker cannot be reached or refused the operation."""

    class SerializationError(Exception):
        """Data could not be converted to or from its form on the wire."""

    class EncodeError(SerializationError):
        """The arguments or the result cannot be expressed by the serializer."""

    class DecodeError(SerializationError):
        """The bytes received are not what their content type says."""

    class ContentDisallowed(Exception):
        """The content type is not among those that this process accepts."""

    class CeleryCommandException(ClickException):
        """A command failed: click prints the message and exits with ``exit_code``."""

        def __init__(self, message: str, exit_code: int) -> None: ...


__all__ = (
    "AlreadyRegistered",
    "AlwaysEagerIgnored",
    "BackendError",
    "BackendGetMetaError",
    "BackendStoreError",
    "CDeprecationWarning",
    "CPendingDeprecationWarning",
    "CeleryCommandException",
    "CeleryError",
    "CeleryWarning",
    "ChordError",
    "ContentDisallowed",
    "DecodeError",
    "DuplicateNodenameWarning",
    "DuplicateTaskNameWarning",
    "EncodeError",
    "FixupWarning",
    "Ignore",
    "ImproperlyConfigured",
    "IncompleteStream",
    "InvalidTaskError",
    "MaxRetriesExceededError",
    "NotConfigured",
    "NotRegistered",
    "OperationalError",
    "QueueNotFound",
    "Reject",
    "Retry",
    "SecurityError",
    "SecurityWarning",
    "SendManyError",
    "SerializationError",
    "SoftTimeLimitExceeded",
    "TaskError",
    "TaskPredicate",
    "TaskRevokedError",
    "Terminated",
    "TimeLimitExceeded",
    "TimeoutError",
    "WorkerLostError",
    "WorkerShutdown",
    "WorkerTerminate",
    "reraise",
)

# What kombu defines and users catch under either name: the very same class, so that both spellings work.
_FROM_KOMBU = frozenset({"OperationalError", "SerializationError", "EncodeError", "DecodeError", "ContentDisallowed"})


def __getattr__(name: str) -> type[Exception]:
    """Find a class whose base is third-party, on first use (PEP 562)."""
    if name in _FROM_KOMBU:
        import kombu.exceptions

        found: type[Exception] = getattr(kombu.exceptions, name)
    elif name == "CeleryCommandException":
        found = _command_exception()
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def _command_exception() -> type[Exception]:
    from click import ClickException

    class CeleryCommandException(ClickException):
        """A command failed: click prints the message and exits with ``exit_code``."""

        def __init__(self, message: str, exit_code: int) -> None:
            super().__init__(message)
            self.exit_code = exit_code  # type: ignore[misc] # click means it as a default for instances to override

        def __reduce__(self) -> tuple[type[Exception], tuple[str, int]]:
            return type(self), (self.message, self.exit_code)

    # Pickle looks a class up by module and qualified name.
    CeleryCommandException.__qualname__ = "CeleryCommandException"
    return CeleryCommandException


def reraise(tp: type[BaseException], value: BaseException, tb: TracebackType | None = None) -> NoReturn:  # noqa: ARG001 - the documented signature
    """Raise ``value`` with the traceback ``tb`` (its own when None)."""
    raise value if tb is None else value.with_traceback(tb)


# -- Warnings ----------------------------------------------------------------------------------------------------------


class CeleryWarning(UserWarning):
    """Base of all warnings."""


class AlwaysEagerIgnored(CeleryWarning):
    """``send_task`` goes to the broker although ``task_always_eager`` is set."""


class DuplicateNodenameWarning(CeleryWarning):
    """Two workers answer to the same node name."""


class DuplicateTaskNameWarning(CeleryWarning):
    """Two different callables claim one task name."""


class FixupWarning(CeleryWarning):
    """The integration of a framework met something odd."""


class NotConfigured(CeleryWarning):
    """No configuration was found; the defaults apply."""


class SecurityWarning(CeleryWarning):
    """Something runs less safely than it could."""


class CPendingDeprecationWarning(PendingDeprecationWarning):
    """Going to be deprecated."""


class CDeprecationWarning(DeprecationWarning):
    """Deprecated."""


# -- Errors ------------------------------------------------------------------------------------------------------------


class CeleryError(Exception):
    """Base of all errors of the system itself."""


class ImproperlyConfigured(CeleryError):
    """A setting is missing, unknown or does not make sense."""


class SecurityError(CeleryError):
    """A security rule forbids going on: unsigned content, unsafe privileges."""


class TaskPredicate(CeleryError):
    """Base of what a task raises to say how its attempt ends, rather than that it failed."""


class Ignore(TaskPredicate):
    """End the attempt without storing a state; the message is acknowledged (API-073)."""


class Reject(TaskPredicate):
    """Reject the message (API-073).

    Args:
        reason: Why, for logs and for the stored ``FAILURE``.
        requeue: Deliver the message again, and store nothing.
    """

    def __init__(self, reason: Any = None, requeue: bool = False) -> None:
        self.reason = reason
        self.requeue = requeue
        super().__init__(reason, requeue)

    def __repr__(self) -> str:
        return f"reject requeue={self.requeue}: {self.reason}"


class Retry(TaskPredicate):
    """The task is to be tried again (API-072).

    Args:
        message: What to show instead of the generated text.
        exc: The error that made the attempt fail, or its repr.
        when: Seconds from now, or the datetime, of the next attempt.
        is_eager: The attempt runs in the calling process.
        sig: Signature of the next attempt.
    """

    #: The text given, or None.
    message: str | None = None
    #: The error that made the attempt fail, if it was given as an exception.
    exc: BaseException | None = None
    #: Seconds (a number) or datetime of the next attempt.
    when: float | datetime | None = None

    def __init__(
        self,
        message: str | None = None,
        exc: BaseException | str | None = None,
        when: float | datetime | None = None,
        is_eager: bool = False,
        sig: Any = None,
        **kwargs: Any,  # noqa: ARG002 - callers written for Celery may pass more
    ) -> None:
        self.exc = None if isinstance(exc, str) else exc
        self.excs = exc if exc is None or isinstance(exc, str) else repr(exc)
        self.message = message
        self.when = when
        self.is_eager = is_eager
        self.sig = sig
        super().__init__(message, exc, when)

    def humanize(self) -> str:
        """Say when the next attempt is due: ``in 3s`` or ``at <date>``."""
        return f"in {self.when}s" if isinstance(self.when, int | float) else f"at {self.when}"

    def __str__(self) -> str:
        if self.message:
            return self.message
        cause = f": {self.excs}" if self.excs else ""
        return f"Retry {self.humanize()}{cause}"


RetryTaskError = Retry


class TaskError(CeleryError):
    """Base of errors about one task."""


class QueueNotFound(KeyError, TaskError):
    """The queue is not in ``task_queues`` and ``task_create_missing_queues`` is off."""


class SendManyError(TaskError):
    """Some calls of a `send_many` could not be sent; the others were.

    Args:
        args: The text.
        kwargs: ``results``, one for each call, in order, None for those that were not sent; and ``errors``, position
            of the call -> its exception.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.results: list[Any] = kwargs.get("results", [])
        self.errors: dict[int, Exception] = kwargs.get("errors", {})
        super().__init__(*args)


class IncompleteStream(TaskError):
    """The end of a stream of data was not found."""


class NotRegistered(KeyError, TaskError):
    """No task of this name is registered here."""

    def __repr__(self) -> str:
        return f"Task {self.args[0] if self.args else None!r} is not registered: import the module that defines it."


class AlreadyRegistered(TaskError):
    """The name is taken."""


class TimeoutError(TaskError):
    """The wait for a result ran out of time."""


class MaxRetriesExceededError(TaskError):
    """The task failed more often than ``max_retries`` allows.

    Args:
        args: The text.
        kwargs: ``task_args`` and ``task_kwargs``, the arguments of the task.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_args = kwargs.pop("task_args", [])
        self.task_kwargs = kwargs.pop("task_kwargs", {})
        super().__init__(*args, **kwargs)


class TaskRevokedError(TaskError):
    """The task was revoked before it ended."""


class InvalidTaskError(TaskError):
    """The message is not a task message, or its fields are not of the documented types."""


class ChordError(TaskError):
    """A part of a chord failed, so its body cannot run (wire.md 4.2)."""


class BackendError(Exception):
    """Base of errors of the result store."""


class BackendGetMetaError(BackendError):
    """A result could not be read.

    Args:
        args: The text.
        kwargs: ``task_id``, whose result it was.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.task_id = kwargs.get("task_id", "")
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} task_id:{self.task_id}"


class BackendStoreError(BackendError):
    """A result could not be written.

    Args:
        args: The text.
        kwargs: ``state`` and ``task_id`` of the record.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.state = kwargs.get("state", "")
        self.task_id = kwargs.get("task_id", "")
        super().__init__(*args)

    def __repr__(self) -> str:
        return f"{super().__repr__()} state:{self.state} task_id:{self.task_id}"


# -- Limits and lost processes -----------------------------------------------------------------------------------------


class TimeLimitExceeded(Exception):
    """The task ran longer than its hard limit and was killed; the argument is the limit in seconds."""

    def __str__(self) -> str:
        return f"{type(self).__name__}{self.args}"


class SoftTimeLimitExceeded(Exception):
    """Raised inside the task when its soft limit passes, so that it can clean up."""

    def __str__(self) -> str:
        return f"{type(self).__name__}{self.args}"


class WorkerLostError(Exception):
    """The process that ran the task died; the text names exit code or signal."""


class Terminated(Exception):
    """The process that ran the task was ended on request; the argument is the signal."""


class WorkerTerminate(SystemExit):
    """End the worker at once (cold)."""


class WorkerShutdown(SystemExit):
    """End the worker once running tasks are done (warm)."""


SystemTerminate = WorkerTerminate
