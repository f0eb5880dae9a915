"""Which queue a task goes to: `task_routes` in all its forms (ROUTE-001..010). Pure: no I/O, no application.

Order of precedence: options of the call, then the routers in order (the first that answers wins), then the default
queue. A router fills only what the call has not set.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import translate
from typing import Any, cast

from celery.exceptions import ImproperlyConfigured, QueueNotFound
from celery.utils.collections import lpmerge
from celery.utils.imports import symbol_by_name

__all__ = ("MapRoute", "Router", "expand_router_string", "prepare")

#: What a router answers: a queue's name, a mapping of options, or nothing.
Route = str | Mapping[str, Any] | None


class MapRoute:
    """Routes from a mapping (or pairs) of task name, glob or compiled pattern to route (ROUTE-006).

    Exact names are tried first, then patterns in the order given.
    """

    def __init__(self, map: Mapping[Any, Any] | Iterable[tuple[Any, Any]]) -> None:
        self.map: dict[str, Any] = {}
        self.patterns: dict[re.Pattern[str], Any] = {}
        for key, route in map.items() if isinstance(map, Mapping) else map:
            if isinstance(key, re.Pattern):
                self.patterns[key] = route
            elif "*" in key:
                self.patterns[re.compile(translate(key))] = route
            else:
                self.map[key] = route

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Route:  # noqa: ARG002 - a router's signature
        if name in self.map:
            return self._answer(self.map[name])
        for pattern, route in self.patterns.items():
            if pattern.match(name):
                return self._answer(route)
        return None

    @staticmethod
    def _answer(route: Any) -> Route:
        # A copy: callers add to it.
        return {"queue": route} if isinstance(route, str) else dict(route or {})


class Router:
    """Applies routers to a call and names the queue."""

    def __init__(
        self,
        routes: Sequence[Any] | None = None,
        queues: Any = None,
        create_missing: bool = False,
        app: Any = None,
    ) -> None:
        self.routes: list[Callable[..., Route]] = list(routes or ())
        self.queues = queues
        self.create_missing = create_missing
        self.app = app

    def route(
        self, options: dict[str, Any], name: str, args: Any = (), kwargs: Any = None, task_type: Any = None
    ) -> dict[str, Any]:
        """The options of a call with those of its route filled in; `queue` is a Queue record, where one is named.

        Raises:
            QueueNotFound: no such queue, and `task_create_missing_queues` is off.
        """
        options = self.expand_destination(options)
        if self.routes:
            route = self.lookup_route(name, args, kwargs, options, task_type)
            if route:
                return cast("dict[str, Any]", lpmerge(self.expand_destination(route), options))
        if "queue" not in options:
            options = dict(lpmerge(self.expand_destination(self.app.conf.task_default_queue), options))
        return options

    def expand_destination(self, route: str | Mapping[str, Any]) -> dict[str, Any]:
        """A route as options, its queue's name replaced by the Queue."""
        options = {"queue": route} if isinstance(route, str) else dict(route)
        queue = options.pop("queue", None)
        if queue is None:
            return options
        if not isinstance(queue, str):
            return {**options, "queue": self.queues.read(queue)}
        try:
            return {**options, "queue": self.queues[queue]}
        except KeyError:
            raise QueueNotFound(f"Queue {queue!r} missing from task_queues") from None

    def lookup_route(
        self, name: str, args: Any = None, kwargs: Any = None, options: Any = None, task_type: Any = None
    ) -> Route:
        """The first router's answer that is not None."""
        for router in self.routes:
            route = self.query_router(router, name, args, kwargs, options, task_type)
            if route is not None:
                return route
        return None

    def query_router(self, router: Any, task: str, args: Any, kwargs: Any, options: Any, task_type: Any) -> Route:
        """One router's answer: a function's, or the `route_for_task` of an object (ROUTE-009)."""
        method = getattr(router, "route_for_task", None)
        if method is not None:
            return cast("Route", method(task, args, kwargs))
        return cast("Route", router(task, args, kwargs, options, task=task_type))


def expand_router_string(router: Any) -> Any:
    """The router at an import path; a class is instantiated."""
    router = symbol_by_name(router)
    return router() if isinstance(router, type) else router


def prepare(routes: Any) -> tuple[Any, ...]:
    """`task_routes` as routers (ROUTE-006..009).

    Raises:
        ImproperlyConfigured: a value that is no router.
    """
    if routes is None:
        return ()
    if not isinstance(routes, (list, tuple)):
        routes = (routes,)
    return tuple(_router(route) for route in routes)


def _router(route: Any) -> Any:
    if isinstance(route, (Mapping, list, tuple)):
        return MapRoute(route)
    if isinstance(route, str):
        return expand_router_string(route)
    if callable(route) or hasattr(route, "route_for_task"):
        return route
    raise ImproperlyConfigured(
        f"task_routes holds {route!r}; it takes mappings, lists of pairs, functions, objects with route_for_task, "
        "and import paths of these."
    )
