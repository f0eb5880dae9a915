"""Ids, one by one and many at once."""

from __future__ import annotations

from uuid import RFC_4122, UUID

import pytest

from celery.utils.uniqueid import Ids, uuid, uuids


@pytest.mark.parametrize("made", [[uuid() for _ in range(200)], uuids(200), uuids(1)], ids=["one", "many", "just one"])
def test_ids_are_random_uuids_in_the_usual_form(made):
    for text in made:
        read = UUID(text)
        assert str(read) == text
        assert (read.version, read.variant) == (4, RFC_4122)
    assert len(set(made)) == len(made)


def test_each_digit_that_may_vary_does():
    digits = [set(column) for column in zip(*uuids(2000), strict=True)]
    fixed = {8: {"-"}, 13: {"-"}, 14: {"4"}, 18: {"-"}, 19: set("89ab"), 23: {"-"}}
    assert digits == [fixed.get(place, set("0123456789abcdef")) for place in range(36)]


def test_ids_of_a_stock_do_not_come_twice():
    ids = Ids()
    made = [ids.new() for _ in range(500)]
    assert len(set(made)) == 500
    assert {str(UUID(text)) for text in made} == set(made)
