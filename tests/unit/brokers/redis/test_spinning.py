"""When a connection asks for a reply again and again before it sleeps."""

import random

from celery.brokers.redis.spinning import LONGEST_REST, TRIES, Spinning


def asked(spinning, outcomes):
    """How often it asks for each reply; a spin for it pays or not."""
    counts = []
    for paid in outcomes:
        counts.append(tries := spinning.tries())
        if tries:
            spinning.ended(paid)
    return counts


def test_where_spinning_pays_every_reply_is_asked_for():
    assert asked(Spinning(), [True] * 100) == [TRIES] * 100


def test_where_it_never_pays_next_to_nothing_is_asked():
    counts = asked(Spinning(), [False] * 5000)
    assert counts.count(TRIES) <= 16
    assert set(counts) == {0, TRIES}
    # Now and then it tries again, in case the server has become less busy.
    assert TRIES in counts[-LONGEST_REST - 1 :]


def test_one_late_reply_among_many_costs_one_rest():
    assert asked(Spinning(), [True] * 10 + [False] + [True] * 10) == [TRIES] * 11 + [0] + [TRIES] * 9


def test_a_server_that_was_busy_for_long_is_spun_for_again():
    spinning = Spinning()
    asked(spinning, [False] * 5000)
    assert TRIES in asked(spinning, [True] * (LONGEST_REST + 1))
    assert asked(spinning, [True] * 100) == [TRIES] * 100


def test_it_goes_on_where_nine_of_ten_pay_and_stops_where_half_do():
    chance = random.Random(1)
    often = asked(Spinning(), [chance.random() < 0.9 for _ in range(20_000)])
    seldom = asked(Spinning(), [chance.random() < 0.5 for _ in range(20_000)])
    assert often.count(TRIES) > 20_000 / 2
    assert seldom.count(TRIES) < 20_000 / 50
