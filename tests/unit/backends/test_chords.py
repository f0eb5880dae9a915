"""How long chords and claims last, by the settings; the numbers were observed of Celery 5.7.0 (wire.md 4.5). And how
parts are read.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from celery import Celery
from celery.backends.chords import read_members, terms_of
from celery.backends.memory import MemoryBackend


def terms(expires=86400, **settings):
    app = Celery("terms", set_as_current=False)
    app.conf.update(settings)
    return terms_of(app.conf, expires)


def test_a_claim_lasts_twice_the_time_of_a_join():
    assert terms().claim == 6
    assert terms(result_chord_join_timeout=20).claim == 40
    assert terms(result_chord_join_timeout=0.1).claim == 5


@pytest.mark.parametrize(
    ("policy", "seconds"),
    [
        ({"max_retries": 3, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}, 21),
        ({"max_retries": None, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}, 21),
        ({"max_retries": 10, "interval_start": 0, "interval_step": 0.2, "interval_max": 0.2}, 50),
        ({"max_retries": 3, "interval_start": 5, "interval_step": 5, "interval_max": 60}, 50),
        ({"max_retries": 10**9, "interval_start": 1}, 50),
        ({"max_retries": 0}, 5 + 1),
        (None, 21),
    ],
)
def test_a_claim_is_held_for_as_long_as_sending_may_be_retried(policy, seconds):
    assert terms(task_publish_retry_policy=policy).hold == seconds


def test_a_claim_is_never_held_for_less_than_it_was_given():
    assert terms(result_chord_join_timeout=20).hold == 40


def test_a_closed_chord_is_marked_for_minutes():
    assert terms().mark == 300
    assert terms(result_chord_join_timeout=100).mark == 400


def test_bookkeeping_lasts_as_long_as_results_unless_told_otherwise():
    assert terms().life == 86400
    assert terms(expires=None).life is None
    assert terms(result_chord_expires=100).life == 100
    assert terms(result_chord_expires=timedelta(minutes=2)).life == 120
    assert terms(result_chord_expires=0).life is None, "for ever (SET-138)"


VALUES = [
    0, None, "a , ] b", 'quoted "\\ "', [], {"a": [1, {"b": None}]}, 10**30, 1.5, float("inf"), "\u20ac",
    datetime(2026, 1, 2, tzinfo=UTC), {"__type__": "mine"},
]  # fmt: skip


def backend(make=MemoryBackend, **settings):
    app = Celery("parts", set_as_current=False)
    app.conf.update(settings)
    return make(app, url="memory://")


def parts(made, values):
    return [made.encode([1, f"t{number}", "SUCCESS", value]) for number, value in enumerate(values)]


@pytest.mark.parametrize("settings", [{}, {"result_compression": "zlib"}, {"result_serializer": "pickle"}], ids=str)
@pytest.mark.parametrize("values", [*([value] for value in VALUES), VALUES, [*range(2500), VALUES[8]]], ids=len)
def test_parts_are_read_as_they_were_written(values, settings):
    made = backend(**settings, result_accept_content=["json", "pickle"])
    members = read_members(made, parts(made, values))
    assert [(member.task_id, member.state) for member in members] == [(f"t{n}", "SUCCESS") for n in range(len(values))]
    assert [member.value for member in members] == values


def test_parts_of_which_one_is_broken_are_not_read():
    made = backend()
    good = parts(made, range(3))
    for bad in (b"[1, 2", b'[1, "t"]', b'[1, "t", "SUCCESS", 3, 4]', b'[1, "a", "S", 1], [1, "b", "S", 2]', b"", b"{}"):
        with pytest.raises(Exception):  # noqa: B017, PT011 - whatever it is fails the chord
            read_members(made, [*good, bad])


def test_a_backend_with_a_way_of_its_own_to_decode_reads_its_parts():
    class Reversed(MemoryBackend):
        def encode(self, data):
            return super().encode(data)[::-1]

        def decode(self, payload):
            return super().decode(payload[::-1])

    made = backend(Reversed)
    assert [member.value for member in read_members(made, parts(made, ["one", 2]))] == ["one", 2]


def test_nobody_has_no_members():
    assert read_members(backend(), []) == []
