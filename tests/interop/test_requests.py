"""Request classes of tasks: what they override is called by our workers as by those of Celery 5.7.0 (API-042)."""

import time
import uuid
from contextlib import closing
from datetime import UTC, datetime

import pytest
from fleet import Fleet, wait_until

SIDES = ("ours", "theirs")
#: How a call ends, by itself.
ENDS = ("succeed", "fail", "reject", "requeue", "ignore", "retry")


class Requests(Fleet):
    """A client, and workers whose requests note what they are asked for."""

    def start(self, sides=SIDES, *argv):
        """Start a worker for each side, and return when all consume."""
        self.ours = self.client("ours")
        self.workers = {side: self.worker(side, "--include", "noting_requests", *argv) for side in sides}
        for side, worker in self.workers.items():
            self.wait_ready(worker, side)

    def send(self, side, task, what="succeed", **options):
        """The key and the id of a call."""
        key = uuid.uuid4().hex
        options |= {"queue": f"{self.name}-{side}"}
        return key, self.ours.do(f"app.send_task({task!r}, ({key!r}, {what!r}), **{options!r}).id")

    def notes(self, key):
        """What was noted of a call; of the task's own we cannot tell when it ran between the others."""
        return [event for event, about, _ in self.ledger() if about == key and event != "ran"]

    def wait_note(self, key, note, times=1):
        wait_until(lambda: self.notes(key).count(note) >= times, lambda: f"{times} of {note} in {self.notes(key)}")


@pytest.fixture
def requests(broker, redis_database, tmp_path, celery57):
    with closing(Requests(broker, redis_database, tmp_path, celery57)) as requests:
        yield requests


def last_of(what, kind):
    """What is noted last, and how often it is noted."""
    failed = "task-failed:exception:traceback"
    ends = {
        "succeed": ("task-succeeded:result:runtime", 1),
        "fail": ("}", 2),
        "reject": ("}", 2),
        "requeue": ("}", 2) if kind == "early" else ("task-succeeded:result:runtime", 1),
        "ignore": ("}", 2),
        "retry": ("}", 4),
        "die": (failed, 1),
    }
    return ends[what]


@pytest.mark.timeout(180)
def test_both_call_the_same_in_the_same_order(requests):
    requests.start()
    keys = {}
    for kind in ("early", "late", "strict"):
        for what in (*ENDS, "die"):
            for side in SIDES:
                keys[kind, what, side] = key = requests.send(side, f"noting.{kind}", what)[0]
                # One after the other: the second may not start before the first has had its last word.
                requests.wait_note(key, *last_of(what, kind))
    for kind in ("early", "late", "strict"):
        for what in (*ENDS, "die"):
            ours, theirs = (requests.notes(keys[kind, what, side]) for side in SIDES)
            assert ours == theirs, (kind, what)
            assert "task-started" in ours


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["early", "late"])
def test_what_is_revoked_or_too_late_is_told_and_acknowledged_by_both(requests, kind):
    requests.start()
    notes = {}
    for side in SIDES:
        late, _ = requests.send(side, f"noting.{kind}", expires=-5)
        requests.wait_note(late, "acknowledge")
        ended, task_id = requests.send(side, f"noting.{kind}", "wait")
        requests.wait_noted("ran", ended)
        requests.wait_note(ended, "}")
        requests.ours.do(f"app.control.revoke({task_id!r}, terminate=True)")
        requests.wait_note(ended, "acknowledge", 2 if kind == "early" else 1)
        requests.wait_note(ended, "}", 2)
        revoked, task_id = requests.send(side, f"noting.{kind}", countdown=3)
        requests.ours.do(f"app.control.revoke({task_id!r})")
        requests.wait_note(revoked, "acknowledge")
        notes[side] = [requests.notes(key) for key in (late, ended, revoked)]
        assert not any(requests.noted("ran", key) for key in (late, revoked))
    assert notes["ours"] == notes["theirs"]
    assert notes["ours"][0] == [
        "maybe_expire", "task-revoked:expired:signum:terminated:False:None:True", "acknowledge",
    ]  # fmt: skip


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["early", "late"])
def test_what_expires_while_it_waits_for_a_process_is_told_and_acknowledged_by_both(requests, kind):
    requests.start(SIDES, "--prefetch-multiplier", "4")
    running = {side: requests.send(side, f"noting.{kind}", "wait")[0] for side in SIDES}
    for key in running.values():
        requests.wait_noted("ran", key)
    moment = time.time() + 3
    expires = datetime.fromtimestamp(moment, UTC).isoformat()
    late = {side: requests.send(side, f"noting.{kind}", expires=expires) for side in SIDES}
    for side in SIDES:
        _, task_id = late[side]
        wait_until(lambda task_id=task_id, side=side: f"[{task_id}] received" in requests.workers[side].said(), task_id)
    assert time.time() < moment
    requests.wait_until_time(moment + 0.01)
    for side in SIDES:
        requests.open_gate(running[side])
        requests.wait_note(late[side][0], "acknowledge")
    for key, task_id in late.values():
        assert requests.notes(key) == [
            "maybe_expire", "task-revoked:expired:signum:terminated:False:None:True", "acknowledge",
        ]  # fmt: skip
        assert not requests.noted("ran", key)
        assert requests.ours.do(f"app.AsyncResult({task_id!r}).state") == "REVOKED"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["early", "late"])
@pytest.mark.parametrize("side", SIDES)
def test_what_does_not_call_super_is_not_settled_and_comes_again_when_the_worker_has_stopped(requests, side, kind):
    requests.start([side])
    key, _ = requests.send(side, f"silent.{kind}")
    requests.wait_note(key, "acknowledge")
    requests.wait_note(key, "task-succeeded:result:runtime")
    worker = requests.workers[side]
    worker.process.terminate()
    assert worker.wait_end() == 0
    again = requests.worker(side, "--include", "noting_requests")
    requests.wait_note(key, "task-succeeded:result:runtime", 2)
    assert len(requests.noted("ran", key)) == 2
    again.process.terminate()


@pytest.mark.timeout(120)
@pytest.mark.parametrize("side", SIDES)
def test_what_does_not_call_super_is_not_terminated(requests, side):
    requests.start([side])
    key, task_id = requests.send(side, "silent.early", "wait")
    requests.wait_noted("ran", key)
    requests.wait_note(key, "}")
    requests.ours.do(f"app.control.revoke({task_id!r}, terminate=True)")
    requests.wait_note(key, "terminate:15")
    requests.open_gate(key)
    requests.wait_note(key, "task-succeeded:result:runtime")
    assert len(requests.noted("ran", key)) == 1
    assert not any(note.startswith("task-revoked") for note in requests.notes(key))
