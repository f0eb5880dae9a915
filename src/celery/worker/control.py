"""Remote control, the answering side (CTL-001, CTL-005, CTL-006).

Rules
    1. Requests are read on the event loop, in the order they came. Commands run one after the other on the worker's
       side thread, so that none of them holds up tasks; replies leave in the order of the requests.
    2. Whatever a peer sends, and whatever a command does, ends in a reply or a log line, never in the end of the
       worker; save WorkerShutdown and WorkerTerminate, which are how a command asks for that.
    3. At most `BACKLOG` requests wait. More are refused in the log: their senders have long stopped listening.
    4. Remote control is a service to people. A broker that does not let us have the mailbox (another node of our
       name is using it) does not keep us from working: we say so, and try again. That the connection is lost, if it
       is, the consumer notices by itself.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from celery import exceptions
from celery.app.mailbox import is_addressed
from celery.utils.log import get_logger
from celery.worker import commands, state
from celery.worker.panel import ControlState, Panel, control_command, inspect_command

if TYPE_CHECKING:
    from celery.app.mailbox import Mailbox, Request
    from celery.brokers.base import Receiver
    from celery.wire.envelope import Envelope
    from celery.worker.worker import WorkController

__all__ = ("ControlMailbox", "ControlState", "Panel", "control_command", "inspect_command")

logger = get_logger(__name__)

#: Requests that may wait for their turn.
BACKLOG = 1000

#: Seconds until the mailbox is tried again.
RETRY_PAUSE = 5.0

#: What a command gave that shall not be replied to.
_NO_REPLY: Any = object()


class ControlMailbox:
    """Takes requests for one worker and has them answered."""

    def __init__(self, worker: WorkController) -> None:
        self.worker = worker
        self._receiver: Receiver | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._waiting = 0
        self._mailbox: Mailbox | None = None

    async def start(self, receiver: Receiver) -> None:
        """Listen through this receiver from now on; not where remote control is off or the broker has no fan-out."""
        state.watch(self.worker.requests)
        self._receiver, self._loop = receiver, asyncio.get_running_loop()
        app = self.worker.app
        if not app.conf.worker_enable_remote_control or not receiver.capabilities.fanout:
            return
        self._mailbox = app.control.mailbox
        if not await self._listen(receiver):
            self.worker.spawn(self._keep_trying(receiver))

    async def _listen(self, receiver: Receiver) -> bool:
        assert self._mailbox is not None
        hostname = self.worker.hostname
        try:
            await receiver.listen(self._mailbox.node_queue(hostname), self.on_message)
        except (exceptions.ImproperlyConfigured, exceptions.OperationalError) as exc:
            logger.warning(
                "Remote control of %s is off, trying again in %.0f seconds. If another worker has this name, give each "
                "one its own with -n. (%s)", hostname, RETRY_PAUSE, exc,
            )  # fmt: skip
            return False
        return True

    async def _keep_trying(self, receiver: Receiver) -> None:
        while True:
            await asyncio.sleep(RETRY_PAUSE)
            if self._receiver is not receiver or await self._listen(receiver):
                return

    def on_message(self, envelope: Envelope) -> None:
        """A request came. On the loop; never raises."""
        app, hostname, mailbox = self.worker.app, self.worker.hostname, self._mailbox
        assert mailbox is not None
        try:
            app.clock.adjust(int(envelope.headers.get("clock") or 0))
            request = mailbox.read_request(envelope)
            if not is_addressed(request, hostname):
                return
        except Exception as exc:  # noqa: BLE001 - rule 2
            logger.error("A control request cannot be read: %s", exc)  # noqa: TRY400 - the reason is the text
            return
        if self._waiting >= BACKLOG:
            logger.error("Control command %r is refused: %d others wait already.", request.method, BACKLOG)
            return
        self._waiting += 1
        self.worker.spawn(self._answer(mailbox, request))

    async def _answer(self, mailbox: Mailbox, request: Request) -> None:
        try:
            value = await self.worker.run_hook(self.handle, request)
        finally:
            self._waiting -= 1
        if value is _NO_REPLY or not request.reply_to:
            return
        app, hostname = self.worker.app, self.worker.hostname
        clock = app.clock.forward()
        try:
            message = mailbox.publish_reply(request, hostname, value, clock=clock)
        except exceptions.EncodeError as exc:
            logger.error("The reply to control command %r cannot be sent: %s", request.method, exc)  # noqa: TRY400 - the reason is the text
            message = mailbox.publish_reply(request, hostname, _error(exc), clock=clock)
        try:
            # Confirmed: where the asker has gone, a broker may refuse it, which is to concern nobody else.
            await app.publisher.apublish([message], confirm=True)
        except (exceptions.OperationalError, exceptions.EncodeError) as exc:  # the second: larger than the broker takes
            logger.warning("The reply to control command %r is lost: %s", request.method, exc)

    def handle(self, request: Request) -> Any:
        """Run a command; what to reply. On the side thread; raises nothing."""
        worker = self.worker
        command = Panel.data.get(request.method)
        if command is None:
            logger.error("No such control command: %s", request.method)
            return _error(KeyError(request.method))
        assert self._loop is not None
        about = ControlState(worker.app, worker.hostname, worker.consumer, worker, self._loop.call_soon_threadsafe)
        try:
            value = command(about, **request.arguments)
            state.maybe_shutdown()
        except exceptions.WorkerShutdown as exc:
            worker.request_stop("warm", _exit_code(exc))
            return _NO_REPLY
        except exceptions.WorkerTerminate as exc:
            worker.request_stop("cold", _exit_code(exc))
            return _NO_REPLY
        except BaseException as exc:
            logger.exception("Control command %r failed", request.method)
            return _error(exc)
        return value


def _error(exc: BaseException) -> commands.Answer:
    return {"error": repr(exc)}


def _exit_code(exc: SystemExit) -> int:
    return exc.code if isinstance(exc.code, int) else 0
