"""States: sets, ranks and what may replace what (API-069)."""

import pytest

from celery import states
from celery.states import may_follow, precedence, state


def test_the_sets_are_those_documented():
    assert {"SUCCESS", "FAILURE", "REVOKED"} == states.READY_STATES
    assert {"PENDING", "RECEIVED", "STARTED", "REJECTED", "RETRY"} == states.UNREADY_STATES
    assert {"RETRY", "FAILURE", "REVOKED"} == states.EXCEPTION_STATES
    assert {"FAILURE", "REVOKED"} == states.PROPAGATE_STATES


def test_ranks_go_from_success_to_pending_with_custom_states_after_failure():
    names = ["PENDING", "RETRY", "REJECTED", "RECEIVED", "STARTED", "REVOKED", "PROGRESS", "FAILURE", "SUCCESS"]
    assert sorted(reversed(names), key=precedence) == names[::-1]
    assert sorted(map(state, reversed(names))) == names


def test_two_custom_states_rank_alike():
    assert not state("A") > state("B")
    assert state("A") >= state("B")
    assert state("A") <= state("B")
    assert state("A") != state("B")


def test_a_state_is_its_text():
    assert state("SUCCESS") == "SUCCESS"
    assert state("SUCCESS") in states.READY_STATES


@pytest.mark.parametrize("new", sorted(states.ALL_STATES))
def test_a_stored_success_is_final(new):
    assert not may_follow("SUCCESS", new)


@pytest.mark.parametrize("stored", ["PENDING", "STARTED", "RETRY", "FAILURE", "REVOKED", "PROGRESS"])
def test_anything_else_may_be_replaced(stored):
    assert may_follow(stored, "SUCCESS")
    assert may_follow(stored, "STARTED")
