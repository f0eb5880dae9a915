"""Request classes that tasks bring, in whole workers: what they know, and what they are told (API-042)."""

import os
import signal
import time

import pytest

from celery import signals
from celery.app.task import Task
from celery.exceptions import ImproperlyConfigured, Retry, SoftTimeLimitExceeded, WorkerLostError
from celery.worker.request import Request

#: No test waits longer for what must come at once, in seconds.
SOON = 20


def telling(told):
    """A base of tasks whose class of requests puts on record what it is told."""

    class Watched(Request):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.note = f"made for {self.id}"

        def on_accepted(self, pid, time_accepted):
            super().on_accepted(pid, time_accepted)
            assert abs(time_accepted - time.time()) < SOON

        def on_timeout(self, soft, timeout):
            super().on_timeout(soft, timeout)
            told.put(("timeout", soft, timeout))

        def on_success(self, failed__retval__runtime, **kwargs):
            failed, retval, runtime = failed__retval__runtime
            assert runtime >= 0
            assert self.note == f"made for {self.id}"
            if not failed:
                told.put(("success", retval, self))
            super().on_success(failed__retval__runtime, **kwargs)

        def on_failure(self, exc_info, send_failed_event=True, return_ok=False):
            super().on_failure(exc_info, send_failed_event=send_failed_event, return_ok=return_ok)
            told.put(("failure", exc_info.exception, exc_info.traceback))

        def on_retry(self, exc_info):
            super().on_retry(exc_info)
            told.put(("retry", exc_info.exception, self))

    class WithRequest(Task):
        Request = Watched

    return WithRequest


@pytest.fixture
def stage(stage):
    stage.options["base"] = telling(stage.told)
    return stage


@pytest.fixture
def lasting(lasting):
    lasting.options["base"] = telling(lasting.told)
    return lasting


def test_a_success_is_told_with_the_repr_of_its_value(stage, caplog):
    caplog.set_level("INFO", "celery.app.trace")

    @stage.task()
    def double(text):
        return 2 * text

    with stage.worker():
        sent = double.delay("a")
        kind, value, request = stage.next()
    assert (kind, value, request.id) == ("success", "'aa'", sent.id)


def test_a_request_knows_its_call_and_its_message(stage):
    @stage.task(store_errors_even_if_ignored=True)
    def add(x, y=0):
        return x + y

    with stage.worker():
        sent = add.apply_async(
            (1,), {"y": 2}, time_limit=60, soft_time_limit=50, shadow="shade", ignore_result=True, headers={"mine": 3}
        )
        request = stage.next()[2]
    assert (request.id, request.task_id, request.name, request.type) == (sent.id, sent.id, "shade", add.name)
    assert (request.app, request.task.name, request.utc) == (stage.app, add.name, True)
    assert (request.args, request.kwargs) == ([1], {"y": 2})
    assert request.request_dict["mine"] == request.message.headers["mine"] == 3
    assert request.request_dict["correlation_id"] == request.correlation_id == sent.id
    assert (request.ignore_result, request.store_errors) == (True, True)
    assert tuple(request.time_limits) == (60, 50)
    assert (request.content_type, request.content_encoding) == ("application/json", "utf-8")
    assert request.message.body == request.body
    assert request.message.delivery_info == request.delivery_info
    assert (request.chord, request.errbacks, request.group, request.group_index) == (None, None, None, None)
    assert (request.eta, request.expires, request.stamps, request.replaced_task_nesting) == (None, None, {}, 0)


def test_a_failure_is_told_with_its_exception_and_its_traceback(stage):
    @stage.task()
    def fail():
        raise KeyError("nothing")

    with stage.worker():
        fail.delay()
        kind, error, traceback = stage.next()
    assert (kind, type(error), error.args) == ("failure", KeyError, ("nothing",))
    assert 'raise KeyError("nothing")' in traceback


def test_a_failure_that_nobody_stores_is_told_by_its_repr(stage):
    @stage.task(ignore_result=True)
    def fail():
        raise KeyError("nothing")

    with stage.worker():
        fail.delay()
        assert "KeyError('nothing')" in str(stage.next()[1])


def test_a_retry_is_told_as_one_and_the_next_attempt_has_a_request_of_its_own(stage):
    @stage.task(bind=True)
    def again(self):
        if not self.request.retries:
            raise self.retry(countdown=0)

    with stage.worker():
        again.delay()
        retry, failure, success = stage.next(), stage.next(), stage.next()
    assert (retry[0], failure[0], success[0]) == ("retry", "failure", "success")
    assert isinstance(retry[1], Retry)
    assert success[2] is not retry[2]


def test_a_soft_time_limit_is_told_before_the_failure(lasting):
    @lasting.task(soft_time_limit=0.1)
    def sleep():
        time.sleep(SOON)

    with lasting.worker(pool="prefork"):
        sleep.delay()
        assert lasting.next() == ("timeout", True, 0.1)
        assert isinstance(lasting.next()[1], SoftTimeLimitExceeded)


def test_a_hard_time_limit_is_told_as_such_and_as_no_failure(lasting):
    @lasting.task(time_limit=0.1)
    def sleep(seconds):
        time.sleep(seconds)

    with lasting.worker(pool="prefork"):
        sleep.delay(SOON)
        assert lasting.next() == ("timeout", False, 0.1)
        sleep.delay(0)
        assert lasting.next()[0] == "success"


@pytest.mark.parametrize("given_back", [False, True])
def test_a_task_whose_process_dies_fails(lasting, tmp_path, given_back):
    flag = tmp_path / "died"

    @lasting.task(acks_late=given_back, reject_on_worker_lost=given_back)
    def die():
        if not flag.exists():
            flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)

    with lasting.worker(pool="prefork"):
        die.delay()
        assert isinstance(lasting.next()[1], WorkerLostError)
        if given_back:
            assert lasting.next()[0] == "success"


def test_a_hook_that_raises_harms_nobody(stage):
    class Broken(Request):
        def on_success(self, failed__retval__runtime, **kwargs):
            raise LookupError("a mistake")

    @stage.task(Request=Broken)
    def broken():
        return 1

    @stage.task()
    def sound():
        return 2

    with stage.worker():
        first = broken.delay()
        sound.delay()
        assert stage.next()[0] == "success"
        assert first.get(timeout=SOON) == 1


def test_a_worker_that_stops_waits_for_hooks(stage):
    class Slow(Request):
        def on_success(self, failed__retval__runtime, **kwargs):
            time.sleep(0.2)
            stage.told.put(self.id)

    @stage.task(Request=Slow)
    def quick():
        pass

    with stage.worker():
        sent = [quick.delay() for _ in range(3)]
        for result in sent:
            result.get(timeout=SOON)
    assert [stage.told.get_nowait() for _ in sent] == [result.id for result in sent]


@pytest.mark.parametrize("requeue", [False, True])
def test_a_request_that_has_failed_may_be_refused_or_given_back_by_its_hook(stage, requeue):
    class Refusing(stage.options["base"].Request):
        def on_failure(self, exc_info, **options):
            self.reject(requeue=requeue)
            super().on_failure(exc_info, **options)

    attempts = []

    @stage.task(Request=Refusing, acks_late=True)
    def fail_once():
        attempts.append(1)
        if len(attempts) == 1:
            raise KeyError("once")

    queue_ = stage.app.conf.task_default_queue
    with stage.worker():
        fail_once.delay()
        assert stage.next()[0] == "failure"
        if requeue:
            assert stage.next()[0] == "success"
    letters = stage.app.publisher.run(lambda sender: sender.dead_letters(queue_))
    assert len(letters) == (not requeue)
    assert len(attempts) == 1 + requeue
    assert stage.app.publisher.run(lambda sender: sender.length(queue_)) == 0


def test_a_task_whose_time_was_up_may_be_given_back_by_its_request(lasting, tmp_path):
    flag = tmp_path / "slept"

    class Patient(lasting.options["base"].Request):
        def on_timeout(self, soft, timeout):
            super().on_timeout(soft, timeout)
            self.reject(requeue=True)

    @lasting.task(Request=Patient, acks_late=True, time_limit=0.2)
    def sleep():
        if not flag.exists():
            flag.touch()
            time.sleep(SOON)

    with lasting.worker(pool="prefork"):
        sleep.delay()
        assert lasting.next() == ("timeout", False, 0.2)
        assert lasting.next()[0] == "success"


def test_a_late_acknowledgement_may_come_early_after_all(lasting, tmp_path):
    class Early(lasting.options["base"].Request):
        def on_accepted(self, pid, time_accepted):
            super().on_accepted(pid, time_accepted)
            self.acknowledge()
            lasting.told.put(self)

    @lasting.task(Request=Early, acks_late=True, reject_on_worker_lost=True)
    def die():
        while not (tmp_path / "go").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    with lasting.worker(pool="prefork"):
        sent = die.delay()
        request = lasting.next()
        deadline = time.monotonic() + SOON
        while not request.acknowledged:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        request.reject(requeue=True)  # too late
        (tmp_path / "go").touch()
        with pytest.raises(WorkerLostError):
            sent.get(timeout=SOON)


def test_a_request_of_the_workers_own_class_is_not_settled_by_others(stage):
    @stage.app.task(shared=False)
    def plain():
        pass

    def receive(request, **_):
        for settle in (request.acknowledge, request.reject):
            try:
                settle()
            except NotImplementedError as exc:
                stage.told.put(str(exc))

    signals.task_received.connect(receive)
    try:
        with stage.worker():
            sent = plain.delay()
            assert sent.get(timeout=SOON) is None
            assert f"{plain.name}[{sent.id}] is run and settled by the worker" in stage.next()
    finally:
        signals.task_received.disconnect(receive)


def test_a_result_is_there_once_the_hooks_have_returned(stage):
    hooks = []

    class Slow(Request):
        def on_success(self, failed__retval__runtime, **kwargs):
            time.sleep(0.2)
            hooks.append(self.id)

    @stage.task(Request=Slow)
    def quick():
        return 1

    with stage.worker():
        sent = quick.delay()
        assert sent.get(timeout=SOON) == 1
        assert hooks == [sent.id]


def test_what_is_no_request_class_is_refused_by_the_task_s_name(stage):
    @stage.task(name="odd", Request="builtins:dict")
    def odd():
        pass

    with pytest.raises((ImproperlyConfigured, RuntimeError), match="Request of task odd"):
        with stage.worker():
            pass


def test_receivers_of_task_received_may_read_arguments(stage):
    @stage.app.task(shared=False)
    def plain(x):
        return x

    def receive(request, **_):
        stage.told.put((request.args, request.time_start, request.worker_pid))

    signals.task_received.connect(receive)
    try:
        with stage.worker():
            plain.delay(7)
            assert stage.next() == ([7], None, None)
    finally:
        signals.task_received.disconnect(receive)
