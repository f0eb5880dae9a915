"""Remote control as messages: what is asked, who is meant, what is answered (wire.md 5.1, 5.2). No I/O.

Vocabulary
    *Node*: a process with a name that takes requests: a worker. *Request*: a command for some nodes. *Ticket*: what a
    request and its replies have in common.

Who is meant (the first line that applies decides)
    `destination` is given              the nodes in it
    `pattern` and `matcher` are given   the nodes whose names match
    else                                every node

A node that is not meant is silent. So is one that cannot tell, because the pattern is broken: an answer by all
nodes to a question for some is worse than none.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from celery.brokers.base import Publish
from celery.brokers.topology import Exchange, Queue
from celery.exceptions import ImproperlyConfigured
from celery.wire import serializers
from celery.wire.envelope import Envelope

if TYPE_CHECKING:
    from celery.app.config import Settings

__all__ = ("Mailbox", "Request", "is_addressed", "matches")

#: Ways to read a pattern. Both are case-sensitive; a pcre is matched from the start of the name.
MATCHERS: dict[str, Callable[[str, str], bool]] = {
    "glob": fnmatch.fnmatchcase,
    "pcre": lambda name, pattern: re.match(pattern, name) is not None,
}


class Request(NamedTuple):
    """A command and whom it is for."""

    method: str
    arguments: Mapping[str, Any]
    #: Node names; None: not restricted.
    destination: Sequence[str] | None = None
    pattern: str | None = None
    matcher: str | None = None
    #: None: no reply is wanted.
    ticket: str | None = None
    #: exchange and routing_key of the replies; None: no reply is wanted.
    reply_to: Mapping[str, str] | None = None


class Mailbox:
    """Exchanges, queues and messages of remote control, as an application's settings have them (CTL-001).

    Args:
        namespace: `control_exchange`.
        serializer: of requests and replies (`task_serializer`).
        accept: content types that are read.
        queue_ttl: seconds that a message waits at most.
        queue_expires: seconds that an unused queue lives.
        durable: queues outlive the broker.
        exclusive: queues belong to one connection.

    Raises:
        ImproperlyConfigured: durable and exclusive at once (CTL-048).
    """

    def __init__(
        self,
        namespace: str = "celery",
        *,
        serializer: str = "json",
        accept: frozenset[str] = frozenset({"application/json"}),
        queue_ttl: float | None = 300.0,
        queue_expires: float | None = 10.0,
        durable: bool = False,
        exclusive: bool = True,
    ) -> None:
        if durable and exclusive:
            raise ImproperlyConfigured(
                "control_queue_durable and control_queue_exclusive are both true, but an exclusive queue vanishes with "
                "its connection and cannot be durable: set one of them to False."
            )
        self.namespace = namespace
        self.serializer = serializer
        self.accept = accept
        self.exchange = Exchange(f"{namespace}.pidbox", "fanout", durable=False)
        self.reply_exchange = Exchange(f"reply.{namespace}.pidbox", "direct", durable=False)
        self._queue_flags: dict[str, Any] = {
            "durable": durable,
            "exclusive": exclusive,
            "auto_delete": not durable,
            "no_ack": True,
            "expires": queue_expires,
            "message_ttl": queue_ttl,
        }

    @classmethod
    def of(cls, conf: Settings) -> Mailbox:
        """The mailbox that an application's settings describe."""
        return cls(
            conf.control_exchange,
            serializer=conf.task_serializer,
            accept=serializers.resolve_accept(conf.accept_content),
            queue_ttl=conf.control_queue_ttl,
            queue_expires=conf.control_queue_expires,
            durable=conf.control_queue_durable,
            exclusive=conf.control_queue_exclusive,
        )

    # -- queues

    def node_queue(self, hostname: str) -> Queue:
        """Where a node takes requests."""
        return Queue(f"{hostname}.{self.exchange.name}", self.exchange, "", **self._queue_flags)

    def reply_queue(self, oid: str) -> Queue:
        """Where a client that calls itself `oid` takes replies."""
        return Queue(f"{oid}.{self.reply_exchange.name}", self.reply_exchange, oid, **self._queue_flags)

    # -- messages

    def publish_request(self, request: Request, *, clock: int, expires: float) -> Publish:
        """A request, addressed to all nodes' queues.

        Args:
            request: what is asked.
            clock: the sender's.
            expires: unix seconds; 0: never. For people: nodes do not look at it.
        """
        body = {
            "method": request.method,
            "arguments": request.arguments,
            "destination": request.destination,
            "pattern": request.pattern,
            "matcher": request.matcher,
        }
        if request.ticket is not None:
            body |= {"ticket": request.ticket, "reply_to": request.reply_to}
        envelope = self._envelope(body, {"clock": clock, "expires": expires}, delivery_mode=2)
        return Publish(envelope, self.exchange.name, "", Queue("", self.exchange))

    def publish_reply(self, request: Request, hostname: str, value: Any, *, clock: int) -> Publish:
        """A node's reply to a request that wants one.

        Raises:
            EncodeError: the serializer cannot express the value.
        """
        assert request.reply_to is not None
        envelope = self._envelope({hostname: value}, {"ticket": request.ticket, "clock": clock}, delivery_mode=1)
        return Publish(envelope, request.reply_to["exchange"], request.reply_to["routing_key"])

    def _envelope(self, body: Any, headers: dict[str, Any], delivery_mode: int) -> Envelope:
        content_type, content_encoding, payload = serializers.dumps(body, self.serializer)
        properties = {"delivery_mode": delivery_mode, "priority": 0}
        return Envelope(headers, payload, content_type, content_encoding, properties)

    def read_request(self, envelope: Envelope) -> Request:
        """A request as it came; keys that nobody knows are ignored.

        Raises:
            ContentDisallowed, DecodeError: the body cannot be opened.
            ValueError: it is no request.
        """
        body = self._read(envelope)
        fault = _fault(body)
        if fault:
            raise ValueError(fault)
        fields = {name: body[name] for name in Request._fields if body.get(name) is not None}
        return Request(**{"arguments": {}, **fields})

    def read_reply(self, envelope: Envelope, ticket: str) -> dict[str, Any] | None:
        """{node: reply}; None for a reply to another request.

        Raises:
            ContentDisallowed, DecodeError: the body cannot be opened.
        """
        if envelope.headers.get("ticket", ticket) != ticket:
            return None
        body = self._read(envelope)
        return dict(body) if isinstance(body, Mapping) else None

    def _read(self, envelope: Envelope) -> Any:
        return serializers.loads(envelope.body, envelope.content_type, envelope.content_encoding, self.accept)


def _fault(body: Any) -> str | None:
    """What makes a body no request."""
    if not isinstance(body, Mapping) or not isinstance(body.get("method"), str):
        return "a control request is a mapping that names a method"
    if not isinstance(body.get("arguments") or {}, Mapping):
        return f"the arguments of control command {body['method']!r} are no mapping"
    if isinstance(body.get("destination"), str):
        return f"the destination of control command {body['method']!r} is no list of node names"
    reply_to = body.get("reply_to") or {"exchange": "", "routing_key": ""}
    if not isinstance(reply_to, Mapping) or not {"exchange", "routing_key"} <= reply_to.keys():
        return f"reply_to of control command {body['method']!r} lacks exchange or routing_key"
    return None


def is_addressed(request: Request, hostname: str) -> bool:
    """Whether a node is meant.

    Raises:
        ValueError: the pattern cannot be read, or nobody knows the matcher.
    """
    if request.destination:
        return hostname in request.destination
    if request.pattern and request.matcher:
        return matches(hostname, request.pattern, request.matcher)
    return True


def matches(hostname: str, pattern: str, matcher: str) -> bool:
    """Whether a node's name fits a pattern.

    Raises:
        ValueError: the pattern cannot be read, or nobody knows the matcher.
    """
    match = MATCHERS.get(matcher)
    if match is None:
        raise ValueError(f"there is no matcher {matcher!r} for node names: use one of {', '.join(MATCHERS)}")
    try:
        return match(hostname, pattern)
    except (re.error, OverflowError, RecursionError) as exc:  # a count that is too large, parentheses too deep
        raise ValueError(f"the pattern {pattern!r} for node names is no regular expression: {exc}") from None
