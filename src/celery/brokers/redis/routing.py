"""From an address to the lists and channels that it reaches, and from a queue to the commands that declare it.

Peers store bindings but no exchange types: each of their processes knows what it has declared, and takes any other
exchange for direct (wire.md 3.4). We write down the types other than direct in a hash of our own, and ask it for an
exchange that we have not declared. Two need no asking, because every peer uses them so: `celery.pidbox` and
`celeryev` are fan-out. A Publish whose queue has an empty name declares its exchange only.

Bindings of headers exchanges, which peers do not have on Redis, carry their arguments as JSON where others have the
routing key.

A *posting* is what one publish comes to: pairs (list, text) to push and pairs (channel, text) to publish. Each copy has
its own delivery tag (wire.md 6.8).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import msgspec

from celery.brokers.redis import envelope
from celery.brokers.topology import matches
from celery.wire import forms

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery.brokers.base import Publish
    from celery.brokers.redis.keys import Keys
    from celery.brokers.redis.resp import Command
    from celery.brokers.topology import Queue
    from celery.wire.forms import Form

#: Life of a list of replies that nobody reads, in ms (wire.md 6.11): what 5.7's control queues have.
REPLY_LIFE = 300_000

_LEAST_BINDING_LIFE = 3_600_000


class Posting(msgspec.Struct, frozen=True, gc=False):
    """What a publish comes to."""

    pushes: list[tuple[str, bytes]]
    channels: list[tuple[str, bytes]]
    #: Milliseconds that the lists shall live from now on; None: for ever.
    life: int | None = None


class Routes:
    """What one process knows about exchanges.

    Args:
        keys: the names.
        fallback: queue for messages that no binding matches (option `deadletter_queue`); None: they are dropped.
    """

    def __init__(self, keys: Keys, fallback: str | None = None) -> None:
        self._keys = keys
        self._fallback = fallback
        self._kinds: dict[str, str] = {}
        #: Form, routing key and queue of the latest message to the default exchange; its list and the life of that.
        self._latest: tuple[Form | None, str, Queue | None, str, int | None] = None, "", None, "", None

    def learn(self, queue: Queue) -> None:
        """Remember the types of a queue's exchanges."""
        for binding in queue.all_bindings():
            self._kinds[binding.exchange.name] = binding.exchange.type

    def kind(self, exchange: str) -> str:
        """The type of an exchange, as far as this process knows."""
        if exchange == "celeryev" or (exchange.endswith(".pidbox") and not exchange.startswith("reply.")):
            return "fanout"
        return self._kinds.get(exchange, "direct")

    def needs_bindings(self, exchange: str) -> bool:
        """Whether the set of bindings decides where a message to this exchange goes."""
        return bool(exchange) and self.kind(exchange) != "fanout"

    def lookup(self, batch: Iterable[Publish]) -> tuple[list[str], list[Command]]:
        """What has to be asked before a batch can be posted: names of exchanges, and commands for `found`."""
        names = sorted(filter(self.needs_bindings, {publish.exchange for publish in batch}))
        if not names:
            return [], []
        commands: list[Command] = [("SMEMBERS", self._keys.bindings(name)) for name in names]
        commands.append(("HMGET", self._keys.exchanges, *names))
        return names, commands

    def found(self, names: list[str], replies: list[Any]) -> dict[str, Iterable[bytes]]:
        """The binding sets of the named exchanges, from the replies to `lookup`; their types are remembered."""
        if not names:
            return {}
        for name, kind in zip(names, replies[-1], strict=True):
            if kind is not None:
                self._kinds[name] = kind.decode()
        return dict(zip(names, replies[:-1], strict=True))

    def post(self, publish: Publish, members: Mapping[str, Iterable[bytes]]) -> Posting:
        """What has to be pushed and published.

        Args:
            publish: the message and its address.
            members: the binding sets of the exchanges for which `needs_bindings`.
        """
        message = publish.envelope
        exchange, key = publish.exchange, publish.routing_key
        if not exchange:
            form, queue = message.form if type(message) is forms.Filled else None, publish.queue
            known, its_key, its_queue, lane, life = self._latest
            # What is of one form has one priority.
            if form is None or form is not known or queue is not its_queue or key != its_key:
                lane = self._keys.lane(key, self._keys.step(forms.shared_properties(message).get("priority")))
                life = self._life(publish)
                self._latest = form, key, queue, lane, life
            return Posting([(lane, envelope.encode(message, exchange, key))], [], life)
        if self.kind(exchange) == "fanout":
            return Posting([], [(self._keys.channel(exchange, key), envelope.encode(message, exchange, key))])
        names = self.recipients(exchange, key, members.get(exchange, ()), message.headers)
        step = self._keys.step(message.properties.get("priority"))
        pushes = [(self._keys.lane(name, step), envelope.encode(message, exchange, key)) for name in names]
        return Posting(pushes, [], self._life(publish))

    def recipients(
        self, exchange: str, routing_key: str, members: Iterable[bytes], headers: Mapping[str, Any] | None = None
    ) -> list[str]:
        """The queues that an exchange's bindings choose; the fallback, if there is one, when they choose none."""
        kind = self.kind(exchange)
        chosen: dict[str, None] = {}
        for member in members:
            bound = self._keys.read_member(member.decode("utf-8", "replace"))
            if bound is None:
                continue
            arguments = _arguments(bound[0]) if kind == "headers" else None
            if matches(kind, bound[0], routing_key, arguments, headers):
                chosen[bound[1]] = None
        return list(chosen) or ([self._fallback] if self._fallback else [])

    def _life(self, publish: Publish) -> int | None:
        if publish.queue is not None and publish.queue.name == publish.routing_key:
            return expiry(publish.queue)
        return REPLY_LIFE if publish.exchange.startswith("reply.") else None

    def members(self, queue: Queue) -> list[tuple[str, str]]:
        """The bindings of a queue: pairs (exchange, member of its set)."""
        members: list[tuple[str, str]] = []
        for bound in queue.all_bindings():
            kind = self.kind(bound.exchange.name)
            key = json.dumps(bound.arguments or {}, sort_keys=True) if kind == "headers" else bound.routing_key
            if bound.exchange.name:
                members.append((bound.exchange.name, self._keys.member(kind, key, queue.name)))
        return members

    def announce(self, queue: Queue) -> list[Command]:
        """The command that writes down types of a queue's exchanges, for processes that do not declare them."""
        kinds = {bound.exchange.name: self.kind(bound.exchange.name) for bound in queue.all_bindings()}
        told = [text for name, kind in kinds.items() if name and kind != "direct" for text in (name, kind)]
        return [("HSET", self._keys.exchanges, *told)] if told else []

    def bind(self, queue: Queue) -> list[Command]:
        """The commands that bind a queue which does not expire: to both sets, in one transaction (wire.md 3.3)."""
        adds: list[Command] = []
        for exchange, member in self.members(queue):
            adds.append(("SADD", self._keys.bindings(exchange), member))
            adds.append(("SADD", self._keys.permanent_bindings(exchange), member))
        return [*self.announce(queue), ("MULTI",), *adds, ("EXEC",)] if adds else []

    def bind_expiring(self, queue: Queue) -> tuple[str | int, ...]:
        """The arguments of the script `bind` for a queue that expires."""
        pairs = [text for pair in self.members(queue) for text in pair]
        life = binding_life(queue)
        return (self._keys.deadlines, life, self._keys.bindings(""), self._keys.permanent_bindings(""), *pairs)

    def unbind(self, queue: Queue) -> list[Command]:
        """The commands that take a queue's bindings away, and then its lists."""
        commands: list[Command] = [("MULTI",)]
        for exchange, member in self.members(queue):
            commands.append(("SREM", self._keys.bindings(exchange), member))
            commands.append(("SREM", self._keys.permanent_bindings(exchange), member))
        commands.append(("DEL", *self._keys.lists(queue.name)))
        return [*commands, ("EXEC",)]


def _arguments(text: str) -> dict[str, Any]:
    """The arguments in a binding of a headers exchange; a member that has none matches nothing."""
    try:
        arguments = json.loads(text)
    except ValueError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"x-match": "any"}


def expiry(queue: Queue) -> int | None:
    """A queue's x-expires in milliseconds; None: it stays."""
    if queue.expires is None and not queue.queue_arguments:
        return None
    milliseconds = queue.declared_arguments().get("x-expires")
    return int(milliseconds) if milliseconds else None


def binding_life(queue: Queue) -> int:
    """How long the binding of an expiring queue is good for, in milliseconds; to be renewed after a third of it."""
    return max(2 * (expiry(queue) or 0), _LEAST_BINDING_LIFE)
