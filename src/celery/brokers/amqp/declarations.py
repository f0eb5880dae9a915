"""Exchanges, queues, bindings and the delay ladder, as methods to call in order (wire.md 2.2, 2.5)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from celery.brokers.amqp.messages import LADDER_EXIT, LEVELS, own_key, uses_ladder

if TYPE_CHECKING:
    from celery.brokers.topology import Exchange, Queue

#: A method and its arguments.
Call = tuple[str, dict[str, Any]]


def queue_calls(queue: Queue) -> list[Call]:
    """What a consumer declares: exchanges, the queue, its bindings."""
    calls = exchange_calls(queue)
    if queue.no_declare or not queue.name:
        return calls
    calls.append(
        (
            "queue.declare",
            {
                "queue": queue.name,
                "durable": queue.durable,
                "exclusive": queue.exclusive,
                "auto_delete": queue.auto_delete,
                "arguments": queue.declared_arguments(),
            },
        )
    )
    for bound in queue.all_bindings():
        calls.append(_bind(queue.name, bound.exchange.name, bound.routing_key, bound.arguments))
    return calls


def producer_calls(queue: Queue) -> list[Call]:
    """What a producer declares: of a Broadcast queue only the exchange, its queues belong to consumers."""
    consumers_own = queue.is_broadcast and queue.auto_delete
    return exchange_calls(queue) if consumers_own or not queue.name else queue_calls(queue)


def passive_calls(queue: Queue) -> list[Call]:
    """Asks whether the queue exists, for an account that may not declare."""
    return [("queue.declare", {"queue": queue.name, "passive": True})]


def exchange_calls(queue: Queue) -> list[Call]:
    """The exchanges that the queue is bound to."""
    exchanges = {bound.exchange.name: bound.exchange for bound in queue.all_bindings()}
    return [_exchange(exchange) for exchange in exchanges.values() if not _is_built_in(exchange)]


def ladder_calls(queue_type: str) -> list[Call]:
    """The delay ladder: 28 levels of an exchange and a queue, from the longest delay down, and the exit."""
    calls: list[Call] = []
    for level in range(LEVELS - 1, -1, -1):
        name, below = _level(level), _level(level - 1)
        arguments = {
            "x-queue-type": queue_type,
            "x-overflow": "reject-publish",
            "x-message-ttl": 2**level * 1000,
            "x-dead-letter-exchange": below,
        }
        if queue_type == "quorum":
            arguments["x-dead-letter-strategy"] = "at-least-once"
        calls += (
            _topic(name),
            ("queue.declare", {"queue": name, "durable": True, "arguments": arguments}),
            _bind(name, name, "*." * (LEVELS - 1 - level) + "1.#"),
        )
    calls.append(_topic(LADDER_EXIT))
    for level in range(LEVELS - 1, -1, -1):
        key = "*." * (LEVELS - 1 - level) + "0.#"
        calls.append(("exchange.bind", {"destination": _level(level - 1), "source": _level(level), "routing_key": key}))
    return calls


def ladder_binding(queue: str) -> Call:
    """The binding of our own key, which needs no more than a queue's name."""
    return _bind(queue, LADDER_EXIT, "#." + own_key(queue))


def ladder_queue_calls(queue: Queue) -> list[Call]:
    """Bindings from the ladder's exit to a task queue: by our own key, and by the peers' where they use it."""
    calls = [ladder_binding(queue.name)]
    if uses_ladder(queue):
        exchange, key = queue.exchange.name, queue.routing_key
        pattern = key if key.startswith("#") else f"#.{key}"
        calls += (
            ("exchange.bind", {"destination": exchange, "source": LADDER_EXIT, "routing_key": pattern}),
            _bind(queue.name, exchange, pattern),
        )
    return calls


def _level(level: int) -> str:
    return f"celery_delayed_{level}" if level >= 0 else LADDER_EXIT


def _topic(name: str) -> Call:
    return "exchange.declare", {"exchange": name, "type": "topic", "durable": True}


def _bind(queue: str, exchange: str, routing_key: str, arguments: dict[str, Any] | None = None) -> Call:
    return (
        "queue.bind",
        {"queue": queue, "exchange": exchange, "routing_key": routing_key, "arguments": arguments or {}},
    )


def _exchange(exchange: Exchange) -> Call:
    return (
        "exchange.declare",
        {
            "exchange": exchange.name,
            "type": exchange.type,
            "passive": exchange.passive,
            "durable": exchange.durable,
            "auto_delete": exchange.auto_delete,
            "arguments": exchange.arguments or {},
        },
    )


def _is_built_in(exchange: Exchange) -> bool:
    return exchange.no_declare or not exchange.name or exchange.name.startswith("amq.")
