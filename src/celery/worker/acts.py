"""What can be done with a request, by whoever has one: the hooks and the verbs of `Task.Request` (API-042).

A request of a class that its task brings has a `Turn` (`celery.worker.gate`), which does what is asked here. Those of
the worker's own class have none: they are settled and run by the worker alone. When the worker calls what a class
overrides of the rest is said in `celery.worker.verbs`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from celery.brokers.base import Verdict
from celery.exceptions import Retry, TaskRevokedError
from celery.platforms import signals

if TYPE_CHECKING:
    from celery.app.einfo import ExceptionInfo
    from celery.worker.gate import Handed, Turn
    from celery.worker.request import Request


class RequestActs:
    """The documented methods of a request."""

    __slots__ = ()

    if TYPE_CHECKING:
        keeper: Turn | None
        started_at: float | None
        @property
        def acknowledged(self) -> bool: ...
        @property
        def expires(self) -> datetime | None: ...
        @property
        def id(self) -> str: ...
        def humaninfo(self) -> str: ...

    # -- running it, for subclasses; from any thread

    def maybe_expire(self) -> bool | None:
        """True once the task is past its expiry."""
        return True if self.expires is not None and datetime.now(UTC) > self.expires else None

    def revoked(self) -> bool:
        """Whether the task was revoked, or is past its expiry, by now.

        The worker has asked before it made the request. A subclass may say True for reasons of its own: what then
        neither runs nor is settled ends as REVOKED.
        """
        return self._kept().is_off(self._itself())

    def execute_using_pool(self, pool: Any, **kwargs: Any) -> Handed:  # noqa: ARG002 - in Celery's signature
        """Hand the request to the pool. The worker calls this for each, where the class of a task defines it.

        Args:
            pool: runs functions too (`celery.concurrency.base.BasePool`); the task itself always runs in the worker's.
            kwargs: not used.

        Returns:
            Tells how far it is. The second call hands over nothing, and returns the same as the first.

        Raises:
            TaskRevokedError: `revoked` says so.
        """
        if self.revoked():
            raise TaskRevokedError(self.id)
        return self._kept().hand(self._itself())

    def execute(self, loglevel: int | None = None, logfile: str | None = None) -> Any:
        """Run the task here, in the calling thread of the worker's main process, and settle it.

        Args:
            loglevel: for `request.loglevel`.
            logfile: for `request.logfile`.

        Returns:
            What the task returned; the text of a failure's traceback. None where it is revoked, or runs already.
        """
        if self.revoked():
            return None
        return self._kept().execute(self._itself(), {"loglevel": loglevel, "logfile": logfile})

    # -- settling it, for subclasses; from any thread, until its hooks have returned

    def acknowledge(self) -> None:
        """Let the broker forget the message now, as when it is acknowledged early."""
        if not self.acknowledged:
            self._kept().ask(self._itself(), Verdict.ACK)

    def reject(self, requeue: bool = False) -> None:
        """Refuse the message, or give it back: now, or, of what is in the pool, once the attempt is over. Without
        effect on one that is acknowledged.
        """
        verdict = Verdict.REQUEUE if requeue else Verdict.DEAD
        if not self.acknowledged and self._kept().ask(self._itself(), verdict):
            self.send_event("task-rejected", requeue=requeue)

    def send_event(self, type: str, **fields: Any) -> None:
        """Tell monitors of something. This worker sends no events yet: only subclasses do anything here.

        Args:
            type: such as "task-started".
            fields: of the event.
        """

    def _kept(self) -> Turn:
        if self.keeper is None:
            raise NotImplementedError(
                f"{self.humaninfo()} is run and settled by the worker, as its task brings no class of requests "
                "(Task.Request)"
            )
        return self.keeper

    def _itself(self) -> Request:
        return self  # type: ignore[return-value]  # the only class that derives from this one

    # -- ending it, from any thread

    def terminate(self, pool: Any, signal: Any = None) -> None:
        """Have the attempt end now, and the task as REVOKED.

        Args:
            pool: the consumer's.
            signal: name or number, for the process that runs it: SIGTERM. No process dies for what has not begun.
        """
        signum = signals.signum(signal or "TERM")
        if self.keeper is not None:
            self.keeper.signum = signum
        pool.events.end(self, signum, again=False)

    def cancel(self, pool: Any, signal: Any = None, emit_retry: bool = True) -> None:
        """Have the attempt end now, and the task run again if its message is still the broker's.

        Args:
            pool: the consumer's.
            signal: as for `terminate`.
            emit_retry: its state is RETRY until then.
        """
        pool.events.end(self, signals.signum(signal or "TERM"), again=True, record=emit_retry)
        if self.started_at is not None:
            self.send_event("task-cancelled")

    # -- hooks, for subclasses; called on the side thread

    def _pay(self) -> None:
        if self.keeper is not None:
            self.keeper.pay(self._itself())

    def on_accepted(self, pid: int | None, time_accepted: float) -> None:  # noqa: ARG002 - for subclasses
        """It has started.

        Args:
            pid: of the child; None for an attempt that was over before a tick found it.
            time_accepted: unix seconds.
        """
        self._pay()

    def on_timeout(self, soft: bool, timeout: float) -> None:  # noqa: ARG002 - for subclasses
        """A time limit of so many seconds was up. The soft one is told of when the attempt has ended."""
        if not soft:
            self._pay()

    def on_success(self, failed__retval__runtime: tuple[bool, Any, float], **_: Any) -> None:
        """The attempt is over; of one that failed, this calls `on_failure`.

        Args:
            failed__retval__runtime: whether it failed; the repr of its value, or its ExceptionInfo; seconds.
        """
        failed, value, _runtime = failed__retval__runtime
        if failed:
            self.on_failure(value, return_ok=True)
        else:
            self._pay()

    def on_failure(self, exc_info: ExceptionInfo, send_failed_event: bool = True, return_ok: bool = False) -> None:  # noqa: ARG002 - in Celery's signature
        """The attempt failed, or asked for a retry; of the latter, this calls `on_retry`."""
        if isinstance(exc_info.exception, Retry):
            self.on_retry(exc_info)
        else:
            self._pay()

    def on_retry(self, exc_info: ExceptionInfo) -> None:  # noqa: ARG002 - for subclasses
        """The attempt asked for a retry."""
        self._pay()
