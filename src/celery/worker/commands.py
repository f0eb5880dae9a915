"""The remote control commands of every worker (CTL-011 to CTL-045, wire.md 5.3).

They run on the worker's side thread. What changes something on the event loop is handed over to it.
"""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any

from celery import exceptions, states
from celery.app.brokers import broker_urls, options
from celery.app.censor import filter_hidden_settings, sanitize_url
from celery.app.control import TERM_SIGNAME
from celery.brokers.url import parse
from celery.platforms import signals
from celery.utils.functional import maybe_list
from celery.utils.log import get_logger
from celery.utils.serialization import jsonify, strtobool
from celery.worker import state as worker_state
from celery.worker.panel import ControlState, control_command, inspect_command

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from celery.brokers.topology import Exchange, Queue
    from celery.worker.request import Request

logger = get_logger(__name__)

#: Attributes that `registered` shows.
DEFAULT_TASK_INFO_ITEMS = ("exchange", "routing_key", "rate_limit")

#: Stored states in which a revoked task is marked as such at once: it does not run, as far as the store knows.
NOT_RUNNING = frozenset({states.PENDING, states.RECEIVED, states.RETRY, states.REJECTED})

#: The priority that timers of ETA tasks have in Celery.
SCHEDULED_PRIORITY = 6

Answer = dict[str, Any]


def ok(value: Any) -> Answer:
    """It was done (CTL-005)."""
    return {"ok": value}


# -- asking


@inspect_command(default_timeout=0.2)
def ping(state: ControlState) -> Answer:  # noqa: ARG001 - every command's signature
    """Ping worker(s)."""
    return ok("pong")


@inspect_command(alias="dump_active")
def active(state: ControlState, safe: bool | None = False) -> list[Answer]:  # noqa: ARG001 - every command's signature
    """List of tasks currently being executed."""
    return [request.info(safe=bool(safe)) for request in worker_state.active_requests]


@inspect_command(alias="dump_reserved")
def reserved(state: ControlState) -> list[Answer]:  # noqa: ARG001 - every command's signature
    """List of tasks received and waiting for their turn, without running and scheduled ones."""
    return [request.info() for request in worker_state.reserved_requests]


@inspect_command(alias="dump_schedule")
def scheduled(state: ControlState) -> list[Answer]:  # noqa: ARG001 - every command's signature
    """List of tasks that wait for their eta."""
    return [
        {"eta": task.eta, "priority": SCHEDULED_PRIORITY, "request": task.info}
        for task in worker_state.scheduled_requests.values()
    ]


@inspect_command(variadic="ids", signature="[id1 [id2 [... [idN]]]]")
def query_task(state: ControlState, ids: Any) -> dict[str, tuple[str, Answer]]:  # noqa: ARG001 - every command's signature
    """Query for task information by id."""
    wanted = set(maybe_list(ids) or ())
    waiting = worker_state.scheduled_requests
    found = {task_id: ("scheduled", waiting[task_id].info) for task_id in wanted & waiting.keys()}
    for kind, requests in (("reserved", worker_state.reserved_requests), ("active", worker_state.active_requests)):
        found.update({request.id: (kind, request.info()) for request in requests if request.id in wanted})
    return found


@inspect_command(alias="dump_revoked")
def revoked(state: ControlState) -> list[Any]:  # noqa: ARG001 - every command's signature
    """List of revoked task ids."""
    return list(worker_state.revoked)


@inspect_command(alias="dump_tasks", variadic="taskinfoitems", signature="[attr1 [attr2 [... [attrN]]]]")
def registered(state: ControlState, taskinfoitems: Iterable[str] | None = None, builtins: bool = False) -> list[str]:
    """List of registered tasks, with attributes."""
    names = [name for name in taskinfoitems or DEFAULT_TASK_INFO_ITEMS if not name.startswith("_")]

    def described(task: Any) -> str:
        values = ((name, getattr(task, name, None)) for name in names)
        shown = " ".join(f"{name}={value}" for name, value in values if value is not None)
        return f"{task.name} [{shown}]" if shown else str(task.name)

    tasks = state.app.tasks
    return [described(tasks[name]) for name in sorted(tasks) if builtins or not name.startswith("celery.")]


@inspect_command()
def stats(state: ControlState) -> Answer:
    """Request worker statistics."""
    consumer = state.consumer
    return {
        **state.worker.info(),
        "broker": _broker_info(state),
        "prefetch_count": 0 if consumer is None else consumer._prefetch,
        "rusage": _resource_usage(),
    }


def _broker_info(state: ControlState) -> Answer:
    """The connection, as CTL-028 has it, without secrets."""
    url, *others = broker_urls(state.app, read=True)
    given, conf, where = options(state.app), state.app.conf, parse(url)
    return {
        "hostname": where.host,
        "userid": where.user,
        "virtual_host": where.virtual_host,
        "port": where.port,
        "insist": False,
        "ssl": bool(given["ssl"]),
        "transport": where.scheme,
        "connect_timeout": given["connect_timeout"],
        "transport_options": _plain(filter_hidden_settings(conf.broker_transport_options or {})),
        "login_method": given["login_method"],
        "uri_prefix": None,
        "heartbeat": given["heartbeat"],
        "failover_strategy": str(conf.broker_failover_strategy or "round-robin"),
        "alternates": [sanitize_url(other) for other in others],
    }


def _resource_usage() -> Answer:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return {name.removeprefix("ru_"): getattr(usage, name) for name in dir(usage) if name.startswith("ru_")}


@inspect_command()
def active_queues(state: ControlState) -> list[Answer]:
    """List the queues that a worker consumes from."""
    if state.consumer is None:
        return []
    return [_describe_queue(queue) for queue in state.app.amqp.queues.consume_from.values()]


def _describe_queue(queue: Queue) -> Answer:
    bindings = [
        {"exchange": bound.exchange.name, "routing_key": bound.routing_key, "arguments": bound.arguments}
        for bound in queue.bindings
    ]
    fields = {name: getattr(queue, name) for name in queue.__struct_fields__}
    fields |= {"exchange": _describe_exchange(queue.exchange), "bindings": bindings}
    # Celery gives null where nobody has set it.
    return {**fields, "no_declare": queue.no_declare or None}


def _describe_exchange(exchange: Exchange) -> Answer:
    return {name: getattr(exchange, name) for name in exchange.__struct_fields__}


@inspect_command(alias="dump_conf", signature="[include_defaults=False]", args=[("with_defaults", strtobool)])
def conf(state: ControlState, with_defaults: bool = False) -> Any:
    """List configuration."""
    return _plain(state.app.conf.table(with_defaults=with_defaults))


def _plain(settings: Mapping[str, Any]) -> Any:
    """Settings as JSON has them: by their reprs where it has nothing better."""
    return jsonify(settings, keyfilter=lambda key: not str(key).startswith("__"), unknown_type_filter=repr)


@inspect_command()
def clock(state: ControlState) -> Answer:
    """Get current logical clock value."""
    return {"clock": state.app.clock.value}


@inspect_command()
def report(state: ControlState) -> Answer:
    """Information about the installation, for bug reports."""
    return ok(state.app.bugreport())


@inspect_command(visible=False)
def hello(state: ControlState, from_node: str, revoked: Any = None, **_: Any) -> Answer | None:
    """Exchange revoked ids and clocks with a worker that starts."""
    if from_node == state.hostname:
        return None
    if revoked:
        worker_state.merge_revoked(revoked)
    return {"revoked": list(worker_state.revoked), "clock": state.app.clock.forward()}


# -- changing


@control_command(variadic="task_id", signature="[id1 [id2 [... [idN]]]]")
def revoke(state: ControlState, task_id: Any, terminate: bool = False, signal: Any = None, **_: Any) -> Answer:
    """Revoke task by task id (or list of ids)."""
    ids = set(maybe_list(task_id) or ())
    signum = signals.signum(signal or TERM_SIGNAME) if terminate else None
    for each in ids:
        worker_state.revoked.add(each)
    here = [request for request in worker_state.requests.values() if request.id in ids]
    for request in here:
        _end(state, request, signum)
    for each in ids:
        worker_state.scheduled_requests.discard(each)
    # What is here is settled as what it comes to: it may have begun, and end well, though no tick has seen it yet.
    _mark_revoked(state, ids - {request.id for request in here})
    if not terminate:
        logger.info("Tasks flagged as revoked: %s", ", ".join(map(str, ids)))
        return ok(f"tasks {ids} flagged as revoked")
    if not here:
        return ok("terminate: tasks unknown")
    names = ", ".join(request.id for request in here)
    logger.info("Terminating %s (%s)", names, signal or TERM_SIGNAME)
    return ok(f"terminate: {names}")


@control_command(args=[("signal", str)], variadic="task_id", signature="<signal> [id1 [id2 [... [idN]]]]")
def terminate(state: ControlState, signal: Any, task_id: Any, **_: Any) -> Answer:
    """Terminate task by task id (or list of ids)."""
    return revoke(state, task_id, terminate=True, signal=signal)


def _end(state: ControlState, request: Request, signum: int | None) -> None:
    """Have an attempt end, by its request where the class of that has its own way to."""
    consumer = state.worker.consumer
    if signum is not None and request.keeper is not None and "terminate" in request.keeper.verbs:
        try:
            request.terminate(consumer.pool, signal=signum)
        except Exception:
            logger.exception("%s: terminate of its request class raised", request.humaninfo())
        signum = None  # what has not begun does not begin
    consumer.ending.end(request, signum)


def _mark_revoked(state: ControlState, ids: Iterable[str]) -> None:
    """Store REVOKED for what does not run: here, and as far as the store knows (CTL-029)."""
    backend = state.app.backend
    if not backend.persistent:
        return
    try:
        for task_id in ids:
            if backend.get_state(task_id) in NOT_RUNNING:
                backend.mark_as_revoked(task_id, reason="revoked")
    except exceptions.OperationalError as exc:
        logger.warning("Revoked tasks are not marked in the result backend yet: %s", exc)


@control_command()
def shutdown(state: ControlState, msg: str = "Got shutdown from remote", **_: Any) -> None:  # noqa: ARG001 - every command's signature
    """Shutdown worker(s)."""
    logger.warning(msg)
    raise exceptions.WorkerShutdown(0)
