"""task_routes in all its forms (ROUTE-001, ROUTE-006..010)."""

from __future__ import annotations

import re

import pytest

from celery.app.queues import Queues
from celery.app.routes import MapRoute, Router, expand_router_string, prepare
from celery.exceptions import ImproperlyConfigured, QueueNotFound


def by_first_argument(name, args, kwargs, options, task=None, **_):
    return {"queue": "seven", "priority": 4} if args == (7,) else None


def by_name_alone(name, args, kwargs, options, task=None, **_):
    return "from-function"


class OldRouter:
    """The form of before 4.0."""

    def route_for_task(self, task, args=None, kwargs=None):
        return {"queue": f"old-{task}"} if args != (0,) else None


#: (task_routes, args of the call to `pkg.add`, the answer)
FORMS = {
    "a name": ({"pkg.add": "q"}, (), {"queue": "q"}),
    "a name and options": ({"pkg.add": {"queue": "q", "priority": 3}}, (), {"queue": "q", "priority": 3}),
    "a glob": ({"pkg.*": "q"}, (), {"queue": "q"}),
    "a glob that does not match": ({"other.*": "q"}, (), None),
    "a dot is only a dot": ({"pkg?add*": "q", "pkg.*": "r"}, (), {"queue": "q"}),
    "the exact name before a glob": ({"pkg.*": "glob", "pkg.add": "name"}, (), {"queue": "name"}),
    "the first of two globs": ({"*.add": "first", "pkg.*": "second"}, (), {"queue": "first"}),
    "a compiled pattern": ({re.compile(r"pkg\.(add|mul)"): "q"}, (), {"queue": "q"}),
    "pairs": ([[("x.*", "x"), ("pkg.*", {"queue": "q"})]], (), {"queue": "q"}),
    "the first router that answers": ([{"x.*": "x"}, {"pkg.*": "q"}, {"pkg.add": "late"}], (), {"queue": "q"}),
    "a function": (by_first_argument, (7,), {"queue": "seven", "priority": 4}),
    "a function that declines": (by_first_argument, (8,), None),
    "a function that names a queue": ((by_first_argument, by_name_alone), (), "from-function"),
    "an import path": (f"{__name__}:by_name_alone", (), "from-function"),
    "an object": (OldRouter(), (), {"queue": "old-pkg.add"}),
    "an object that declines": ([OldRouter(), {"*": "rest"}], (0,), {"queue": "rest"}),
    "a class at an import path": ((f"{__name__}.OldRouter",), (), {"queue": "old-pkg.add"}),
    "nothing": (None, (), None),
    "an empty mapping": ({}, (), None),
}


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """This module can be found by its name, as users' routers can."""
    import sys

    monkeypatch.setitem(sys.modules, __name__, sys.modules.get(__name__) or __import__("types").ModuleType(__name__))
    for name, value in (("by_name_alone", by_name_alone), ("OldRouter", OldRouter)):
        monkeypatch.setattr(sys.modules[__name__], name, value, raising=False)


@pytest.mark.parametrize("form", FORMS)
def test_a_route_may_be(form):
    routes, args, answer = FORMS[form]
    assert Router(prepare(routes)).lookup_route("pkg.add", args, {}, {}) == answer


def test_an_answer_may_be_changed_by_whoever_asked():
    routes = MapRoute({"pkg.add": {"queue": "q"}})
    routes("pkg.add")["queue"] = "changed"
    assert routes("pkg.add") == {"queue": "q"}


def test_a_route_fills_only_what_the_call_has_not_set():
    router = Router(prepare({"pkg.add": {"queue": "q", "priority": 3, "serializer": "yaml"}}), Queues())
    routed = router.route({"priority": 1, "queue": "mine"}, "pkg.add")
    assert (routed["queue"].name, routed["priority"], routed["serializer"]) == ("mine", 1, "yaml")


def test_a_queue_that_does_not_exist_is_named():
    router = Router(prepare({"pkg.add": "nowhere"}), Queues(create_missing=False))
    with pytest.raises(QueueNotFound, match="'nowhere' missing from task_queues"):
        router.route({}, "pkg.add")


def test_what_is_no_router_is_named():
    with pytest.raises(ImproperlyConfigured, match="task_routes holds 3"):
        prepare([{"a": "b"}, 3])
    with pytest.raises(ImportError):
        prepare("no.such.module:router")


def test_a_path_to_an_instance_is_taken_as_it_is():
    assert isinstance(expand_router_string(f"{__name__}:OldRouter"), OldRouter)
    assert expand_router_string(f"{__name__}:by_name_alone") is by_name_alone
