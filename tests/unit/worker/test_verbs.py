"""Requests whose class overrides what a worker does with them: the table, and whole workers (API-042)."""

import os
import signal
import time

import pytest

from celery import states
from celery.app.einfo import ExceptionInfo
from celery.app.outcome import Disposition, Outcome
from celery.exceptions import Ignore, Reject, Retry, TaskError, TaskRevokedError, WorkerLostError
from celery.worker import verbs
from celery.worker.request import Request

#: No test waits longer for what must come at once, in seconds.
SOON = 20


# -- the table


def names(calls):
    """What is called, with what it is told but for texts."""
    return [
        ":".join([name, *args, *(f"{key}={value}" for key, value in kwargs.items() if not isinstance(value, str))])
        for name, args, kwargs in calls
    ]


def outcome(state, disposition=Disposition.ACK):
    return Outcome(job=1, state=state, disposition=disposition, summary="'it'", runtime=1.5)


@pytest.mark.parametrize("refused", [False, True])
@pytest.mark.parametrize(
    ("ended", "error", "early", "late"),
    [
        (outcome(states.SUCCESS), None, ["send_event:task-succeeded:runtime=1.5"], "acknowledge"),
        (outcome(states.FAILURE), KeyError(), ["send_event:task-failed"], "by its settings"),
        (outcome(states.RETRY), Retry("soon"), ["send_event:task-retried"], "acknowledge"),
        (outcome(states.IGNORED), Ignore(), ["acknowledge"], None),
        (outcome(states.REJECTED, Disposition.REQUEUE), Reject(requeue=True), ["reject:requeue=True"], None),
        (
            outcome(states.REJECTED, Disposition.REJECT),
            Reject(),
            ["send_event:task-failed", "reject:requeue=False"],
            None,
        ),
    ],
)
def test_the_end_of_an_attempt_is_told_by_the_table(ended, error, early, late, refused):
    einfo = error and ExceptionInfo(error)
    if late == "by its settings":
        late = "reject:requeue=False" if refused else "acknowledge"
    assert names(verbs.at_end(ended, einfo, late=False, refused=refused)) == early
    assert names(verbs.at_end(ended, einfo, late=True, refused=refused)) == [late, *early] if late else early


def test_what_is_revoked_is_told_how():
    assert names(verbs.when_off(expired=True))[0] == "send_event:task-revoked:terminated=False:signum=None:expired=True"
    assert names(verbs.when_off(signum=15)) == [
        "send_event:task-revoked:terminated=True:signum=15:expired=False", "acknowledge",
    ]  # fmt: skip


def test_a_retry_is_told_with_its_cause():
    einfo = ExceptionInfo(Retry("soon", KeyError("why")))
    ((_, _, fields),) = verbs.at_end(outcome(states.RETRY), einfo, late=False, refused=False)
    assert fields["exception"] == "KeyError('why')"


# -- whole workers


def refuse(self, *_args, **_kwargs):
    raise LookupError("a mistake")


@pytest.mark.parametrize("late", [False, True])
def test_a_message_that_nobody_acknowledges_stays_until_the_worker_stops(stage, late):
    @stage.task({"acknowledge": lambda self: stage.told.put(self)}, acks_late=late)
    def quick():
        return 1

    with stage.worker():
        sent = quick.delay()
        request = stage.next()
        assert sent.get(timeout=SOON) == 1
        assert stage.waiting() == 0
    assert request.id == sent.id
    assert stage.waiting() == 1
    assert stage.letters() == []


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize(("requeue", "letters"), [(None, 0), (False, 1)])
def test_it_may_be_settled_long_after_its_end(stage, late, requeue, letters):
    @stage.task({"acknowledge": lambda self: stage.told.put(self)}, acks_late=late)
    def quick(number):
        return number

    with stage.worker():
        sent = [quick.delay(number) for number in range(10)]
        assert [result.get(timeout=SOON) for result in sent] == list(range(10))
        for request in [stage.next() for _ in sent]:
            if requeue is None:
                Request.acknowledge(request)
                Request.reject(request)  # too late
            else:
                Request.reject(request, requeue)
                Request.acknowledge(request)  # too late
    assert stage.waiting() == 0
    assert len(stage.letters()) == 10 * letters


def test_what_is_not_acknowledged_counts_as_reserved(stage):
    stage.app.conf.worker_prefetch_multiplier = 1

    @stage.task({"acknowledge": lambda self: stage.told.put(self)}, acks_late=True)
    def quick(number):
        return number

    with stage.worker():
        sent = [quick.delay(number) for number in range(5)]
        for number, result in enumerate(sent):
            assert result.get(timeout=SOON) == number
            request = stage.next()
            assert stage.told.empty()
            assert stage.waiting() == 4 - number
            Request.acknowledge(request)
    assert stage.waiting() == 0


@pytest.mark.parametrize("late", [False, True])
def test_an_acknowledgement_that_raises_is_told_of_and_changes_no_result(stage, late, caplog):
    @stage.task({"acknowledge": refuse}, acks_late=late)
    def broken():
        return 1

    @stage.app.task(shared=False)
    def sound():
        return 2

    with stage.worker():
        assert broken.delay().get(timeout=SOON) == 1
        assert sound.delay().get(timeout=SOON) == 2
    assert "LookupError: a mistake" in caplog.text
    assert stage.waiting() == 1


def test_hooks_need_not_call_super(stage):
    def note(name):
        return lambda self, *_args, **_kwargs: stage.told.put(name)

    hooks = {name: note(name) for name in ("on_accepted", "on_success")}

    @stage.task({**hooks, "send_event": lambda self, kind, **_: stage.told.put(kind)}, acks_late=True)
    def quick():
        return 1

    with stage.worker():
        quick.delay()
        told = [stage.next() for _ in range(4)]
    assert told == ["on_accepted", "task-started", "on_success", "task-succeeded"]
    assert stage.waiting() == 0


def test_a_hook_that_raises_leaves_nothing_out(stage, caplog):
    @stage.task({"on_success": refuse, "send_event": lambda self, kind, **_: stage.told.put(kind)}, acks_late=True)
    def quick():
        return 1

    with stage.worker():
        assert quick.delay().get(timeout=SOON) == 1
        assert [stage.next(), stage.next()] == ["task-started", "task-succeeded"]
    assert "LookupError: a mistake" in caplog.text
    assert stage.waiting() == 0


def test_a_request_may_say_that_it_has_not_expired(stage):
    @stage.task({"maybe_expire": lambda self: None})
    def quick():
        return 1

    with stage.worker():
        assert quick.apply_async(expires=-5).get(timeout=SOON) == 1
    assert stage.waiting() == 0


def test_a_request_may_say_that_it_has_expired(stage):
    def note(self, type, **fields):
        stage.told.put((type, fields))

    @stage.task({"maybe_expire": lambda self: True, "send_event": note})
    def quick():
        return 1

    with stage.worker():
        with pytest.raises(TaskRevokedError, match="expired"):
            quick.apply_async(expires=60).get(timeout=SOON)
        assert quick.delay().get(timeout=SOON) == 1  # nobody asks what cannot expire
    assert stage.next() == ("task-revoked", {"terminated": False, "signum": None, "expired": True})
    assert stage.waiting() == 0


@pytest.mark.parametrize("pool", ["solo", "prefork"])
@pytest.mark.parametrize("method", ["maybe_expire", "revoked"])
@pytest.mark.parametrize("expired", [False, True])
def test_a_request_is_asked_again_when_it_expires_in_the_pool(lasting, tmp_path, expired, method, pool):
    """Once when it comes, and once when its time is up."""
    lasting.app.conf.worker_prefetch_multiplier = 4
    gate = tmp_path / "gate"

    def answer(self):
        lasting.told.put(self.id)
        return expired and gate.exists()

    @lasting.app.task(shared=False)
    def block():
        (tmp_path / "blocks").touch()
        while not gate.exists():
            time.sleep(0.005)

    @lasting.task({method: answer})
    def quick():
        return 1

    with lasting.worker(pool=pool):
        block.delay()
        lasting.wait_until((tmp_path / "blocks").exists)
        sent = quick.apply_async(expires=1)
        over = time.time() + 1
        assert lasting.next() == sent.id
        lasting.wait_until(lambda: time.time() > over)
        assert lasting.told.empty()
        gate.touch()
        assert lasting.next() == sent.id
        if expired:
            with pytest.raises(TaskRevokedError, match="expired"):
                sent.get(timeout=SOON)
        else:
            assert sent.get(timeout=SOON) == 1
    assert lasting.told.empty()
    assert lasting.waiting() == 0


@pytest.mark.parametrize(("expires", "error"), [(60, TaskError), (-5, TaskRevokedError)])
def test_a_broken_maybe_expire_ends_its_task_only(stage, expires, error, caplog):
    @stage.task({"maybe_expire": refuse})
    def quick():
        return 1

    with stage.worker():
        with pytest.raises(error):
            quick.apply_async(expires=expires).get(timeout=SOON)
        assert quick.delay().get(timeout=SOON) == 1
    assert "LookupError: a mistake" in caplog.text
    assert stage.waiting() == 0


def test_an_expired_task_whose_event_raises_ends_as_revoked_and_stays_unacknowledged(stage, caplog):
    @stage.task({"send_event": refuse})
    def quick():
        return 1

    with stage.worker(), pytest.raises(TaskRevokedError):
        quick.apply_async(expires=-5).get(timeout=SOON)
    assert "LookupError: a mistake" in caplog.text
    assert stage.waiting() == 1


@pytest.mark.parametrize("late", [False, True])
def test_what_is_executed_here_is_acknowledged_by_its_request(stage, late):
    def acknowledge(self):
        stage.told.put(self.id)
        Request.acknowledge(self)

    def execute_using_pool(self, pool, **_):
        self.execute()

    @stage.task({"acknowledge": acknowledge, "execute_using_pool": execute_using_pool}, acks_late=late)
    def quick():
        return 1

    with stage.worker():
        sent = quick.delay()
        assert sent.get(timeout=SOON) == 1
    # When it begins, and when it has ended.
    assert [stage.told.get_nowait() for _ in range(stage.told.qsize())] == [sent.id] * (1 if late else 2)
    assert stage.waiting() == 0


@pytest.mark.parametrize("late", [False, True])
def test_what_is_executed_here_ends_though_its_request_cannot_acknowledge(stage, late, caplog):
    def execute_using_pool(self, pool, **_):
        self.execute()

    @stage.task({"acknowledge": refuse, "execute_using_pool": execute_using_pool}, acks_late=late)
    def quick():
        return 1

    with stage.worker():
        assert quick.delay().get(timeout=SOON) == 1
        assert quick.delay().get(timeout=SOON) == 1
    assert "LookupError: a mistake" in caplog.text
    assert stage.waiting() == 2


@pytest.mark.parametrize("obedient", [False, True])
def test_a_task_whose_process_dies_runs_again_if_its_request_says_so(lasting, tmp_path, obedient):
    def reject(self, requeue=False):
        lasting.told.put(requeue)
        if obedient:
            Request.reject(self, requeue)

    @lasting.task({"reject": reject}, acks_late=True, reject_on_worker_lost=True)
    def die_once():
        if not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return 1

    with lasting.worker(pool="prefork"):
        sent = die_once.delay()
        assert lasting.next() is True
        if obedient:
            assert sent.get(timeout=SOON) == 1
    assert lasting.waiting() == (not obedient)


def test_what_was_not_acknowledged_when_its_time_was_up_fails_all_the_same(lasting):
    @lasting.task({"acknowledge": lambda self: lasting.told.put(self)}, acks_late=True, time_limit=0.3)
    def sleep():
        time.sleep(SOON)

    with lasting.worker(pool="prefork"):
        sent = sleep.delay()
        assert lasting.next().id == sent.id
        lasting.wait_until(lambda: sent.state == states.FAILURE)
    assert lasting.waiting() == 1


@pytest.mark.parametrize("asked", [True, False])
@pytest.mark.parametrize(("settle", "letters"), [("acknowledge", 0), ("reject", 1)])
def test_what_kills_its_process_again_when_it_has_failed_is_settled_by_its_request(lasting, settle, letters, asked):
    """The second time in a hook of the task: then nobody is left in a child who could tell."""

    def verb(self, **options):
        lasting.told.put((settle, options))
        if asked:
            getattr(Request, settle)(self, **options)

    def on_failure(self, exc_info, **options):
        lasting.told.put(type(exc_info.exception))
        Request.on_failure(self, exc_info, **options)

    def die(*_args):
        os.kill(os.getpid(), signal.SIGKILL)

    options = {"acks_late": True, "acks_on_failure": settle == "acknowledge"}
    task = lasting.task({settle: verb, "on_failure": on_failure}, on_failure=staticmethod(die), **options)(die)
    with lasting.worker(pool="prefork"):
        sent = task.delay()
        assert lasting.next() is WorkerLostError
        assert lasting.next() == (settle, {} if settle == "acknowledge" else {"requeue": False})
        with pytest.raises(WorkerLostError):
            sent.get(timeout=SOON)
    assert lasting.told.empty()
    assert len(lasting.letters()) == asked * letters
    assert lasting.waiting() == (not asked)


def test_what_kills_its_process_again_is_refused_where_failures_are(lasting):
    def die(*_args):
        os.kill(os.getpid(), signal.SIGKILL)

    options = {"acks_late": True, "acks_on_failure": False, "on_failure": staticmethod(die)}
    task = lasting.app.task(shared=False, **options)(die)
    with lasting.worker(pool="prefork"), pytest.raises(WorkerLostError):
        task.delay().get(timeout=SOON)
    assert len(lasting.letters()) == 1
    assert lasting.waiting() == 0


def test_error_callbacks_of_what_kills_its_process_again_are_sent_and_not_called_in_place_twice(lasting, tmp_path):
    app, called = lasting.app, tmp_path / "called"

    def die(*_args):
        os.kill(os.getpid(), signal.SIGKILL)

    @app.task(shared=False)
    def sent(task_id):
        return task_id

    @app.task(shared=False)
    def in_place(request, exc, traceback):
        with called.open("a") as calls:
            calls.write(f"{request.id} {type(exc).__name__}\n")

    task = app.task(shared=False, on_failure=staticmethod(die))(die)
    callback = sent.s().set(task_id="callback")
    with lasting.worker(pool="prefork"):
        result = task.apply_async(link_error=[in_place.s(), callback])
        with pytest.raises(WorkerLostError):
            result.get(timeout=SOON)
        assert app.AsyncResult("callback").get(timeout=SOON) == result.id
    assert called.read_text() == f"{result.id} WorkerLostError\n"
