"""Results as messages to whoever sent the task: `rpc://` (wire.md 2.6).

A worker publishes each record to the queue that the task's `reply_to` names, over the application's own broker. There
is no store: a record is for the process that sent the task, and gone with it. So there are no groups to restore and
no chords, and a task of another process stays PENDING for ever.

The sender declares its reply queue before the task is sent. Once somebody asks for a result, the queue is read until
the process ends or closes the backend (`rpc_replies`): it deletes itself when its reader goes, with all that is in it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec

from celery import exceptions, states
from celery.backends.base import BaseBackend
from celery.backends.rpc_replies import Replies, ReplyWatcher
from celery.brokers.base import Publish
from celery.brokers.topology import Queue
from celery.wire import serializers
from celery.wire.envelope import Envelope

if TYPE_CHECKING:
    from collections.abc import Sequence

    from celery.backends.asynchronous import Meta, Watcher
    from celery.brokers.base import Inbox, ResultWrite

#: Seconds for which a declared queue is taken to exist, where it does not expire.
_DECLARED_FOR = 3600.0


class BacklogLimitExceeded(Exception):  # noqa: N818 - Celery's name
    """What Celery's rpc raises over too many results that nobody has fetched (API-067); here, none does."""


class RPCBackend(BaseBackend):
    """Sends results back over the broker."""

    async_writer = True
    persistent = False
    supports_autoexpire = True
    supports_native_join = True
    is_async = True
    BacklogLimitExceeded = BacklogLimitExceeded

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._delivery_mode = 2 if self.app.conf.result_persistent else 1
        # The application's, because each of its threads has a backend, and one may wait for what another sent.
        # By process, because a forked one has queues and readers of its own.
        self._replies: dict[int, Replies] = self.app._part("rpc_replies", dict)

    @property
    def outlives_server(self) -> bool:
        """Whether records are to survive a restart of the server (`result_persistent`)."""
        return self._delivery_mode == 2

    # -- storing

    def _store_result(
        self, task_id: str, result: Any, state: str, traceback: str | None = None, request: Any = None, **_: Any
    ) -> Any:
        reply_to = getattr(request, "reply_to", None)
        if reply_to:
            record = self.make_record(task_id, result, state, traceback, request)
            content_type, content_encoding, payload = serializers.dumps(record, self.serializer)
            message = self._message(reply_to, task_id, payload, content_type, content_encoding)
            self.app.publisher.publish([message])
        return result

    async def write(self, batch: Sequence[ResultWrite]) -> None:
        """Publish many records; those that nobody asked for go nowhere."""
        messages = self.messages(batch)
        if messages:
            await self.app.publisher.apublish(messages, confirm=True)

    def messages(self, batch: Sequence[ResultWrite]) -> list[Publish]:
        """Records as messages, for a receiver that sends them itself."""
        return [
            self._message(write.reply_to, write.task_id, write.payload, write.content_type, write.content_encoding)
            for write in batch
            if write.reply_to
        ]

    def refusal(self, write: ResultWrite, reason: str) -> ResultWrite:
        """The record of a failure in place of one that cannot be sent."""
        record = self.prepare_write(write.task_id, exceptions.BackendStoreError(reason), states.FAILURE)
        return msgspec.structs.replace(record, reply_to=write.reply_to)

    def sends_to(self, url: str) -> bool:
        """Whether this broker is where all records go."""
        return self.app.publisher.urls == [url]

    def _message(
        self, reply_to: str, task_id: str, payload: bytes, content_type: str, content_encoding: str
    ) -> Publish:
        properties = {"correlation_id": task_id, "delivery_mode": self._delivery_mode, "priority": 0}
        return Publish(Envelope({}, payload, content_type, content_encoding, properties), "", reply_to)

    # -- reading

    def on_task_call(self, producer: Any, task_id: str) -> None:  # noqa: ARG002 - in Celery's signature
        """Declare the reply queue of this thread, before the task is sent."""
        lasts = min(self.expires / 2 if self.expires else _DECLARED_FOR, _DECLARED_FOR)
        self._ours().expect(self.app.thread_oid, self._declare, lasts, task_id)

    def make_watcher(self) -> Watcher:
        """A watcher of what comes back to this process."""
        return ReplyWatcher(self._ours(), self.app.thread_oid)

    def _get_task_meta_for(self, task_id: str) -> Meta:
        replies = self._ours()
        replies.catch_up()
        return replies.get(task_id) or {"status": states.PENDING, "result": None, "task_id": task_id}

    def _forget(self, task_id: str) -> None:
        self._ours().drop(task_id)

    def ensure_chords_allowed(self) -> None:
        """Chords cannot work: their parts would be counted where nobody can look (CANVAS-063)."""
        raise NotImplementedError(
            "The rpc result backend does not support chords: set result_backend to a store, redis:// for instance."
        )

    def as_uri(self, include_password: bool = False) -> str:  # noqa: ARG002 - there is none
        """The URL."""
        return "rpc://"

    def close(self) -> None:
        """Read the reply queues of this process no more: what has not been asked for is lost with them."""
        super().close()
        if (replies := self._replies.get(os.getpid())) is not None:
            replies.close()

    # -- inner

    def _queue(self, name: str) -> Queue:
        return Queue(name, durable=True, auto_delete=True, expires=self.expires or None)

    def _declare(self, name: str) -> None:
        self.app.publisher.run(lambda sender: sender.declare([self._queue(name)]))

    def _inbox(self, name: str) -> Inbox:
        return self.app.publisher.run(lambda sender: sender.inbox(self._queue(name)))

    def _read(self, envelope: Envelope) -> Meta:
        meta: Meta = serializers.loads(envelope.body, envelope.content_type, envelope.content_encoding, self.accept)
        return self.meta_from_decoded(meta)

    def _ours(self) -> Replies:
        """The replies of this process."""
        pid = os.getpid()
        known = self._replies.get(pid)
        return known or self._replies.setdefault(pid, Replies(self._inbox, self._read))
