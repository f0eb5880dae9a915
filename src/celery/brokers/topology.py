"""Exchanges, queues and bindings as data, and the one table that says which queues a message reaches.

The records have the names and defaults of kombu's `Exchange` and `Queue`, which users configure with, and are
read from them by shape (`Queue.read`), so that kombu is never imported here. RabbitMQ routes by itself; the
stores that cannot (Redis, SQLite, memory) keep bindings and ask `matches`.

Matching, by exchange type (ROUTE-020)
    direct   the keys are equal
    fanout   always
    topic    words between dots; `*` is one word, `#` any number of words, none included
    headers  the binding's arguments against the message's headers; `x-match` all (default) or any; names that
             begin with `x-` do not count
The default exchange "" needs no binding: its routing key is the name of a queue.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class Exchange(msgspec.Struct, frozen=True, array_like=True):
    """Where messages are published. Hash and equality are by value where the arguments are empty."""

    name: str = ""
    type: str = "direct"
    durable: bool = True
    auto_delete: bool = False
    arguments: dict[str, Any] | None = None
    delivery_mode: int | str | None = None
    passive: bool = False
    no_declare: bool = False

    @classmethod
    def read(cls, value: Any) -> Exchange:
        """From kombu's Exchange, one of ours, a name, or None (the default exchange). Raises TypeError."""
        if isinstance(value, Exchange):
            return value
        if value is None or isinstance(value, str):
            return cls(value or "")
        if not hasattr(value, "delivery_mode"):
            raise TypeError(f"exchange {value!r} is none: give its name, or an Exchange.")
        return cls(
            name=value.name or "",
            type=value.type or "direct",
            durable=bool(value.durable),
            auto_delete=bool(value.auto_delete),
            arguments=dict(value.arguments) if value.arguments else None,
            delivery_mode=value.delivery_mode,
            passive=bool(value.passive),
            no_declare=bool(value.no_declare),
        )


class Binding(msgspec.Struct, frozen=True, array_like=True):
    """A queue's subscription to an exchange."""

    exchange: Exchange
    routing_key: str = ""
    arguments: dict[str, Any] | None = None


class Queue(msgspec.Struct, frozen=True, array_like=True):
    """Where messages wait (ROUTE-011..020). `expires` and `message_ttl` are seconds."""

    name: str
    exchange: Exchange = Exchange()
    routing_key: str = ""
    #: Bindings beyond the one of `exchange` and `routing_key`.
    bindings: tuple[Binding, ...] = ()
    durable: bool = True
    exclusive: bool = False
    auto_delete: bool = False
    no_ack: bool = False
    queue_arguments: dict[str, Any] | None = None
    binding_arguments: dict[str, Any] | None = None
    consumer_arguments: dict[str, Any] | None = None
    expires: float | None = None
    message_ttl: float | None = None
    max_length: int | None = None
    max_length_bytes: int | None = None
    max_priority: int | None = None
    alias: str | None = None
    no_declare: bool = False

    @classmethod
    def read(cls, value: Any) -> Queue:
        """From kombu's Queue or Broadcast, or one of ours. Raises TypeError."""
        if isinstance(value, Queue):
            return value
        if not hasattr(value, "bindings"):
            raise TypeError(f"queue {value!r} is none: give its name, or a Queue.")
        extra = tuple(
            Binding(Exchange.read(bound.exchange), bound.routing_key or "", dict(bound.arguments or {}) or None)
            for bound in value.bindings or ()
        )
        return cls(
            name=value.name,
            exchange=Exchange.read(value.exchange),
            routing_key=value.routing_key or "",
            bindings=extra,
            durable=bool(value.durable),
            exclusive=bool(value.exclusive),
            auto_delete=bool(value.auto_delete),
            no_ack=bool(value.no_ack),
            queue_arguments=dict(value.queue_arguments or {}) or None,
            binding_arguments=dict(value.binding_arguments or {}) or None,
            consumer_arguments=dict(value.consumer_arguments or {}) or None,
            expires=value.expires,
            message_ttl=value.message_ttl,
            max_length=value.max_length,
            max_length_bytes=value.max_length_bytes,
            max_priority=value.max_priority,
            alias=value.alias,
            no_declare=bool(value.no_declare),
        )

    @property
    def is_broadcast(self) -> bool:
        """Whether each consumer has a copy of every message (ROUTE-017)."""
        return self.exchange.type == "fanout"

    def all_bindings(self) -> tuple[Binding, ...]:
        """Every binding to declare; none for a queue that only the default exchange reaches."""
        if not self.exchange.name:
            return self.bindings
        return (Binding(self.exchange, self.routing_key, self.binding_arguments), *self.bindings)

    def declared_arguments(self) -> dict[str, Any]:
        """The arguments as RabbitMQ takes them: `x-expires` and the like, in milliseconds."""
        named = (
            ("x-expires", self.expires and int(self.expires * 1000)),
            ("x-message-ttl", None if self.message_ttl is None else int(self.message_ttl * 1000)),
            ("x-max-length", self.max_length),
            ("x-max-length-bytes", self.max_length_bytes),
            ("x-max-priority", self.max_priority),
        )
        return {**(self.queue_arguments or {}), **{name: value for name, value in named if value is not None}}


def matches(
    kind: str,
    pattern: str,
    routing_key: str,
    arguments: Mapping[str, Any] | None = None,
    headers: Mapping[str, Any] | None = None,
) -> bool:
    """Whether a binding (`pattern`, `arguments`) of an exchange of type `kind` takes a message."""
    if kind == "fanout":
        return True
    if kind == "topic":
        return topic_pattern(pattern).fullmatch(routing_key) is not None
    if kind == "headers":
        return _headers_match(arguments or {}, headers or {})
    return pattern == routing_key


@lru_cache(maxsize=1024)
def topic_pattern(key: str) -> re.Pattern[str]:
    """A topic binding key as a regular expression over whole routing keys, with AMQP's meaning of `#`."""
    # Each word carries its dot in front; the key is matched with a dot put in front of it in the same way,
    # which makes "#" (no words at all) need no special case but at the very beginning.
    parts: list[str] = []
    for index, word in enumerate(key.split(".")):
        dot = r"\." if index else ""
        if word == "#":
            parts.append(rf"(?:{dot}[^.]+(?:\.[^.]+)*)?" if index else r"(?:[^.]+(?:\.[^.]+)*)?")
        elif word == "*":
            parts.append(dot + r"[^.]+")
        else:
            parts.append(dot + re.escape(word))
    pattern = "".join(parts)
    if key.startswith("#."):
        # "#.b" takes "b": with no words before it the dot goes too.
        tail = topic_pattern(key[2:]).pattern
        pattern = rf"(?:[^.]+(?:\.[^.]+)*\.)?(?:{tail})"
    return re.compile(pattern)


def _headers_match(arguments: Mapping[str, Any], headers: Mapping[str, Any]) -> bool:
    wanted = {name: value for name, value in arguments.items() if not name.startswith("x-")}
    hits = (name in headers and (value is None or headers[name] == value) for name, value in wanted.items())
    return any(hits) if arguments.get("x-match") == "any" else all(hits)
