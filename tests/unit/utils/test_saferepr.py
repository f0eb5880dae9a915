"""Representations are bounded and balanced (wire.md 1.7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.utils.saferepr import saferepr

SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
NESTED = st.recursive(
    SCALARS, lambda inner: st.lists(inner) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner), max_leaves=20
)


@given(NESTED)
def test_without_bounds_it_is_pythons_own(value):
    assert saferepr(value, maxlevels=100) == repr(value)


@given(NESTED, st.integers(0, 60))
def test_a_bounded_one_exceeds_its_bound_by_little(value, maxlen):
    assert len(saferepr(value, maxlen)) <= maxlen + 40


@given(st.recursive(st.integers(), lambda inner: st.lists(inner) | st.tuples(inner, inner)), st.integers(0, 60))
def test_brackets_always_balance(value, maxlen):
    expected = []
    for char in saferepr(value, maxlen):
        if char in "([":
            expected.append(")" if char == "(" else "]")
        elif char in ")]":
            assert expected.pop() == char
    assert not expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ((2, 3), "(2, 3)"),
        ((), "()"),
        ((1,), "(1,)"),
        ({}, "{}"),
        ({"a": None}, "{'a': None}"),
        (set(), "set()"),
        (frozenset({1}), "frozenset({1})"),
        (([[[[[1]]]]],), "([[[...]]],)"),
        ({"a": {"b": {"c": {"d": 1}}}}, "{'a': {'b': {'c': {...}}}}"),
    ],
)
def test_collections_look_as_in_python_down_to_three_levels(value, text):
    assert saferepr(value, 1024) == text


def test_a_long_string_is_cut_inside_its_quotes():
    assert saferepr("a" * 2000, 10) == "'aaaaaaaaa...'"
    assert saferepr(b"a" * 2000, 10) == "b'aaaaaaaa...'"
    assert saferepr("it's " * 200, 10) == '"it\'s it\'s..."'


def test_a_long_collection_ends_in_dots():
    assert saferepr(list(range(1000)), 10) == "[0, 1, 2, ...]"


def test_a_collection_inside_itself_is_shown_once():
    loop = [1]
    loop.append(loop)
    assert saferepr(loop) == "[1, [...]]"


def test_an_object_that_cannot_be_shown_does_not_stop_the_others():
    class Broken:
        def __repr__(self):
            raise LookupError

    assert saferepr([1, Broken()]) == "[1, <Broken whose repr raised LookupError>]"


def test_a_dict_with_a_repr_of_its_own_speaks_for_itself():
    class Call(dict):
        def __repr__(self):
            return "call()"

    assert saferepr(([Call(a=1)],)) == "([call()],)"
