"""Bodies with a few long strings are read as by any other parser, and anything else is left to one."""

from __future__ import annotations

import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from celery.wire.closed import read_body
from celery.wire.serializers import cut_long_strings

LONG = "x" * 5_000
EMBED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}

texts = st.sampled_from([LONG, "ż" * 4_000, "short", "", "0", "\0", "\x000", 'a "quote"', "a\nline", "\\"])
values = st.recursive(
    texts | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)


def body(*args, embed=None, **kwargs):
    return json.dumps([list(args), kwargs, {**EMBED, **(embed or {})}], ensure_ascii=False).encode()


@given(st.lists(values, max_size=4), st.dictionaries(st.text("abc", max_size=3), values, max_size=3))
@example([LONG, [LONG, {"key": LONG}]], {"a": "ż" * 4_000})
@example([{LONG: 1}, LONG], {})
@example([LONG, "\x000"], {})
def test_whatever_the_arguments_are_they_are_read_as_they_were_written(args, kwargs):
    for separators in ((", ", ": "), (",", ":"), (" , ", " : ")):
        payload = json.dumps([args, kwargs, EMBED], ensure_ascii=False, separators=separators).encode()
        found = read_body(payload)
        assert found is not None
        assert found[:2] == (args, kwargs)


def test_a_long_string_is_cut_out_and_what_is_left_is_short():
    short, strings = cut_long_strings(body(1, LONG, name="ż" * 4_000))
    assert strings == [LONG, "ż" * 4_000]
    assert len(short) < 200
    assert json.loads(short)[0] == [1, "\x000"]


@pytest.mark.parametrize(
    "payload",
    [
        body("x" * 3_000),
        body(LONG, "a\nline"),
        body(LONG, *("many" for _ in range(100))),
        body(LONG, *range(2_000)),
        body(*range(2_000), LONG),
        body({LONG: 1}),
        body(LONG).replace(b"]", b" ]"),
        body(LONG).rpartition(b'"')[0],
    ],
    ids=["short", "escapes", "many strings", "much behind", "much before", "a key", "a space behind", "no end"],
)
def test_what_would_cost_more_than_a_parser_or_is_written_otherwise_is_left_to_it(payload):
    assert cut_long_strings(payload) is None


def test_what_is_around_the_task_has_its_long_strings_too():
    step = {"task": "t.more", "args": [LONG], "kwargs": {}, "options": {}}
    embed = {"callbacks": [step], "errbacks": [step], "chain": [step, step], "chord": step}
    for name, value in embed.items():
        args, _, around = read_body(body(LONG, embed={name: value}))
        assert args == [LONG]
        assert around[name] == value


@pytest.mark.parametrize("broken", [b"\xff", b"\xed\xa0\x80"], ids=["no character", "half of a pair"])
def test_a_long_string_that_is_no_utf_8_is_left_to_others(broken):
    assert read_body(body(LONG).replace(b"xxx", broken)) is None


def test_a_control_character_in_a_long_string_is_taken_as_it_is():
    payload = body(LONG).replace(b"xxx", b"x\n\x00", 1)
    assert read_body(payload)[0] == [LONG.replace("xxx", "x\n\x00", 1)]


def test_what_is_nested_as_deep_as_a_parser_goes_is_gone_through():
    deep = LONG
    for _ in range(600):
        deep = [deep]
    args, _, _ = read_body(body(deep))
    while isinstance(args, list):
        (args,) = args
    assert args == LONG
