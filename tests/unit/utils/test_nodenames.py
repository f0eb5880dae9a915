"""Names of workers and the letters in them (CLI-065)."""

import os

import pytest

from celery.utils.nodenames import (
    anon_nodename,
    default_nodename,
    gethostname,
    host_format,
    node_format,
    nodename,
    nodesplit,
    worker_direct,
)


def test_a_node_name_is_two_parts():
    assert nodename("w", "h") == "w@h"
    assert nodesplit("w@h") == ("w", "h")
    assert nodesplit("h") == (None, "h")


def test_missing_parts_have_defaults():
    assert default_nodename("w@h") == "w@h"
    assert default_nodename("h") == "celery@h"
    assert default_nodename("w@") == f"w@{gethostname()}"
    assert default_nodename(None) == f"celery@{gethostname()}"
    assert anon_nodename("h") == f"gen{os.getpid()}@h"


def test_letters_are_expanded():
    assert host_format("%h|%n|%d|%i|%I|%%", host="a.dom.org", name="n") == "a.dom.org|n|dom.org|0||%"
    assert node_format("%p %n %h %d", "w@a.dom.org") == "w@a.dom.org w a.dom.org dom.org"
    assert node_format("%n-%i%I.log", "w@h", i="3", I="-3") == "w-3-3.log"
    assert node_format("%n", "h") == "celery"


def test_an_unknown_letter_is_named():
    with pytest.raises(ValueError, match="%z"):
        host_format("%z", "h")


def test_a_worker_has_a_queue_of_its_own():
    queue = worker_direct("w@h")
    assert (queue.name, queue.exchange.name, queue.routing_key) == ("w@h.dq2", "C.dq2", "w@h")
    assert worker_direct(queue) is queue
