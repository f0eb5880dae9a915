"""Which messages that a dead worker held may be taken together again."""

from types import SimpleNamespace

import pytest

from celery.brokers.base import Delivery
from celery.wire.envelope import Envelope
from celery.worker.consumer.suspects import moment_apart


def delivery(failures):
    return Delivery(Envelope({}, b""), object(), "queue", "", "queue", failures=failures)


def held(*failures, acks_late=True):
    return [SimpleNamespace(delivery=delivery(each), acks_late=acks_late) for each in failures]


@pytest.mark.parametrize(
    ("failures", "beside", "limit", "taken"),
    [
        (0, (3, 1), 5, True),
        (1, (), 5, True),
        (1, (0, 0, 0), 5, True),
        (1, (1,), 5, True),
        (1, (1, 1), 5, False),
        (1, (2,), 5, False),
        (2, (1,), 5, False),
        (2, (), 5, True),
        (1, (1,), 0, True),
        (1, (1,), 4, True),
        (1, (1,), 3, False),
        (1, (0,), 3, True),
    ],
)
def test_two_processes_take_what_came_back_beside_little_else(failures, beside, limit, taken):
    moment = moment_apart(delivery(failures), held(*beside), 2, limit)
    assert (moment == 0.0) is taken
    assert moment <= 0.5 * failures


def test_what_is_acknowledged_early_keeps_nothing_apart():
    assert not moment_apart(delivery(2), held(2, acks_late=False), 2, 5)
