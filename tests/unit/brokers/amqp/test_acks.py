"""Acknowledging many deliveries with few frames, and never one that is not done (wire.md 6.4)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.amqp.acks import Unsettled

#: Deliveries, those of all so far that are done, how many may be kept, and whether there is a look at these after that.
STEPS = st.tuples(st.integers(0, 6), st.sets(st.integers(1, 40)), st.sampled_from([0, 2, 40]), st.booleans())


@given(st.lists(STEPS, max_size=12))
def test_the_server_forgets_what_was_acknowledged_and_nothing_else(steps):
    ours, server, settled, last = Unsettled(), set(), set(), 0

    def tell(frames):
        for tag, multiple in frames:
            assert tag in server
            server.difference_update({held for held in server if held <= tag} if multiple else {tag})

    for arrivals, done, keep, looks in steps:
        for _ in range(arrivals):
            last += 1
            ours.add(last)
            server.add(last)
        settled |= {tag for tag in done if tag <= last}
        tell(ours.acknowledge(done, keep))
        if looks:
            tell(ours.overdue())
        kept = server & settled
        assert not set(range(1, last + 1)) - settled - server
        assert ours.keeps == bool(kept)
        assert all((tag in ours) == (tag in server - settled) for tag in range(1, last + 1))
        assert len(ours) == len(server)
    tell(ours.rest())
    assert not server & settled
    assert not ours.keeps


def test_what_lies_behind_a_gap_waits_until_that_is_closed_or_for_two_looks():
    unsettled = Unsettled()
    for tag in range(1, 10):
        unsettled.add(tag)
    assert unsettled.acknowledge([2, 3], keep=4) == []
    assert unsettled.acknowledge([1], keep=4) == [(3, True)]
    assert unsettled.acknowledge([5, 6], keep=4) == []
    assert unsettled.overdue() == []
    assert unsettled.acknowledge([8], keep=4) == []
    assert unsettled.overdue() == [(5, False), (6, False)]
    assert unsettled.overdue() == [(8, False)]


def test_more_than_may_be_kept_goes_at_once():
    unsettled = Unsettled()
    for tag in range(1, 10):
        unsettled.add(tag)
    assert unsettled.acknowledge([2, 3], keep=2) == []
    assert unsettled.acknowledge([5], keep=2) == [(5, False)]
    assert unsettled.acknowledge([6]) == [(6, False)]
    assert unsettled.rest() == [(2, False), (3, False)]


def test_neighbours_share_a_frame_up_to_the_first_that_is_not_done():
    unsettled = Unsettled()
    for tag in range(1, 8):
        unsettled.add(tag)
    assert unsettled.acknowledge([1, 2, 3, 5, 6]) == [(3, True), (5, False), (6, False)]
    unsettled.discard(4)
    assert unsettled.acknowledge([7]) == [(7, False)]
    assert unsettled.acknowledge([7]) == []
