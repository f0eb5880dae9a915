"""What becomes of a delivery: the table of `celery.worker.strategy` (ROUTE-049..054)."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery import Celery
from celery.brokers.base import Delivery
from celery.brokers.redis.envelope import encode
from celery.exceptions import NotRegistered, TaskRevokedError, WorkerLostError
from celery.wire.envelope import Envelope
from celery.wire.sealed import read_label
from celery.worker.strategy import Action, Strategy

NOW = 1_700_000_000.0


def iso(seconds):
    """A moment relative to NOW."""
    return time.strftime("%Y-%m-%dT%H:%M:%S+00:00", time.gmtime(NOW + seconds))


@pytest.fixture(scope="module")
def app():
    with Celery("strategies", set_as_current=False) as app:
        app.task(name="plain", shared=False)(lambda: None)
        app.task(name="limited", shared=False, time_limit=20, soft_time_limit=10)(lambda: None)

        async def body():
            pass

        app.task(name="async", shared=False)(body)
        app.finalize()
        yield app


@pytest.fixture
def decide(app):
    """Decide on a message with these headers."""

    def decide(strategy=None, content_type="application/json", **fields):
        delivery_fields = {name: fields.pop(name) for name in ("lost", "failures") if name in fields}
        headers = {"lang": "py", "task": "plain", "id": "1", "retries": 0, **fields}
        envelope = Envelope(
            {name: value for name, value in headers.items() if value is not ...},
            b"[[], {}, {}]",
            content_type=content_type,
        )
        strategy = strategy or Strategy(app.tasks, frozenset(["application/json"]))
        return strategy.decide(Delivery(envelope, 1, "q", "", "q", **delivery_fields), NOW)

    return decide


def make(app, **options):
    return Strategy(app.tasks, frozenset(["application/json"]), **options)


class TestTable:
    def test_a_task_runs(self, decide):
        decision = decide()
        assert (decision.action, decision.task.name, decision.handling.is_async) == (Action.RUN, "plain", False)

    def test_an_async_task_runs_in_the_async_lane(self, decide):
        assert decide(task="async").handling.is_async

    @pytest.mark.parametrize("name", ["task", "id"])
    def test_a_message_that_lacks_what_it_must_have_is_refused(self, decide, name):
        decision = decide(**{name: ...})
        assert decision.action is Action.REFUSE
        assert decision.reason

    def test_a_content_type_that_is_not_accepted_is_refused(self, decide):
        decision = decide(content_type="application/x-python-serialize")
        assert decision.action is Action.REFUSE
        assert "accept_content" in decision.reason

    def test_a_task_that_is_not_registered_is_refused_and_fails(self, decide):
        decision = decide(task="nothing")
        assert decision.action is Action.REFUSE
        assert isinstance(decision.error, NotRegistered)

    def test_what_was_lost_after_its_start_fails(self, decide):
        decision = decide(lost=True)
        assert decision.action is Action.FAIL
        assert isinstance(decision.error, WorkerLostError)

    def test_what_was_lost_too_often_is_refused_and_fails(self, app, decide):
        assert decide(make(app, delivery_limit=5), failures=4).action is Action.RUN
        decision = decide(make(app, delivery_limit=5), failures=5)
        assert decision.action is Action.REFUSE
        assert "task_delivery_limit" in str(decision.error)
        assert decide(make(app, delivery_limit=0), failures=500).action is Action.RUN

    def test_what_is_revoked_is_dropped(self, app, decide):
        decision = decide(make(app, revoked={"1"}))
        assert (decision.action, decision.reason) == (Action.DROP, "revoked")
        assert isinstance(decision.error, TaskRevokedError)
        assert decide(make(app, is_revoked=lambda headers: "stamped")).reason == "stamped"

    def test_what_has_expired_is_dropped(self, decide):
        assert decide(expires=iso(-1)).reason == "expired"
        assert decide(expires=iso(1)).action is Action.RUN

    def test_what_has_an_eta_ahead_waits(self, decide):
        decision = decide(eta=iso(60))
        assert (decision.action, decision.until) == (Action.WAIT, NOW + 60)
        assert decide(eta=iso(-60)).action is Action.RUN

    def test_the_first_row_that_applies_decides(self, app, decide):
        assert decide(make(app, revoked={"1"}), eta=iso(60), expires=iso(-1)).reason == "revoked"
        assert decide(eta=iso(60), expires=iso(-1)).reason == "expired"
        assert decide(task="nothing", lost=True).action is Action.REFUSE


class TestLimits:
    """ROUTE-054: the call's, else the task's, else the worker's."""

    def limits(self, decision):
        return decision.handling.soft_limit, decision.handling.hard_limit

    def test_of_nobody(self, decide):
        assert self.limits(decide()) == (None, None)

    def test_of_the_worker(self, app, decide):
        strategy = make(app, hard_limit=300, soft_limit=200)
        assert self.limits(decide(strategy)) == (200, 300)
        assert self.limits(decide(strategy, task="limited")) == (10, 20)

    def test_of_the_call(self, app, decide):
        strategy = make(app, hard_limit=300, soft_limit=200)
        assert self.limits(decide(strategy, task="limited", timelimit=[2, 1])) == (1, 2)
        assert self.limits(decide(strategy, task="limited", timelimit=[None, 1])) == (1, 20)


_LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
_JUNK = _LEAVES | st.lists(_LEAVES, max_size=3) | st.dictionaries(st.text(max_size=5), _LEAVES, max_size=3)
_HEADERS = ("task", "id", "retries", "eta", "expires", "timelimit", "root_id", "parent_id", "shadow", "group", "stamps")


@given(
    headers=st.dictionaries(st.sampled_from(_HEADERS), _JUNK, max_size=6),
    content_type=st.sampled_from(["application/json", ""]),
)
def test_no_message_makes_it_fail(app, headers, content_type):
    envelope = Envelope({"task": "plain", "id": "1", **headers}, b"junk", content_type=content_type)
    decision = make(app).decide(Delivery(envelope, 1, "q", "", "q"), NOW)
    assert decision.action in Action
    assert decision.headers is not None


def test_what_is_refused_unopened_shows_its_headers_though_one_is_damaged(app):
    text = encode(Envelope({"task": "unknown", "id": "1", "eta": "never"}, b"[[], {}, {}]"), "", "q")
    labelled = read_label(text)
    delivery = Delivery(labelled.envelope, 1, "q", "", "q", label=labelled.label, text=text)
    decision = make(app).decide(delivery, NOW)
    assert (decision.action, decision.headers["id"]) == (Action.REFUSE, "1")
