"""Which messages that a dead worker held may be taken together again."""

import pytest

from celery.brokers.base import Delivery
from celery.wire.envelope import Envelope
from celery.worker.consumer.suspects import moment_apart


def delivery(failures):
    return Delivery(Envelope({}, b""), object(), "queue", "", "queue", failures=failures)


def moment(failures, *beside):
    """With two processes."""
    return moment_apart(delivery(failures), [delivery(each) for each in beside], 2)


@pytest.mark.parametrize(
    ("failures", "beside"),
    [(0, ()), (0, (3, 1)), (1, ()), (1, (0, 0, 0)), (1, (1,)), (1, (0, 1, 0)), (2, ()), (4, (0, 0))],
)
def test_what_came_back_once_begins_beside_as_many_as_there_are_processes_and_more_often_alone(failures, beside):
    assert moment(failures, *beside) == 0.0


@pytest.mark.parametrize(("failures", "beside"), [(1, (1, 1)), (1, (2,)), (2, (1,)), (2, (2,)), (4, (0, 1))])
def test_others_are_given_back_for_a_moment_that_grows_with_their_failures(failures, beside):
    assert 0.05 * failures <= moment(failures, *beside) <= 0.5 * failures
