"""From the options of a call to an addressed message (ROUTE-001..005, API-012..015, API-021).

What calls of one task have in common (where they go, how they are packed) is a *plan*. The latest one of each name is
kept, for the next call with the same options; a change of settings or queues makes all plans void, and a call whose
route a function decides has a plan of its own.
"""

from __future__ import annotations

import datetime
from copy import deepcopy
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from celery import exceptions, signals
from celery.app import routes as _routes
from celery.app.outcome import Outbox
from celery.app.queues import Queues, configured_queues
from celery.brokers.base import Publish
from celery.brokers.topology import Exchange, Queue
from celery.utils.log import get_logger
from celery.wire import serializers
from celery.wire.compression import compress, decompress
from celery.wire.envelope import Envelope
from celery.wire.protocol import CallOptions, Packing, Template, TemplateV1, as_task_v1, as_task_v2

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery.app.base import Celery
    from celery.wire.forms import Message

__all__ = ("AMQP", "Queues", "task_message")

logger = get_logger("celery.app.base")

#: The fewest seconds that `countdown` and `expires` may be (API-014).
INT_MIN = -2147483648

#: Options that say where and how to publish, and are no part of the message.
_DELIVERY_OPTIONS = frozenset(
    "queue exchange exchange_type routing_key mandatory immediate timeout confirm_timeout declare retry retry_policy "
    "connection producer publisher router route_name add_to_parent".split()
)
#: Without these, and without routes, a call goes where all such calls go.
_ADDRESS_OPTIONS = frozenset(("queue", "exchange", "exchange_type", "routing_key", "delivery_mode", "router"))
#: What a call says of itself; every other option belongs to its plan.
_OWN_OPTIONS = frozenset(
    "countdown eta expires group_id group_index retries root_id parent_id shadow replaced_task_nesting stamped_headers "
    "callbacks errbacks chain chord argsrepr kwargsrepr headers".split()
)
_TIMES = frozenset(("countdown", "eta", "expires"))
#: What is needed when the message is made already: where to answer, and how it is sent.
_SENDING_OPTIONS = frozenset(
    "timeout confirm_timeout declare retry retry_policy connection producer publisher add_to_parent reply_to".split()
)
#: Options of plans that are kept have values of these types: equal ones are the same on the wire.
_SIMPLE = frozenset((str, int, float, bool, type(None)))
#: Plans that are kept; names may come from anywhere.
_MOST_PLANS = 1000
#: Options of messages: of `Packing` and of `CallOptions`.
_MESSAGE_OPTIONS = frozenset(
    "countdown eta expires group_id group_index retries time_limit soft_time_limit root_id parent_id shadow "
    "ignore_result replaced_task_nesting stamped_headers callbacks errbacks chain chord argsrepr kwargsrepr headers "
    "serializer compression priority delivery_mode".split()
)
#: Settings that queues are made of begin so.
_QUEUE_SETTINGS = ("task_queue", "task_default_queue", "task_default_exchange", "task_default_routing", "task_create_")
_PROTOCOLS: dict[int, tuple[type[Template], Any]] = {1: (TemplateV1, as_task_v1), 2: (Template, as_task_v2)}
_DELIVERY_MODES: dict[Any, int] = {"transient": 1, "persistent": 2}
#: Keys of a retry policy; those of kombu's that have no meaning here may be given.
_POLICY = "max_retries interval_start interval_step interval_max errback on_revive retry_errors timeout".split()


class task_message(NamedTuple):  # noqa: N801 - the documented name
    """A message in Celery's own parts, for code that builds messages by hand."""

    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    body: Any
    sent_event: Mapping[str, Any] | None


class Address(NamedTuple):
    """Where a message goes."""

    exchange: str
    routing_key: str
    #: Declared before the first publish; None: nothing to declare.
    queue: Queue | None
    delivery_mode: int


class _Plan(NamedTuple):
    """What calls with the same options have in common."""

    #: Those options.
    options: dict[str, Any]
    #: The state of settings and queues that it was made of.
    settings: object
    queues: object
    address: Address
    #: What routes have added to the options.
    routed: dict[str, Any]
    packing: Packing
    #: Of calls that say nothing of themselves.
    template: Template


class Series(NamedTuple):
    """Calls that differ in ids and arguments only."""

    template: Template
    address: Address
    reply_to: str
    origin: str
    mandatory: bool
    #: Whether their times have to be looked at.
    timed: bool

    def message(self, task_id: str, args: Any, kwargs: Any, group_index: int | None = None) -> Publish:
        """The message of one of them. Raises what `Template.fill` does."""
        template, address, reply_to, origin, mandatory, timed = self
        envelope = template.fill(task_id, args, kwargs, reply_to=reply_to, origin=origin, group_index=group_index)
        until = None
        if timed:
            until = _until(envelope)
            if envelope.properties.get("expiration") == "0":
                logger.warning(
                    "%s[%s] has expired before it was sent: workers will not run it.", template.name, task_id
                )
        return Publish(envelope, address.exchange, address.routing_key, address.queue, mandatory, until)


class AMQP:
    """Queues, routes and messages of one application (`app.amqp`)."""

    #: Makes the exchange of a queue that nobody declared, from its name; may be overridden.
    autoexchange: Any = None
    argsrepr_maxsize = 1024
    kwargsrepr_maxsize = 1024
    queues_cls = Queues

    def __init__(self, app: Celery) -> None:
        self.app = app
        self._queues: Queues | None = None
        self._router: _routes.Router | None = None
        self._routes: tuple[Any, ...] | None = None
        self._plans: dict[str, _Plan] = {}
        app.conf.bind_to(self._settings_changed)

    # -- queues and routes

    @property
    def queues(self) -> Queues:
        """The queues, by name."""
        if self._queues is None:
            self._queues = configured_queues(self.app.conf, self.autoexchange)
        return self._queues

    @queues.setter
    def queues(self, queues: Any) -> None:
        self._queues = queues if isinstance(queues, Queues) else self.Queues(queues)
        self._forget()

    def Queues(self, queues: Any, **overrides: Any) -> Queues:  # noqa: N802 - the documented name
        """Queue records from `task_queues` in any form, with this application's defaults."""
        overrides.setdefault("autoexchange", self.autoexchange)
        return configured_queues(self.app.conf, overrides.pop("autoexchange"), queues=queues, **overrides)

    @property
    def routes(self) -> tuple[Any, ...]:
        """`task_routes` as routers."""
        if self._routes is None:
            self.flush_routes()
        assert self._routes is not None
        return self._routes

    @property
    def router(self) -> _routes.Router:
        """Applies the routes."""
        if self._router is None:
            self._router = self.Router()
        return self._router

    @router.setter
    def router(self, router: _routes.Router) -> None:
        self._forget()
        self._router = router

    def Router(self, queues: Any = None, create_missing: bool | None = None) -> _routes.Router:  # noqa: N802 - the documented name
        """A router over the configured routes."""
        create = self.app.conf.task_create_missing_queues if create_missing is None else create_missing
        return _routes.Router(self.routes, queues or self.queues, create, app=self.app)

    def flush_routes(self) -> None:
        """Read `task_routes` again."""
        self._routes = _routes.prepare(self.app.conf.task_routes)
        self._forget()

    @property
    def default_queue(self) -> Queue:
        """The queue of tasks without a route."""
        return self.queues[self.app.conf.task_default_queue]

    @property
    def default_exchange(self) -> Exchange:
        """The exchange of queues without one."""
        return Exchange(self.app.conf.task_default_exchange, self.app.conf.task_default_exchange_type)

    def _forget(self) -> None:
        self._router, self._plans = None, {}

    def _settings_changed(self, changes: Mapping[str, Any]) -> None:
        if "task_routes" in changes:
            self._routes = None
        if any(name.startswith(_QUEUE_SETTINGS) for name in changes):
            self._queues = None
        self._forget()

    # -- for code that speaks kombu, or builds messages by hand (API-021)

    @property
    def Connection(self) -> Any:  # noqa: N802 - the documented name
        """The class Connection of kombu."""
        return self.app._load("kombu:Connection")

    @property
    def Consumer(self) -> Any:  # noqa: N802 - the documented name
        """The class Consumer of kombu."""
        return self.app._load("kombu:Consumer")

    @property
    def Producer(self) -> Any:  # noqa: N802 - the documented name
        """The class Producer of kombu."""
        return self.app._load("kombu:Producer")

    @property
    def producer_pool(self) -> Any:
        """Producers of kombu for the broker."""
        return self.app.producer_pool

    BrokerConnection, publisher_pool = Connection, producer_pool

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **options: Any) -> Any:  # noqa: N802 - the documented name
        """A kombu consumer of these queues, or of those that a worker would consume."""
        found = list((self.queues.consume_from if queues is None else self.Queues(queues)).values())
        accept = self.app.conf.accept_content if accept is None else accept
        return self.app._load("celery.app.bridge:consumer")(channel, found, accept=accept, **options)

    def as_task_v2(self, task_id: str, name: str, *call: Any, **options: Any) -> task_message:
        """A message of protocol 2, of (task_id, name, args, kwargs, **options)."""
        return self._by_hand(as_task_v2, task_id, name, *call, **options)

    def as_task_v1(self, task_id: str, name: str, *call: Any, **options: Any) -> task_message:
        """A message of protocol 1, of the same."""
        return self._by_hand(as_task_v1, task_id, name, *call, **options)

    @property
    def utc(self) -> bool:
        """Whether times in messages are in UTC (`enable_utc`)."""
        return bool(self.app.conf.enable_utc)

    @property
    def task_protocols(self) -> dict[int, Any]:
        """What makes messages, by protocol."""
        return {version: partial(self._by_hand, build) for version, (_, build) in _PROTOCOLS.items()}

    @property
    def create_task_message(self) -> Any:
        """Makes a `task_message` of (task_id, name, args, kwargs, **options), by `task_protocol`."""
        return partial(self._by_hand, self._protocol[1])

    @property
    def _protocol(self) -> tuple[type[Template], Any]:
        version = self.app.conf.task_protocol
        if version not in _PROTOCOLS:
            raise exceptions.ImproperlyConfigured(f"task_protocol is {version!r}; it can be 1 or 2.")
        return _PROTOCOLS[version]

    def _by_hand(
        self, build: Any, task_id: str, name: str, args: Any = None, kwargs: Any = None, **options: Any
    ) -> task_message:
        given = {key: value for key, value in options.items() if key in _MESSAGE_OPTIONS and value is not None}
        reply_to = options.get("reply_to") or ""
        # Pickle keeps the types of arguments, as the body is not serialized for the last time.
        given |= {"serializer": "pickle", "now": self.app.now_utc(), "origin": self.app.origin_name()}
        envelope = build(task_id, name, args, kwargs, reply_to=reply_to, **given)
        properties = {"correlation_id": task_id, "reply_to": reply_to}
        return task_message(envelope.headers, properties, _opened(envelope), None)

    def send_task_message(self, producer: Any, name: str, message: task_message, **options: Any) -> None:
        """Send what `create_task_message` made.

        Args:
            producer: kombu's; None: the application's own way is taken.
            name: of the task.
            message: as it is to be sent.
            options: of `apply_async`, which say where and how to send it.
        """
        address = self.address(name, (), {}, options, None)
        serializer = options.get("serializer") or self.app.conf.task_serializer
        content_type, content_encoding, payload = serializers.dumps(message.body, serializer)
        headers = {**message.headers, **(options.get("headers") or {})}
        compression = options.get("compression") or self.app.conf.task_compression
        if compression:
            payload, headers["compression"] = compress(payload, compression)
        priority = _priority(options.get("priority") or self.app.conf.task_default_priority or 0)
        properties = {**message.properties, "delivery_mode": address.delivery_mode, "priority": priority}
        envelope = Envelope(headers, payload, content_type, content_encoding, properties)
        options["producer"] = producer
        until = _until(envelope)
        self.send(
            name, Publish(envelope, address.exchange, address.routing_key, address.queue, False, until), None, options
        )

    # -- messages

    def address(self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task_type: Any) -> Address:
        """Where a call goes. A route's other options (priority, serializer, ...) are filled into `options`."""
        if not self.routes and _ADDRESS_OPTIONS.isdisjoint(options):
            return self._resolve({"queue": self.default_queue})
        router = options.get("router") or self.router
        routed = router.route(options, options.get("route_name") or name, args, kwargs, task_type)
        options.update(routed)
        return self._resolve(options)

    def _resolve(self, options: Mapping[str, Any]) -> Address:
        """ROUTE-004: a direct exchange needs no lookup, its queue is reached by name."""
        queue: Queue | None = options.get("queue")
        given, key = options.get("exchange") or None, options.get("routing_key")
        if queue is None and given is None:
            queue = self.default_queue
        exchange = queue.exchange if queue and given is None else Exchange.read(given)
        mode = _delivery_mode(
            options.get("delivery_mode") or exchange.delivery_mode or self.app.conf.task_default_delivery_mode
        )
        if queue is None:
            return Address(exchange.name, key or self.app.conf.task_default_routing_key, None, mode)
        # The queues of a Broadcast are their consumers' own (ROUTE-017).
        declare = None if queue.no_declare or (queue.is_broadcast and queue.auto_delete) else queue
        kind = options.get("exchange_type") or queue.exchange.type
        if kind == "direct" and not (given and key):
            return Address("", queue.name, declare, mode)
        return Address(exchange.name, key or queue.routing_key, declare, mode)

    def message(
        self, task_id: str, name: str, args: Any, kwargs: Any, options: dict[str, Any], task_type: Any = None
    ) -> Publish:
        """An addressed message for a call; see `series`. Raises what that and `Template.fill` do."""
        return self.series(name, args, kwargs, options, task_type).message(task_id, args, kwargs)

    def series(self, name: str, args: Any, kwargs: Any, options: dict[str, Any], task_type: Any = None) -> Series:
        """What makes the messages of a call, and of calls that are like it.

        Args:
            name: task name.
            args: positional arguments, for routers.
            kwargs: keyword arguments, for routers.
            options: of `apply_async`, with link and link_error as `callbacks` and `errbacks`; what routes say is added.
            task_type: the registered task, for routers.

        Raises:
            QueueNotFound, EncodeError, TypeError, ValueError: the call cannot become a message.
        """
        app, plan = self.app, self._plans.get(name)
        if plan is not None and plan.options == options and not plan.routed and self._is_current(plan):
            # Nothing of its own, as most calls: there is nothing to sort.
            mandatory = bool(options.get("mandatory"))
            return Series(plan.template, plan.address, app.thread_oid, app.origin_name(), mandatory, False)
        named = options.get("stamped_headers")
        stamps = {stamp: options.get(stamp) for stamp in named} if named else {}
        own, fixed = {}, {}
        for option, value in options.items():
            if option in _OWN_OPTIONS:
                if value is not None:
                    own[option] = value
            elif option not in _SENDING_OPTIONS and option not in stamps:
                fixed[option] = value
        if plan is None or plan.options != fixed or not self._is_current(plan):
            plan = self._plan(name, args, kwargs, options, fixed, task_type)
        if plan.routed:
            options.update(plan.routed)
            own = {**{key: value for key, value in plan.routed.items() if key in _OWN_OPTIONS}, **own}
        template, timed = plan.template, False
        if stamps:
            own["stamps"] = stamps
        if own:
            timed = not _TIMES.isdisjoint(own)
            if "countdown" in own or "expires" in own:
                _check_range(name, own)
                own["now"] = app.now_utc()
            template = type(template)(name, plan.packing, CallOptions(**own))
        reply_to = options.get("reply_to") or app.thread_oid
        return Series(template, plan.address, reply_to, app.origin_name(), bool(options.get("mandatory")), timed)

    def _plan(
        self, name: str, args: Any, kwargs: Any, call: Mapping[str, Any], fixed: dict[str, Any], task_type: Any
    ) -> _Plan:
        """Make the plan of a call, and keep it if others may share it: if only name and fixed options decide."""
        conf = self.app.conf
        by_name = (
            "router" not in fixed
            and type(self.router) is _routes.Router
            and all(type(route) is _routes.MapRoute for route in self.routes)
        )
        options = dict(fixed if by_name else call)
        address = self.address(name, args, kwargs, options, task_type)
        routed = {key: value for key, value in options.items() if key not in call or call[key] is not value}
        options = {key: options[key] for key in options if key in fixed or key in routed}
        given = {
            key: value
            for key, value in options.items()
            if value is not None and key in _MESSAGE_OPTIONS and key not in _OWN_OPTIONS
        }
        given["delivery_mode"] = address.delivery_mode
        given["repr_maxlevels"] = conf.task_repr_maxlevels
        given.setdefault("serializer", conf.task_serializer)
        if conf.task_compression:
            given.setdefault("compression", conf.task_compression)
        if "priority" not in given and conf.task_default_priority is not None:
            given["priority"] = conf.task_default_priority
        if "priority" in given:
            given["priority"] = _priority(given["priority"])
        given["properties"] = {
            key: value
            for key, value in options.items()
            if key not in _MESSAGE_OPTIONS and key not in _DELIVERY_OPTIONS and key != "reply_to"
        }
        packing = Packing(**given)
        template = self._protocol[0](name, packing)
        plan = _Plan(fixed, conf.mark, self.queues.mark, address, routed, packing, template)
        if by_name and conf.steady and all(type(value) in _SIMPLE for value in fixed.values()):
            if len(self._plans) >= _MOST_PLANS:
                self._plans = {}
            self._plans[name] = plan
        return plan

    def _is_current(self, plan: _Plan) -> bool:
        queues = self._queues
        return queues is not None and plan.queues is queues.mark and plan.settings is self.app.conf.mark

    def send(self, name: str, message: Publish, body: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - receivers of the signals see the body as it was sent
        """Publish, with the signals around it (SIG-004, SIG-005).

        Args:
            name: task name, the signals' sender.
            message: what to send.
            body: (args, kwargs).
            options: producer, connection, declare, retry, retry_policy, timeout, of `apply_async`.

        Raises:
            OperationalError: the broker stayed away for as long as the retry policy says.
        """
        message, policy = self._before_send(name, message, options)
        if not self._send_otherwise(name, message, options, policy):
            publisher, declare = self.app.publisher, options.get("declare")
            if declare:
                declare = queues_of(declare)
                publisher.run(lambda sender: sender.declare(declare), policy)
            publisher.publish([message], confirm=self.confirms, timeout=options.get("timeout"), policy=policy)
            self.sent(name, message)

    async def asend(self, name: str, message: Publish, body: Any, options: Mapping[str, Any]) -> None:  # noqa: ARG002 - see send
        """`send` for coroutines."""
        message, policy = self._before_send(name, message, options)
        if not self._send_otherwise(name, message, options, policy):
            publisher = self.app.publisher
            if options.get("declare"):
                declare = queues_of(options["declare"])
                await publisher.arun(lambda sender: sender.declare(declare), policy)
            await publisher.apublish([message], confirm=self.confirms, timeout=options.get("timeout"), policy=policy)
            self.sent(name, message)

    def _send_otherwise(
        self, name: str, message: Publish, options: Mapping[str, Any], policy: dict[str, Any] | None
    ) -> bool:
        """Send by what the caller brings: an outbox, or a producer or connection of kombu."""
        producer, connection = options.get("producer") or options.get("publisher"), options.get("connection")
        if isinstance(producer, Outbox):
            declare = queues_of(options["declare"]) if options.get("declare") else ()
            producer.publish(message, name=name, policy=policy, timeout=options.get("timeout"), declare=declare)
            if producer.tells_when_sent:
                return True
        elif producer is not None or connection is not None:
            publish = self.app._load("celery.app.bridge:publish")
            publish(message, producer, connection, options.get("declare"), policy)
        else:
            return False
        self.sent(name, message)
        return True

    @property
    def confirms(self) -> bool:
        """Whether every publish waits for the broker's word (`confirm_publish`, off by default as in Celery)."""
        return bool((self.app.conf.broker_transport_options or {}).get("confirm_publish"))

    def _before_send(
        self, name: str, message: Publish, options: Mapping[str, Any]
    ) -> tuple[Publish, dict[str, Any] | None]:
        conf = self.app.conf
        policy = self.policy(options)
        if signals.before_task_publish.receivers:
            announced = dict(conf.task_publish_retry_policy if policy is None else policy)
            message = _announce(name, message, announced, options.get("serializer") or conf.task_serializer)
            policy = None if policy is None else announced
        return message, policy

    def policy(self, options: Mapping[str, Any]) -> dict[str, Any] | None:
        """The retry policy of a call; None: no retries."""
        conf, retry = self.app.conf, options.get("retry")
        if not (conf.task_publish_retry if retry is None else retry):
            return None
        own = options.get("retry_policy")
        return {**conf.task_publish_retry_policy, **_checked_policy(own)} if own else conf.task_publish_retry_policy

    def sent(self, name: str, message: Publish) -> None:
        """Tell `after_task_publish` (SIG-005) of a message that is with the broker."""
        if signals.after_task_publish.receivers:
            signals.after_task_publish.send(
                sender=name,
                body=_opened(message.envelope),
                headers=message.envelope.headers,
                exchange=message.exchange,
                routing_key=message.routing_key,
            )


def _until(envelope: Message) -> float | None:
    eta = envelope.headers.get("eta")
    if not eta:
        return None
    moment = datetime.datetime.fromisoformat(eta)
    return (moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)).timestamp()


def _check_range(name: str, options: Mapping[str, Any]) -> None:
    for option in ("countdown", "expires"):
        value = options.get(option)
        if isinstance(value, (int, float)) and value < INT_MIN:
            raise ValueError(f"{option} of task {name} is out of range: {value!r} seconds.")


def _checked_policy(policy: Mapping[str, Any]) -> Mapping[str, Any]:
    """A retry policy whose keys are known: a misspelt one would leave retries as they are, and nobody would see it."""
    for key in policy:
        if key not in _POLICY:
            raise TypeError(f"retry_policy has no key {key!r}: use {', '.join(_POLICY)}.")
    return policy


def _delivery_mode(chosen: Any) -> int:
    mode = _DELIVERY_MODES.get(chosen, chosen)
    if mode not in (1, 2):
        raise ValueError(f"delivery_mode {chosen!r} is none: use 'transient' (1) or 'persistent' (2).")
    return int(mode)


def _priority(chosen: Any) -> int:
    """A whole number, or its text, which Celery takes on Redis. Brokers take the nearest one that they have."""
    if isinstance(chosen, int) or (isinstance(chosen, str) and chosen.removeprefix("-").isdecimal()):
        return int(chosen)
    raise ValueError(f"priority {chosen!r} is none: use a whole number.")


def queues_of(declare: Iterable[Any]) -> list[Queue]:
    """What the option `declare` names. An exchange alone is left out: nobody is bound to it."""
    return [Queue.read(entity) for entity in declare if hasattr(entity, "exchange")]


def _opened(envelope: Message) -> Any:
    """The body as it was before it was serialized; of protocol 2 a tuple, as receivers know it."""
    packed = envelope.headers.get("compression")
    payload = decompress(envelope.body, packed) if packed else envelope.body
    accept = frozenset({envelope.content_type or ""})
    body = serializers.loads(payload, envelope.content_type, envelope.content_encoding, accept)
    return tuple(body) if isinstance(body, list) else body


def _announce(name: str, message: Publish, policy: dict[str, Any], serializer: str) -> Publish:
    """Let receivers of before_task_publish change the message in place: body, headers, properties."""
    envelope = message.envelope
    body, headers, properties = _opened(envelope), deepcopy(envelope.headers), dict(envelope.properties)
    signals.before_task_publish.send(
        sender=name,
        body=body,
        exchange=message.exchange,
        routing_key=message.routing_key,
        headers=headers,
        properties=properties,
        declare=[message.queue] if message.queue else [],
        retry_policy=policy,
    )
    payload = serializers.dumps(body, serializer)[2]
    if packed := envelope.headers.get("compression"):
        payload = compress(payload, packed)[0]
    changed = Envelope(headers, payload, envelope.content_type, envelope.content_encoding, properties)
    return msgspec.structs.replace(message, envelope=changed)
