"""Acknowledging many deliveries with few frames, and never one that is not done (wire.md 6.4)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from celery.brokers.amqp.acks import Unsettled


@given(st.lists(st.tuples(st.integers(0, 6), st.sets(st.integers(1, 40))), max_size=12))
def test_the_server_forgets_exactly_what_was_acknowledged(steps):
    ours, server, last = Unsettled(), set(), 0
    for arrivals, done in steps:
        for _ in range(arrivals):
            last += 1
            ours.add(last)
            server.add(last)
        expected = server - done
        for tag, multiple in ours.acknowledge(done):
            assert tag in server
            server -= {held for held in server if held <= tag} if multiple else {tag}
        assert server == expected
        assert len(ours) == len(server)


def test_neighbours_share_a_frame_up_to_the_first_that_is_not_done():
    unsettled = Unsettled()
    for tag in range(1, 8):
        unsettled.add(tag)
    assert unsettled.acknowledge([1, 2, 3, 5, 6]) == [(3, True), (5, False), (6, False)]
    unsettled.discard(4)
    assert unsettled.acknowledge([7]) == [(7, False)]
    assert unsettled.acknowledge([7]) == []
