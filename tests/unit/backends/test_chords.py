"""How long chords and claims last, by the settings; the numbers were observed of Celery 5.7.0 (wire.md 4.5)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from celery import Celery
from celery.backends.chords import terms_of


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
