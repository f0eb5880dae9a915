"""Requests that take themselves to the pool, in whole workers: `execute_using_pool`, `execute`, `revoked` (API-042)."""

import asyncio
import os
import signal
import threading
import time

import pytest

from celery import chord, group
from celery.exceptions import SoftTimeLimitExceeded, TaskError, TaskRevokedError, WorkerLostError
from celery.worker.request import Request

#: No test waits longer for what must come at once, in seconds.
SOON = 20


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_the_worker_calls_it_and_super_hands_the_request_to_the_pool(lasting, pool, late):
    def run(self, pool, **kwargs):
        handed = super(type(self), self).execute_using_pool(pool, **kwargs)
        lasting.told.put((self.id, kwargs, pool.num_processes, handed, threading.current_thread()))
        return handed

    @lasting.task({"execute_using_pool": run}, acks_late=late)
    def add(x, y):
        return x + y

    with lasting.worker(pool=pool):
        sent = add.delay(1, 2)
        task_id, kwargs, processes, handed, thread = lasting.next()
        assert sent.get(timeout=SOON) == 3
    assert (task_id, kwargs, processes) == (sent.id, {}, 1)
    assert thread.name.startswith("celery-hooks")
    assert handed.correlation_id == sent.id
    assert handed.accepted()
    assert handed.ready()
    assert handed.successful()
    assert lasting.waiting() == 0


def test_requests_come_one_after_the_other_and_the_hooks_see_the_same_objects(stage):
    def run(self, pool, **kwargs):
        self.number = len(seen)
        seen.append(self.id)
        return super(type(self), self).execute_using_pool(pool, **kwargs)

    seen = []

    def on_success(self, failed__retval__runtime, **kwargs):
        stage.told.put((self.number, self.id))

    @stage.task({"execute_using_pool": run, "on_success": on_success})
    def quick():
        pass

    with stage.worker():
        sent = [quick.delay() for _ in range(20)]
        told = [stage.next() for _ in sent]
    assert [number for number, _ in told] == list(range(20))
    assert seen == [result.id for result in sent] == [task_id for _, task_id in told]


def test_what_it_changes_in_request_dict_the_task_sees(stage):
    def run(self, pool, **kwargs):
        self.request_dict["tenant"] = "north"
        return super(type(self), self).execute_using_pool(pool, **kwargs)

    @stage.task({"execute_using_pool": run}, bind=True)
    def look(self, x):
        return [x, self.request.tenant, self.request.id]

    with stage.worker():
        sent = look.delay(7)
        assert sent.get(timeout=SOON) == [7, "north", sent.id]


@pytest.mark.parametrize("is_async", [False, True])
def test_time_limits_are_those_that_the_request_says(lasting, is_async):
    def sleep():
        time.sleep(SOON)

    async def asleep():
        await asyncio.sleep(SOON)

    task = lasting.task(members={"time_limits": (None, 0.1)})(asleep if is_async else sleep)
    with lasting.worker(pool="prefork"):
        with pytest.raises(SoftTimeLimitExceeded):
            task.delay().get(timeout=SOON)


def test_the_second_call_runs_nothing_and_is_warned_of(stage, caplog):
    def run(self, pool, **kwargs):
        first = super(type(self), self).execute_using_pool(pool)
        stage.told.put(first is super(type(self), self).execute_using_pool(pool))

    ran = []

    @stage.task({"execute_using_pool": run})
    def once():
        ran.append(1)

    @stage.app.task(shared=False)
    def after():
        pass

    with stage.worker():
        once.delay().get(timeout=SOON)
        after.delay().get(timeout=SOON)
        assert stage.next() is True
    assert ran == [1]
    assert "was handed over before" in caplog.text


def test_it_may_hand_over_later_from_another_thread(stage):
    def run(self, pool, **kwargs):
        stage.told.put((super(type(self), self).execute_using_pool, pool))

    @stage.task({"execute_using_pool": run})
    def work():
        return 1

    @stage.app.task(shared=False)
    def other():
        return 2

    with stage.worker():
        sent = work.delay()
        hand, pool = stage.next()
        assert other.delay().get(timeout=SOON) == 2  # what is held is in nobody's way
        assert not sent.ready()
        hand(pool)
        assert sent.get(timeout=SOON) == 1
    assert stage.waiting() == 0


def test_what_is_held_goes_back_when_the_worker_stops_and_cannot_be_run_then(stage):
    def run(self, pool, **kwargs):
        stage.told.put((super(type(self), self).execute_using_pool, pool, self))

    @stage.task({"execute_using_pool": run})
    def work():
        return 1

    with stage.worker():
        sent = work.delay()
        hand, pool, _request = stage.next()
    assert stage.waiting() == 1
    assert not hand(pool).accepted()
    assert sent.state == "PENDING"
    with stage.worker():
        assert stage.next()[2].id == sent.id


@pytest.mark.parametrize(("settle", "letters", "again"), [("ack", 0, 0), ("reject", 1, 0), ("requeue", 0, 1)])
def test_without_super_it_may_settle_the_message(stage, settle, letters, again):
    def run(self, pool, **kwargs):
        stage.told.put(self.id)
        if settle == "ack" or calls:
            self.acknowledge()
            self.reject()  # too late
        else:
            self.reject(requeue=settle == "requeue")
        calls.append(self.acknowledged)

    calls = []

    @stage.task({"execute_using_pool": run})
    def never():
        stage.told.put("ran")

    with stage.worker():
        sent = never.delay()
        for _ in range(1 + again):
            assert stage.next() == sent.id
    assert calls == [True] * (1 + again)
    assert sent.state == "PENDING"
    assert len(stage.letters()) == letters
    assert stage.waiting() == 0
    assert stage.told.empty()


def test_what_is_acknowledged_first_runs_all_the_same_even_in_a_worker_that_stops(lasting):
    def run(self, pool, **kwargs):
        self.acknowledge()
        lasting.told.put(self)
        gate.wait(SOON)
        super(type(self), self).execute_using_pool(pool)

    gate = threading.Event()

    @lasting.task({"execute_using_pool": run}, acks_late=True)
    def work():
        return 1

    with lasting.worker(pool="prefork") as worker:
        sent = work.delay()
        request = lasting.next()
        assert request.acknowledged
        worker.stop()
        gate.set()
    assert sent.get(timeout=SOON) == 1
    assert lasting.waiting() == 0


def test_what_is_acknowledged_stays_in_a_pool_whose_worker_stops(lasting, tmp_path):
    def run(self, pool, **kwargs):
        self.acknowledge()
        lasting.told.put(self)
        gate.wait(SOON)
        super(type(self), self).execute_using_pool(pool)
        lasting.told.put("handed over")

    gate, go = threading.Event(), tmp_path / "go"

    @lasting.task({"execute_using_pool": run})
    def work():
        return 1

    @lasting.app.task(shared=False)
    def block():
        (tmp_path / "blocks").touch()
        while not go.exists():
            time.sleep(0.005)

    with lasting.worker(pool="prefork") as worker:
        sent = work.delay()
        lasting.next()
        block.delay()
        lasting.wait_until((tmp_path / "blocks").exists)
        gate.set()
        assert lasting.next() == "handed over"
        worker.stop()
        lasting.wait_until(lambda: worker.consumer._paused)
        go.touch()
    assert sent.get(timeout=SOON) == 1


def test_what_was_acknowledged_first_fails_when_its_process_dies(lasting):
    def run(self, pool, **kwargs):
        self.acknowledge()
        super(type(self), self).execute_using_pool(pool)

    @lasting.task({"execute_using_pool": run}, acks_late=True, reject_on_worker_lost=True)
    def die():
        os.kill(os.getpid(), signal.SIGKILL)

    with lasting.worker(pool="prefork"):
        with pytest.raises(WorkerLostError):
            die.delay().get(timeout=SOON)


def test_many_are_held_beside_each_other(stage):
    def run(self, pool, **kwargs):
        stage.told.put(self)

    @stage.task({"execute_using_pool": run})
    def work():
        pass

    with stage.worker():
        sent = [work.delay() for _ in range(50)]
        held = [stage.next() for _ in sent]
        assert {request.id for request in held} == {result.id for result in sent}
        for request in held[:25]:
            request.acknowledge()
    stage.wait_until(lambda: stage.waiting() == 25)


def test_a_worker_that_stops_waits_for_it_and_gives_back_what_has_not_begun(stage):
    def run(self, pool, **kwargs):
        stage.told.put(self.id)
        gate.wait(SOON)
        stage.told.put("returned")

    gate = threading.Event()

    @stage.task({"execute_using_pool": run})
    def work():
        return 1

    with stage.worker() as worker:
        sent = [work.delay(), work.delay()]
        assert stage.next() == sent[0].id
        stage.wait_until(lambda: stage.waiting() == 0)
        worker.stop()
        stage.wait_until(lambda: stage.waiting() == 1)
        gate.set()
    assert stage.next() == "returned"
    assert stage.told.empty()
    assert stage.waiting() == 2


def test_what_it_raises_fails_the_task_and_nothing_else(stage, caplog):
    def run(self, pool, **kwargs):
        raise LookupError("a mistake")

    def on_failure(self, exc_info, **kwargs):
        stage.told.put(str(exc_info.exception))

    @stage.task({"execute_using_pool": run, "on_failure": on_failure})
    def broken():
        raise AssertionError

    @stage.app.task(shared=False)
    def told(request, exc, traceback):
        stage.told.put(("errback", str(exc)))

    @stage.app.task(shared=False)
    def sound():
        return 1

    with stage.worker():
        sent = broken.apply_async(link_error=told.s())
        text = "Mine.execute_using_pool raised LookupError('a mistake')"
        assert {stage.next(), stage.next()} == {text, ("errback", text)}
        with pytest.raises(TaskError, match="a mistake"):
            sent.get(timeout=SOON)
        assert sound.delay().get(timeout=SOON) == 1
    assert "LookupError: a mistake" in caplog.text
    assert stage.waiting() == 0


def test_what_it_raises_after_handing_over_changes_nothing(stage, caplog):
    def run(self, pool, **kwargs):
        super(type(self), self).execute_using_pool(pool)
        raise SystemExit(3)

    @stage.task({"execute_using_pool": run})
    def work():
        return 1

    with stage.worker():
        assert work.delay().get(timeout=SOON) == 1
        assert work.delay().get(timeout=SOON) == 1
    assert "raised after it was handed over" in caplog.text


def test_a_chord_ends_though_a_part_is_refused(stage):
    def run(self, pool, **kwargs):
        raise LookupError("a mistake")

    @stage.task({"execute_using_pool": run})
    def broken():
        raise AssertionError

    @stage.app.task(shared=False)
    def total(values):
        return values

    with stage.worker():
        with pytest.raises(Exception, match="a mistake"):
            chord(group(broken.si(), broken.si()))(total.s()).get(timeout=SOON)


def _raises(self, pool, **kwargs):
    raise TaskRevokedError("not today")


@pytest.mark.parametrize(
    "how",
    [
        {"execute_using_pool": _raises},
        {"execute_using_pool": lambda self, _pool, **_: None if self.revoked() else 1, "revoked": Request.revoked},
        {"revoked": lambda _self: True},
    ],
    ids=["raised", "asked", "answered"],
)
def test_what_is_revoked_meanwhile_ends_so(stage, how):
    gate = threading.Event()

    def block(self, pool, **kwargs):
        stage.told.put(self)
        gate.wait(SOON)
        self.acknowledge()

    @stage.task({"execute_using_pool": block})
    def first():
        pass

    @stage.task(members=how)
    def second():
        return 1

    with stage.worker() as worker:
        first.delay()
        sent = second.delay()
        stage.next()
        stage.wait_until(lambda: stage.waiting() == 0)
        worker.state.revoked.add(sent.id)
        gate.set()
        with pytest.raises(TaskRevokedError):
            sent.get(timeout=SOON)
        assert sent.state == "REVOKED"
    assert stage.waiting() == 0


def test_what_expires_while_it_waits_for_its_turn_ends_as_revoked(stage):
    def run(self, pool, **kwargs):
        while not self.revoked():
            time.sleep(0.01)
        return super(type(self), self).execute_using_pool(pool)

    @stage.task({"execute_using_pool": run})
    def work():
        return 1

    with stage.worker():
        with pytest.raises(TaskRevokedError, match="expired"):
            work.apply_async(expires=0.5).get(timeout=SOON)


def test_what_is_held_can_be_revoked_from_afar_and_not_run_after_that(stage, caplog):
    def run(self, pool, **kwargs):
        stage.told.put((self, pool))

    @stage.task({"execute_using_pool": run})
    def work():
        return 1

    with stage.worker():
        sent = work.delay()
        request, pool = stage.next()
        request.terminate(pool)
        with pytest.raises(TaskRevokedError):
            sent.get(timeout=SOON)
        handed = Request.execute_using_pool(request, pool)
        stage.wait_until(lambda: "it is not run here" in caplog.text)
        assert not handed.accepted()


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("pool", ["solo", "prefork"])
def test_execute_runs_the_task_in_the_workers_main_process(lasting, pool, late):
    def run(self, pool, **kwargs):
        lasting.told.put((os.getpid(), self.execute(loglevel=20)))
        lasting.told.put(self.execute())

    @lasting.task({"execute_using_pool": run}, acks_late=late, bind=True)
    def work(self, x):
        return [x, os.getpid(), self.request.loglevel]

    @lasting.app.task(shared=False)
    def plain():
        return 1

    with lasting.worker(pool=pool):
        sent = work.delay(5)
        pid, value = lasting.next()
        assert sent.get(timeout=SOON) == value == [5, pid, 20]
        assert lasting.next() is None
        assert plain.delay().get(timeout=SOON) == 1
    assert lasting.waiting() == 0


@pytest.mark.parametrize("late", [False, True])
def test_execute_returns_the_traceback_of_a_failure(stage, late):
    def run(self, pool, **kwargs):
        stage.told.put(self.execute())

    @stage.task({"execute_using_pool": run}, acks_late=late)
    def fail():
        raise KeyError("nothing")

    with stage.worker():
        sent = fail.delay()
        assert 'raise KeyError("nothing")' in stage.next()
        with pytest.raises(KeyError):
            sent.get(timeout=SOON)
    assert stage.waiting() == 0


def test_execute_runs_coroutines_and_what_follows(stage):
    def run(self, pool, **kwargs):
        self.execute()

    @stage.task({"execute_using_pool": run})
    async def double(x):
        return 2 * x

    with stage.worker():
        assert (double.s(3) | double.s()).delay().get(timeout=SOON) == 12


def test_a_task_that_leaves_the_interpreter_fails_and_the_worker_stays(stage):
    def run(self, pool, **kwargs):
        self.execute()

    @stage.task({"execute_using_pool": run})
    def leave():
        raise SystemExit(3)

    @stage.app.task(shared=False)
    def plain():
        return 1

    with stage.worker():
        with pytest.raises(TaskError, match="SystemExit"):
            leave.delay().get(timeout=SOON)
        assert plain.delay().get(timeout=SOON) == 1


def test_it_may_run_something_else_in_the_pool(lasting):
    def run(self, pool, **kwargs):
        pool.apply_async(divmod, (7, 2), callback=lambda value: (lasting.told.put(value), self.acknowledge()))

    @lasting.task({"execute_using_pool": run})
    def never():
        raise AssertionError

    with lasting.worker(pool="prefork"):
        never.delay()
        assert lasting.next() == (3, 1)
    assert lasting.waiting() == 0


def test_limits_that_are_no_numbers_fail_the_task(stage):
    @stage.task(members={"time_limits": ("soon", None)})
    def work():
        raise AssertionError

    with stage.worker():
        with pytest.raises(TaskError, match="'soon'"):
            work.delay().get(timeout=SOON)
