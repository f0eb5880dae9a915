"""Names on a Redis server (wire.md 3.2, 3.3, 3.8)."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.redis.keys import Keys, peer_pattern


@pytest.mark.parametrize(
    ("priority", "step"),
    [(0, 0), (2, 0), (3, 3), (4, 3), (9, 9), (12, 9), (-1, 0), (None, 0), ("7", 6), ("high", 0), ([], 0), (1e999, 0)],
)
def test_a_priority_goes_to_the_greatest_step_not_above_it(priority, step):
    assert Keys({}).step(priority) == step


def test_steps_and_separator_are_options():
    keys = Keys({"priority_steps": [5, 0], "sep": ":", "global_keyprefix": "p-"})
    assert keys.lists("q") == ["p-q", "p-q:5"]
    assert Keys({"priority_steps": [2, 4]}).step(0) == 2


def test_every_key_and_channel_has_the_prefix():
    keys = Keys({"global_keyprefix": "pfx:"}, 10)
    names = [keys.unacked, keys.index, keys.workers, keys.exchanges, keys.deadlines, keys.held("w"), keys.started("w")]
    names += [keys.dead("q"), keys.bindings("x"), keys.permanent_bindings("x"), *keys.lists("q")]
    assert all(name.startswith("pfx:") for name in names)
    assert keys.channel("celery.pidbox", "") == "pfx:/10.celery.pidbox"


@pytest.mark.parametrize(
    ("options", "channel"),
    [
        ({}, "/10.celeryev/worker.*"),
        ({"fanout_prefix": False}, "celeryev/worker.*"),
        ({"fanout_prefix": "mine."}, "mine.celeryev/worker.*"),
        ({"fanout_patterns": False}, "/10.celeryev"),
    ],
)
def test_channels_are_named_as_the_fanout_options_say(options, channel):
    assert Keys(options, 10).channel_pattern("celeryev", "worker.#") == channel


def test_a_member_is_read_back_and_garbage_is_not():
    keys = Keys({})
    assert keys.read_member(keys.member("topic", "a.*", "q")) == ("a.*", "q")
    assert keys.read_member("garbage") is None


@given(st.lists(st.sampled_from(["*", "#", "a", "b.c", "d-e"]), min_size=1).map(".".join))
def test_the_pattern_for_peers_is_a_regular_expression(key):
    pattern = re.compile(peer_pattern(key))
    assert pattern.match(key.replace("*", "word").replace("#", "some.words"))


@pytest.mark.parametrize(("key", "pattern"), [("a.#", r"^a\..*?$"), ("a.*.c", r"^a\.[^\.]+\.c$"), ("#", "^.*?$")])
def test_the_pattern_for_peers_is_theirs(key, pattern):
    assert peer_pattern(key) == pattern
