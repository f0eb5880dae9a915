"""Remote control, the asking side: commands to running workers, and their replies (CTL-001 to CTL-007, CTL-046).

A broadcast that wants replies binds a reply queue of its own first, then sends the request, then reads replies until
the time is over or enough have come. The queue has a new name each time: replies that come too late meet nobody.
"""

from __future__ import annotations

import os
import time
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any

from celery.app.mailbox import Mailbox, Request, matches
from celery.exceptions import CeleryWarning, DuplicateNodenameWarning
from celery.utils.uniqueid import uuid

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from celery.app.base import Celery
    from celery.brokers.base import Sender

__all__ = ("Control", "Inspect", "flatten_reply")

#: The signal that ends a task: SIGTERM, or what REMAP_SIGTERM has put in its place (CLI-054).
TERM_SIGNAME = os.environ.get("REMAP_SIGTERM") or "SIGTERM"

#: Seconds that replies are waited for when nobody says how long.
DEFAULT_TIMEOUT = 1.0

#: {node: reply}
Reply = dict[str, Any]


def flatten_reply(reply: Iterable[Mapping[str, Any]]) -> Reply:
    """Merge `[{a: r}, {b: r}]` to one mapping (CTL-047); warns of nodes that share a name."""
    nodes: Reply = {}
    twice: set[str] = set()
    for item in reply:
        twice |= nodes.keys() & item.keys()
        nodes.update(item)
    if twice:
        warnings.warn(
            f"More than one worker replied as {', '.join(sorted(twice))}: only the last reply of each is kept. "
            "Give every worker a name of its own with `celery worker -n`.",
            DuplicateNodenameWarning,
            stacklevel=2,
        )
    return nodes


class Inspect:
    """Asks workers about themselves (CTL-007).

    Every method returns {node: reply}, or None when nobody replied; where `destination` is one name, that node's
    reply.

    Args:
        destination: one node name, or several; None: all nodes.
        timeout: seconds to wait for replies.
        callback: called with each reply as it comes.
        connection: accepted, see `Control.broadcast`.
        app: the application; the one whose `control.inspect` this is.
        limit: replies at most.
        pattern: only nodes whose names fit it.
        matcher: how `pattern` is read: "glob" or "pcre".
    """

    app: Any = None

    def __init__(
        self,
        destination: str | Sequence[str] | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        callback: Callable[[Reply], Any] | None = None,
        connection: Any = None,
        app: Celery | None = None,
        limit: int | None = None,
        pattern: str | None = None,
        matcher: str | None = None,
    ) -> None:
        self.app = app or self.app
        self.destination = destination
        self.timeout = timeout
        self.callback = callback
        self.connection = connection
        self.limit = limit
        self.pattern = pattern
        self.matcher = matcher

    def _request(self, command: str, **arguments: Any) -> Any:
        replies = self.app.control.broadcast(
            command,
            arguments=arguments,
            destination=self.destination,
            callback=self.callback,
            connection=self.connection,
            limit=self.limit,
            timeout=self.timeout,
            reply=True,
            pattern=self.pattern,
            matcher=self.matcher,
        )
        return self._prepare(replies)

    def _prepare(self, replies: list[Reply] | None) -> Any:
        if not replies:
            return None
        by_node = flatten_reply(replies)
        if isinstance(self.destination, str):
            return by_node.get(self.destination)
        if self.pattern and self.matcher:
            # Beat and other nodes of old may answer whatever the pattern.
            return {node: reply for node, reply in by_node.items() if matches(node, self.pattern, self.matcher)}
        return by_node

    def report(self) -> Any:
        """What a bug report needs, of each worker."""
        return self._request("report")

    def clock(self) -> Any:
        """Lamport clocks."""
        return self._request("clock")

    def active(self, safe: bool | None = None) -> Any:
        """Tasks that run now; with `safe`, arguments as the sender's texts."""
        return self._request("active", safe=safe)

    def scheduled(self, safe: bool | None = None) -> Any:  # noqa: ARG002 - in Celery's signature, and not sent there either
        """Tasks that wait for their eta."""
        return self._request("scheduled")

    def reserved(self, safe: bool | None = None) -> Any:  # noqa: ARG002 - as above
        """Tasks that were received and wait for their turn."""
        return self._request("reserved")

    def stats(self) -> Any:
        """Figures of each worker (CTL-028)."""
        return self._request("stats")

    def revoked(self) -> Any:
        """Ids of revoked tasks."""
        return self._request("revoked")

    def registered(self, *taskinfoitems: str) -> Any:
        """Names of registered tasks, with the named attributes (exchange, routing_key and rate_limit if none)."""
        return self._request("registered", taskinfoitems=taskinfoitems)

    registered_tasks = registered

    def ping(self, destination: str | Sequence[str] | None = None) -> Any:
        """Who is there; `destination` is kept for later calls."""
        if destination is not None:
            self.destination = destination
        return self._request("ping")

    def active_queues(self) -> Any:
        """Queues that are consumed from."""
        return self._request("active_queues")

    def query_task(self, *ids: Any) -> Any:
        """What workers know about tasks: {id: [state, info]}. Takes ids, or one list of them."""
        if len(ids) == 1 and isinstance(ids[0], (list, tuple)):
            ids = tuple(ids[0])
        return self._request("query_task", ids=ids)

    def conf(self, with_defaults: bool = False) -> Any:
        """Settings, without secrets."""
        return self._request("conf", with_defaults=with_defaults)

    def hello(self, from_node: str, revoked: Any = None) -> Any:
        """Exchange revoked ids and clocks, as starting workers do."""
        return self._request("hello", from_node=from_node, revoked=revoked)

    def memsample(self) -> Any:
        """Take a sample of resident memory."""
        return self._request("memsample")

    def memdump(self, samples: int = 10) -> Any:
        """Samples of resident memory that were taken."""
        return self._request("memdump", samples=samples)

    def objgraph(self, type: str = "Request", n: int = 200, max_depth: int = 10) -> Any:
        """Draw what refers to objects of a type."""
        return self._request("objgraph", num=n, max_depth=max_depth, type=type)


class Control:
    """Commands to running workers (CTL-046).

    All methods take the keywords of `broadcast` too (reply, timeout, limit, callback, pattern, matcher, ...) and
    return what it returns.

    Raises:
        ImproperlyConfigured: control_queue_durable and control_queue_exclusive are both true (CTL-048).
    """

    Mailbox = Mailbox

    def __init__(self, app: Celery) -> None:
        self.app = app
        self.mailbox = self.Mailbox.of(app.conf)

    @cached_property
    def inspect(self) -> type[Inspect]:
        """`Inspect` of this application."""
        return self.app.subclass_with_self(Inspect)  # type: ignore[no-any-return]  # a subclass of what is given

    # -- asking

    def broadcast(
        self,
        command: str,
        arguments: Mapping[str, Any] | None = None,
        destination: str | Sequence[str] | None = None,
        connection: Any = None,  # noqa: ARG002 - in Celery's signature
        reply: bool = False,
        timeout: float | None = DEFAULT_TIMEOUT,
        limit: int | None = None,
        callback: Callable[[Reply], Any] | None = None,
        channel: Any = None,  # noqa: ARG002 - in Celery's signature
        pattern: str | None = None,
        matcher: str | None = None,
        **extra_kwargs: Any,
    ) -> list[Reply] | None:
        """Send a command to nodes (CTL-002 to CTL-004).

        Args:
            command: its name.
            arguments: of the command.
            destination: one node name, or several; None: all nodes.
            connection: accepted; the application's own connections to its broker are used.
            reply: wait for replies.
            timeout: seconds to wait for all of them together.
            limit: stop after so many; the number of destinations, if they are given.
            callback: called with each reply as it comes.
            channel: accepted, as `connection`.
            pattern: only nodes whose names fit it; counts only with `matcher`.
            matcher: how `pattern` is read: "glob" or "pcre".
            extra_kwargs: more arguments.

        Returns:
            `[{node: reply}, ...]` with `reply`, else None.

        Raises:
            OperationalError: the broker cannot be reached.
        """
        nodes = [destination] if isinstance(destination, str) else destination and list(destination)
        request = Request(command, {**(arguments or {}), **extra_kwargs}, nodes)
        if pattern and matcher:
            request = request._replace(pattern=pattern, matcher=matcher)
        seconds = DEFAULT_TIMEOUT if timeout is None else timeout
        if not reply:
            self.app.publisher.run(lambda sender: self._send(sender, request, seconds))
            return None
        wanted = limit or (len(nodes) if nodes else None)
        return self.app.publisher.run(lambda sender: self._ask(sender, request, seconds, wanted, callback))

    def _send(self, sender: Sender, request: Request, timeout: float) -> None:
        message = self.mailbox.publish_request(
            request, clock=self.app.clock.forward(), expires=time.time() + timeout if timeout else 0
        )
        sender.publish([message])

    def _ask(
        self,
        sender: Sender,
        request: Request,
        timeout: float,
        wanted: int | None,
        callback: Callable[[Reply], Any] | None,
    ) -> list[Reply]:
        ticket, oid = uuid(), uuid()
        request = request._replace(
            ticket=ticket, reply_to={"exchange": self.mailbox.reply_exchange.name, "routing_key": oid}
        )
        inbox = sender.inbox(self.mailbox.reply_queue(oid))
        replies: list[Reply] = []
        try:
            self._send(sender, request, timeout)
            deadline = time.monotonic() + timeout
            while not wanted or len(replies) < wanted:
                envelope = inbox.get(max(deadline - time.monotonic(), 0.0))
                if envelope is None:
                    break
                self.app.clock.adjust(envelope.headers.get("clock") or 0)
                answer = self.mailbox.read_reply(envelope, ticket)
                if answer is not None:
                    replies.append(answer)
                    if callback is not None:
                        callback(answer)
        finally:
            inbox.close()
        return replies

    # -- commands

    def purge(self, connection: Any = None) -> int:  # noqa: ARG002 - in Celery's signature
        """Delete all messages that wait in the application's queues; how many."""
        names = list(self.app.amqp.queues.consume_from)
        return self.app.publisher.run(lambda sender: sum(sender.purge(name) for name in names))

    discard_all = purge

    def ping(
        self, destination: str | Sequence[str] | None = None, timeout: float = DEFAULT_TIMEOUT, **kwargs: Any
    ) -> list[Reply] | None:
        """Who is there: `[{node: {"ok": "pong"}}, ...]`."""
        return self.broadcast("ping", destination=destination, timeout=timeout, **{"reply": True, **kwargs})

    def election(self, id: str, topic: str, action: Any = None, connection: Any = None) -> None:
        """Let the workers elect one that acts on a topic (CTL-045)."""
        if len(self.ping(limit=2, connection=connection) or ()) == 1:
            warnings.warn(
                f"Only one worker answers before the election {id!r} (topic {topic!r}): a worker of Celery 5.7 that is "
                "alone ends with an error in an election. Start another one first.",
                CeleryWarning,
                stacklevel=2,
            )
        self.broadcast("election", connection=connection, arguments={"id": id, "topic": topic, "action": action})

    def revoke(
        self, task_id: Any, destination: Any = None, terminate: bool = False, signal: Any = TERM_SIGNAME, **kwargs: Any
    ) -> list[Reply] | None:
        """Tell workers not to run a task, or several (CTL-029).

        Args:
            task_id: one id, or a list.
            destination: as of `broadcast`.
            terminate: end it if it runs already: its process gets `signal`.
            signal: name or number.
            kwargs: of `broadcast`.
        """
        arguments = {"task_id": task_id, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke", destination=destination, arguments=arguments, **kwargs)

    def revoke_by_stamped_headers(
        self,
        headers: Mapping[str, Any],
        destination: Any = None,
        terminate: bool = False,
        signal: Any = TERM_SIGNAME,
        **kwargs: Any,
    ) -> list[Reply] | None:
        """Tell workers not to run tasks with these stamps (CTL-032): {stamp: value or list of values}."""
        arguments = {"headers": headers, "terminate": terminate, "signal": signal}
        return self.broadcast("revoke_by_stamped_headers", destination=destination, arguments=arguments, **kwargs)

    def terminate(
        self, task_id: Any, destination: Any = None, signal: Any = TERM_SIGNAME, **kwargs: Any
    ) -> list[Reply] | None:
        """`revoke` with terminate."""
        return self.revoke(task_id, destination=destination, terminate=True, signal=signal, **kwargs)

    def rate_limit(
        self, task_name: str, rate_limit: int | str, destination: Any = None, **kwargs: Any
    ) -> list[Reply] | None:
        """Change a task's rate limit (CTL-033)."""
        arguments = {"task_name": task_name, "rate_limit": rate_limit}
        return self.broadcast("rate_limit", destination=destination, arguments=arguments, **kwargs)

    def time_limit(
        self,
        task_name: str,
        soft: float | None = None,
        hard: float | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> list[Reply] | None:
        """Change a task's time limits, in seconds (CTL-034)."""
        arguments = {"task_name": task_name, "hard": hard, "soft": soft}
        return self.broadcast("time_limit", destination=destination, arguments=arguments, **kwargs)

    def add_consumer(
        self,
        queue: str,
        exchange: str | None = None,
        exchange_type: str = "direct",
        routing_key: str | None = None,
        options: Mapping[str, Any] | None = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> list[Reply] | None:
        """Start consuming from a queue (CTL-035); `options` are of the queue."""
        arguments = {
            "queue": queue,
            "exchange": exchange,
            "exchange_type": exchange_type,
            "routing_key": routing_key,
            **(options or {}),
        }
        return self.broadcast("add_consumer", destination=destination, arguments=arguments, **kwargs)

    def cancel_consumer(self, queue: str, destination: Any = None, **kwargs: Any) -> list[Reply] | None:
        """Stop consuming from a queue (CTL-036)."""
        return self.broadcast("cancel_consumer", destination=destination, arguments={"queue": queue}, **kwargs)

    def enable_events(self, destination: Any = None, **kwargs: Any) -> list[Reply] | None:
        """Send task events from now on (CTL-037)."""
        return self.broadcast("enable_events", destination=destination, **kwargs)

    def disable_events(self, destination: Any = None, **kwargs: Any) -> list[Reply] | None:
        """Send task events no more (CTL-038)."""
        return self.broadcast("disable_events", destination=destination, **kwargs)

    def heartbeat(self, destination: Any = None, **kwargs: Any) -> list[Reply] | None:
        """Send a worker-heartbeat event now (CTL-039)."""
        return self.broadcast("heartbeat", destination=destination, **kwargs)

    def pool_grow(self, n: int = 1, destination: Any = None, **kwargs: Any) -> list[Reply] | None:
        """Add processes (CTL-040)."""
        return self.broadcast("pool_grow", destination=destination, arguments={"n": n}, **kwargs)

    def pool_shrink(self, n: int = 1, destination: Any = None, **kwargs: Any) -> list[Reply] | None:
        """Take processes away (CTL-041)."""
        return self.broadcast("pool_shrink", destination=destination, arguments={"n": n}, **kwargs)

    def pool_restart(
        self,
        modules: Sequence[str] | None = None,
        reload: bool = False,
        reloader: Any = None,
        destination: Any = None,
        **kwargs: Any,
    ) -> list[Reply] | None:
        """Start the pool's processes anew (CTL-042)."""
        arguments = {"modules": modules, "reload": reload, "reloader": reloader}
        return self.broadcast("pool_restart", destination=destination, arguments=arguments, **kwargs)

    def autoscale(self, max: int, min: int, destination: Any = None, **kwargs: Any) -> list[Reply] | None:
        """Change the bounds of autoscaling (CTL-043)."""
        return self.broadcast("autoscale", destination=destination, arguments={"max": max, "min": min}, **kwargs)

    def shutdown(self, destination: Any = None, **kwargs: Any) -> list[Reply] | None:
        """Stop workers, once their tasks are done (CTL-044)."""
        return self.broadcast("shutdown", destination=destination, **kwargs)
