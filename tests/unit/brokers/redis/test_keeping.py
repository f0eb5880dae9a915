"""Which messages that follow a task may stay with its worker."""

from __future__ import annotations

import pytest

from celery.brokers.base import Delivery, Publish, Settlement, Verdict
from celery.brokers.redis.keeping import choose
from celery.brokers.redis.routing import Posting
from celery.brokers.redis.settling import Receipt
from celery.wire.envelope import Envelope

#: Lists that the worker takes from.
SOURCES = {"q": ("q", b', "", "q"]'), "q\x06\x163": ("q", b', "", "q"]')}
NEXT = Publish(Envelope({"id": "2", "eta": None}, b""), "", "q")
LATER = Publish(Envelope({"id": "2", "eta": "2100-01-01T00:00:00"}, b""), "", "q")
HELD_BACK = Publish(NEXT.envelope, "", "q", until=4e9)
RECEIPT = Receipt("tag", b"text")


def settlement(*follow, verdict=Verdict.ACK, receipt=RECEIPT):
    return Settlement(Delivery(Envelope({"id": "1"}, b""), receipt, "q", "", "q"), verdict, follow=follow)


def pushed(*names):
    return Posting([(name, b"text") for name in names], [])


@pytest.mark.parametrize("name", SOURCES)
def test_what_alone_follows_and_goes_to_a_list_of_ours_is_chosen(name):
    assert choose([settlement(NEXT)], [pushed(name)], SOURCES, 1) == [0]


@pytest.mark.parametrize(
    ("settled", "posting"),
    [
        pytest.param(settlement(), None, id="nothing follows"),
        pytest.param(settlement(NEXT), pushed("other"), id="goes to a list of others"),
        pytest.param(settlement(NEXT), pushed("q", "other"), id="goes to several lists"),
        pytest.param(settlement(NEXT), pushed(), id="goes nowhere"),
        pytest.param(settlement(NEXT), Posting([("q", b"text")], [("channel", b"text")]), id="is told to many, too"),
        pytest.param(settlement(NEXT, NEXT), pushed("q"), id="is not alone"),
        pytest.param(settlement(LATER), pushed("q"), id="has a time"),
        pytest.param(settlement(HELD_BACK), pushed("q"), id="is held back"),
        pytest.param(settlement(NEXT, verdict=Verdict.LOST), pushed("q"), id="its task was lost"),
        pytest.param(settlement(NEXT, receipt=None), pushed("q"), id="nothing was recorded"),
    ],
)
def test_all_else_is_not(settled, posting):
    assert choose([settled], [posting], SOURCES, 1) == []


@pytest.mark.parametrize(("most", "chosen"), [(0, []), (1, [1]), (2, [1, 3]), (9, [1, 3, 4])])
def test_the_first_are_chosen_as_many_as_have_room(most, chosen):
    batch = [settlement(), *[settlement(NEXT)] * 4]
    postings = [None, pushed("q"), pushed("other"), pushed("q"), pushed("q")]
    assert choose(batch, postings, SOURCES, most) == chosen
