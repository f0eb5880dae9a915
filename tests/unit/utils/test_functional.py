"""Functions about functions and sequences."""

import functools
import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils.functional import (
    LRUCache,
    chunks,
    dictfilter,
    first,
    firstmethod,
    fun_accepts_kwargs,
    fun_takes_argument,
    head_from_fun,
    lookahead,
    maybe_list,
    memoize,
    mlazy,
    padlist,
    regen,
    seq_concat_item,
    seq_concat_seq,
)


def simple(x, y=1): ...
def rich(a, b=1, /, c=2, *rest, d, e=3, **more): ...
def only_keywords(*, a, b=2): ...


@pytest.mark.parametrize("fun", [simple, rich, only_keywords])
def test_a_head_has_the_parameters_of_its_function(fun):
    kinds = [(p.name, p.kind, p.default is p.empty) for p in inspect.signature(fun).parameters.values()]
    head = inspect.signature(head_from_fun(fun)).parameters.values()
    assert [(p.name, p.kind, p.default is p.empty) for p in head] == kinds


def test_a_wrong_call_of_a_head_names_function_and_parameter():
    with pytest.raises(TypeError, match=r"simple\(\) missing 1 required positional argument: 'x'"):
        head_from_fun(simple)()


def test_a_bound_head_and_a_method_lack_the_first_parameter():
    class Task:
        def run(self, y): ...

        def __call__(self, z): ...

    assert list(inspect.signature(head_from_fun(simple, bound=True)).parameters) == ["y"]
    assert list(inspect.signature(head_from_fun(Task().run)).parameters) == ["y"]
    assert list(inspect.signature(head_from_fun(Task())).parameters) == ["z"]


@pytest.mark.parametrize(
    ("fun", "accepts"),
    [(simple, False), (rich, True), (functools.partial(rich), True), (lambda **_: 0, True), (lambda x: 0, False)],
)
def test_taking_keywords_is_seen(fun, accepts):
    assert fun_accepts_kwargs(fun) is accepts


def test_taking_an_argument_is_seen():
    assert fun_takes_argument("x", simple)
    assert not fun_takes_argument("z", simple)
    assert fun_takes_argument("z", simple, position=2)
    assert not fun_takes_argument("z", simple, position=3)


@given(st.lists(st.integers()), st.integers(1, 5))
def test_chunks_are_the_items_in_order(items, size):
    pieces = list(chunks(items, size))
    assert [item for piece in pieces for item in piece] == items
    assert all(len(piece) == size for piece in pieces[:-1])


@given(st.lists(st.integers()))
def test_a_regenerated_iterator_reads_like_its_list(items):
    again = regen(iter(items))
    assert bool(again) == bool(items)
    assert list(zip(again, again, strict=True)) == list(zip(items, items, strict=True))
    assert list(again) == list(again) == items
    assert again == items
    assert len(again) == len(items)
    assert again.fully_consumed()


def test_a_regenerated_iterator_is_read_no_further_than_asked():
    source = iter(range(10))
    again = regen(source)
    assert again[1] == 1
    assert next(source) == 2


def test_lists_are_not_regenerated():
    items = [1]
    assert regen(items) is items


def test_a_cache_forgets_what_was_used_least_recently():
    cache = LRUCache(limit=2)
    cache["a"] = cache["b"] = 1
    assert cache["a"]
    cache["c"] = 1
    assert list(cache) == ["a", "c"]


def test_a_memoized_function_runs_once_per_arguments():
    calls = []

    @memoize(maxsize=2)
    def double(x):
        calls.append(x)
        return 2 * x

    assert [double(1), double(1), double(2)] == [2, 2, 4]
    assert calls == [1, 2]
    double.clear()
    double(1)
    assert calls == [1, 2, 1]


def test_a_lazy_value_is_made_once():
    made = []
    value = mlazy(lambda: made.append(1) or 5)
    assert (value(), value.evaluate(), value == 5) == (5, 5, True)
    assert made == [1]


def test_the_first_answer_is_taken():
    class Router:
        def __init__(self, answer):
            self.answer = answer

        def route(self, name):
            return self.answer

    assert firstmethod("route")([object(), Router(None), Router("a"), Router("b")], "task") == "a"
    assert first(None, [None, 0, 1]) == 0
    assert first(lambda x: x > 1, [1, 2, 3]) == 2


def test_sequences_are_padded_joined_and_paired():
    assert padlist([1], 3, 0) == [1, 0, 0]
    assert list(lookahead([1, 2])) == [(1, 2), (2, None)]
    assert seq_concat_item((1,), 2) == (1, 2)
    assert seq_concat_seq([1], (2,)) == [1, 2]
    assert maybe_list("a") == ["a"]
    assert maybe_list(("a",)) == ("a",)
    assert dictfilter({"a": None, "b": 1}) == {"b": 1}
