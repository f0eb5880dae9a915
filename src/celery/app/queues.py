"""The queues of an application, by name (ROUTE-011..016)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from celery.brokers.topology import Exchange, Queue
from celery.exceptions import ImproperlyConfigured
from celery.utils.text import indent as indented

if TYPE_CHECKING:
    from celery.app.config import Settings

__all__ = ("Queues", "configured_queues")

QUEUE_TYPES = ("classic", "quorum")
_LINE = ".> {name:<16} exchange={exchange}({type}) key={key}"


class Queues(dict[str, Queue]):
    """Queue records by name or alias; a missing one is made, where `create_missing` allows.

    Takes kombu's objects and gives records with the same attributes.
    """

    def __init__(
        self,
        queues: Iterable[Any] | Mapping[str, Any] | None = None,
        default_exchange: Exchange | None = None,
        create_missing: bool = True,
        create_missing_queue_type: str | None = None,
        create_missing_queue_exchange_type: str | None = None,
        autoexchange: Callable[[str], Any] | None = None,
        max_priority: int | None = None,
        default_routing_key: str | None = None,
    ) -> None:
        super().__init__()
        #: Another object after each change: what was computed from the queues is good while it is the same.
        self.mark = object()
        self.aliases: dict[str, Queue] = {}
        self.default_exchange = default_exchange or Exchange()
        self.default_routing_key = default_routing_key or ""
        self.create_missing = create_missing
        self.create_missing_queue_type = create_missing_queue_type
        self.create_missing_queue_exchange_type = create_missing_queue_exchange_type
        self.autoexchange = autoexchange or Exchange
        self.max_priority = max_priority
        self._consume_from: dict[str, Queue] | None = None
        self._select_added: dict[str, Queue] = {}
        if isinstance(queues, Mapping):
            for name, value in queues.items():
                self.add(_read_mapping(name, value) if isinstance(value, Mapping) else value)
        else:
            for queue in queues or ():
                self.add(queue)

    def __missing__(self, name: str) -> Queue:
        if name in self.aliases:
            return self.aliases[name]
        if not self.create_missing:
            raise KeyError(name)
        return self.add(self.new_missing(name))

    def __setitem__(self, name: str, queue: Queue) -> None:
        super().__setitem__(name, queue)
        self.mark = object()

    def add(self, queue: Any, **kwargs: Any) -> Queue:
        """Enter a queue: a record, kombu's object, or a name with options of `add_compat`."""
        if isinstance(queue, str):
            return self.add(_read_mapping(queue, kwargs))
        completed = self._complete(Queue.read(queue))
        self[completed.name] = completed
        if completed.alias:
            self.aliases[completed.alias] = completed
        return completed

    def add_compat(self, name: str, **options: Any) -> Queue:
        """Enter a queue given by options (exchange, exchange_type, routing_key or binding_key, ...)."""
        return self.add(name, **options)

    @staticmethod
    def read(queue: Any) -> Queue:
        """A queue that a call or a route brings, as a record; it is no entry and gets no defaults."""
        return Queue.read(queue)

    def _complete(self, queue: Queue) -> Queue:
        """The queue with the defaults filled in: exchange, routing key, priorities (ROUTE-012)."""
        arguments = queue.queue_arguments
        if self.max_priority is not None and queue.max_priority is None and "x-max-priority" not in (arguments or {}):
            arguments = {**(arguments or {}), "x-max-priority": self.max_priority}
        completed: Queue = _replace(
            queue,
            exchange=queue.exchange if queue.exchange.name or queue.bindings else self.default_exchange,
            routing_key=queue.routing_key or self.default_routing_key,
            queue_arguments=arguments,
        )
        return completed

    def new_missing(self, name: str) -> Queue:
        """A queue nobody declared: exchange and key of the same name (ROUTE-013).

        Raises:
            ValueError: task_create_missing_queue_type is neither "classic" nor "quorum".
        """
        kind = self.create_missing_queue_type or "classic"
        if kind not in QUEUE_TYPES:
            raise ValueError(
                f"Invalid queue type {kind!r} in task_create_missing_queue_type: it can be 'classic' or 'quorum'."
            )
        exchange = Exchange.read(self.autoexchange(name))
        if self.create_missing_queue_exchange_type:
            exchange = _replace(exchange, type=self.create_missing_queue_exchange_type)
        arguments = {"x-queue-type": "quorum"} if kind == "quorum" else None
        return Queue(name, exchange, name, queue_arguments=arguments)

    # -- what a worker consumes

    @property
    def consume_from(self) -> dict[str, Queue]:
        """The queues that a worker of this application consumes (ROUTE-014)."""
        chosen = self if self._consume_from is None else self._consume_from
        return {**chosen, **self._select_added}

    def select(self, include: str | Iterable[str] | None) -> None:
        """Consume only these (`-Q`). Raises KeyError for an unknown one that may not be created."""
        if include:
            names = include.split(",") if isinstance(include, str) else include
            self._consume_from = {name: self[name] for name in names}

    def select_add(self, queue: Any, **kwargs: Any) -> Queue:
        """Enter a queue that is consumed whatever is selected."""
        added = self.add(queue, **kwargs)
        self._select_added[added.name] = added
        return added

    def deselect(self, exclude: str | Iterable[str] | None) -> None:
        """Consume all but these (`-X`); an unknown name is ignored."""
        if exclude:
            names = set(exclude.split(",") if isinstance(exclude, str) else exclude)
            self._select_added = {name: queue for name, queue in self._select_added.items() if name not in names}
            chosen = self if self._consume_from is None else self._consume_from
            self._consume_from = {name: queue for name, queue in chosen.items() if name not in names}

    def format(self, indent: int = 0, indent_first: bool = True) -> str:
        """The lines of the worker's banner (CLI-045)."""
        lines = [
            _LINE.format(
                name=queue.name,
                exchange=queue.exchange.name,
                type=queue.exchange.type,
                key=queue.routing_key,
            )
            for _, queue in sorted(self.consume_from.items())
        ]
        if not lines:
            return ""
        if indent_first:
            return indented("\n".join(lines), indent)
        return "\n".join([lines[0], *(indented(line, indent) for line in lines[1:])])


def _replace(record: Any, **changes: Any) -> Any:
    import msgspec

    return msgspec.structs.replace(record, **changes)


def _read_mapping(name: str, options: Mapping[str, Any]) -> Queue:
    """A queue of `task_queues` in its mapping form."""
    given = dict(options)
    key = given.pop("routing_key", None) or given.pop("binding_key", None) or ""
    given.pop("binding_key", None)
    kind = given.pop("exchange_type", None)
    exchange = Exchange.read(given.pop("exchange", None))
    if kind:
        exchange = _replace(exchange, type=kind)
    unknown = given.keys() - Queue.__struct_fields__
    if unknown:
        raise ImproperlyConfigured(f"task_queues[{name!r}] has unknown options: {', '.join(sorted(unknown))}.")
    return Queue(name, exchange, key, **given)


def configured_queues(conf: Settings, autoexchange: Callable[[str], Any] | None, **overrides: Any) -> Queues:
    """The queues that the settings say (ROUTE-011)."""
    default_queue = conf.task_default_queue
    exchange = Exchange(conf.task_default_exchange or default_queue, conf.task_default_exchange_type)
    routing_key = conf.task_default_routing_key or default_queue
    declared = overrides.pop("queues", None)
    if declared is None:
        declared = conf.task_queues
    if not declared:
        arguments = {"x-queue-type": "quorum"} if conf.task_default_queue_type == "quorum" else None
        declared = (Queue(default_queue, exchange, routing_key, queue_arguments=arguments),)
    settings = {
        "create_missing": conf.task_create_missing_queues,
        "create_missing_queue_type": conf.task_create_missing_queue_type,
        "create_missing_queue_exchange_type": conf.task_create_missing_queue_exchange_type,
        "max_priority": conf.task_queue_max_priority,
        "autoexchange": autoexchange,
        **{name: value for name, value in overrides.items() if value is not None},
    }
    return Queues(declared, exchange, default_routing_key=routing_key, **settings)
