"""Order of dependencies."""

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils.graph import CycleError, DependencyGraph


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9))))
def test_a_node_comes_after_all_that_it_depends_on(pairs):
    graph = DependencyGraph((node, []) for node in range(10))
    for one, other in pairs:
        if one > other:
            graph.add_edge(one, other)
    order = graph.topsort()
    assert sorted(order) == list(range(10))
    assert all(order.index(other) < order.index(one) for one, others in graph.items() for other in others)


def test_a_circle_is_named():
    graph = DependencyGraph([("a", "b"), ("b", "c"), ("c", "a")])
    with pytest.raises(CycleError, match="a -> b -> c -> a"):
        graph.topsort()


def test_a_graph_is_drawn_for_graphviz():
    graph, out = DependencyGraph([("a", ["b"]), ("b", [])]), io.StringIO()
    graph.to_dot(out)
    assert out.getvalue().startswith("digraph dependencies {\n")
    assert '"a" -> "b" [' in out.getvalue()
    assert graph.valency_of("a") == 1
    assert repr(graph).startswith("a(1)\n    b(0)")
