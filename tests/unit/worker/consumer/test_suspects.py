"""Which messages that a dead worker held may be taken together again."""

import pytest

from celery.brokers.base import Delivery
from celery.wire.envelope import Envelope
from celery.worker.consumer.suspects import place_of


def delivery(failures):
    return Delivery(Envelope({}, b""), object(), "queue", "", "queue", failures=failures)


def place(failures, *beside):
    """With two processes."""
    return place_of(delivery(failures), [delivery(each) for each in beside], 2)


@pytest.mark.parametrize(
    ("failures", "beside"), [(0, ()), (0, (3, 1)), (1, ()), (1, (0, 0, 0)), (1, (1,)), (1, (0, 1, 0))]
)
def test_what_came_back_once_begins_beside_as_many_as_there_are_processes(failures, beside):
    assert place(failures, *beside) == (True, 0.0)


@pytest.mark.parametrize(("failures", "beside"), [(1, (1, 1)), (1, (2,)), (2, (1,)), (2, (2,)), (4, (0, 1))])
def test_others_are_given_back_for_longer_than_the_one_that_stays_is_held(failures, beside):
    stays, moment = place(failures, *beside)
    assert not stays
    assert place(2)[1] < moment <= 0.5 * failures


def test_what_came_back_more_than_once_is_held_before_it_begins_alone():
    for beside in (), (0, 0):
        stays, moment = place(2, *beside)
        assert stays
        assert 0.05 < moment < 0.2
