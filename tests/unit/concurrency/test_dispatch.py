"""Which lane gets which jobs, and how many are fetched (the rules of `celery.concurrency.dispatch`)."""

from hypothesis import given
from hypothesis import strategies as st

from celery.app.outcome import Outcome
from celery.concurrency.base import HANDOUT, Handling, Job
from celery.concurrency.dispatch import MOST, Dispatcher, Held, Lane
from celery.wire.envelope import Envelope

JOB = Job(1, Envelope({}, b""), {})


def jobs(count, task="t", first=1, is_async=False):
    return [
        (Job(number, Envelope({}, b""), {}), Handling(task, is_async=is_async))
        for number in range(first, first + count)
    ]


def ended(dispatcher, seconds, task="t", job=JOB):
    """A job has taken this long, in some lane."""
    lane = Lane()
    lane.take(Held(job, Handling(task), job.size), 0.0)
    outcome = Outcome(job.number, "SUCCESS", runtime=seconds)
    assert dispatcher.over(lane, [(lane.sequence, outcome), (lane.sequence + 1, outcome)]) == [outcome]


def known(seconds, task="t"):
    """A dispatcher that has seen the task take this long."""
    dispatcher = Dispatcher()
    for _ in range(50):
        ended(dispatcher, seconds, task)
    return dispatcher


def sizes(handed):
    return sorted(len(batch) for _, batch in handed)


class TestHandOut:
    def test_of_an_unknown_task_each_lane_gets_one(self):
        dispatcher = Dispatcher()
        dispatcher.add(jobs(10))
        assert sizes(dispatcher.assign([Lane(), Lane()])) == [1, 1]
        assert len(dispatcher.waiting) == 8

    def test_of_a_task_that_cost_a_process_each_lane_gets_one_again(self):
        dispatcher = known(HANDOUT / 10)
        dispatcher.forget(Handling("t"))
        dispatcher.add(jobs(5))
        assert sizes(dispatcher.assign([Lane(), Lane()])) == [1, 1]

    def test_of_a_long_task_each_lane_gets_one(self):
        dispatcher = known(1.0)
        dispatcher.add(jobs(10))
        assert sizes(dispatcher.assign([Lane(), Lane()])) == [1, 1]

    def test_of_a_short_task_as_many_as_fill_a_hand_out(self):
        dispatcher = known(HANDOUT / 10)
        dispatcher.add(jobs(100))
        ((_, batch),) = dispatcher.assign([Lane()])
        assert 8 <= len(batch) <= 10

    def test_never_more_than_a_lane_may_hold(self):
        dispatcher = known(0.0)
        dispatcher.add(jobs(1000))
        assert sizes(dispatcher.assign([Lane(), Lane()])) == [MOST, MOST]

    def test_what_waits_is_shared(self):
        dispatcher = known(0.0)
        dispatcher.add(jobs(10))
        assert sizes(dispatcher.assign([Lane(), Lane()])) == [5, 5]

    def test_a_lane_that_is_closed_or_stuck_gets_nothing(self):
        closed, stuck, free = Lane(), Lane(), Lane()
        closed.closed = stuck.stuck = True
        dispatcher = known(0.0)
        dispatcher.add(jobs(4))
        assert [(lane is free, len(batch)) for lane, batch in dispatcher.assign([closed, stuck, free])] == [(True, 4)]

    def test_a_lane_is_given_more_before_it_is_empty(self):
        dispatcher = known(HANDOUT / 10)
        dispatcher.add(jobs(100))
        lane = Lane()
        ((_, batch),) = dispatcher.assign([lane])
        for held in batch[: len(batch) // 3]:
            lane.release(held.sequence)
        assert not dispatcher.assign([lane])
        for held in batch[len(batch) // 3 : 2 * len(batch) // 3]:
            lane.release(held.sequence)
        assert dispatcher.assign([lane])

    def test_what_comes_back_goes_first_and_in_order(self):
        dispatcher = known(0.0)
        dispatcher.add(jobs(6))
        lane = Lane()
        ((_, batch),) = dispatcher.assign([lane])
        back = [held for number in (4, 5) if (held := lane.release(batch[number].sequence))]
        dispatcher.add(jobs(1, first=7))
        dispatcher.put_back(back)
        assert [held.job.number for held in dispatcher.waiting] == [5, 6, 7]

    def test_what_waits_can_be_taken_out(self):
        dispatcher = Dispatcher()
        dispatcher.add(jobs(2))
        dispatcher.add(jobs(1, first=3, is_async=True))
        assert dispatcher.remove(2)
        assert dispatcher.remove(3)
        assert not dispatcher.remove(2)
        assert [held.job.number for held in dispatcher.waiting] == [1]

    @given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 0.1)), max_size=60), st.integers(1, 5))
    def test_no_job_is_lost_or_doubled(self, tasks, lanes):
        dispatcher = Dispatcher()
        expected = []
        for number, (task, seconds) in enumerate(tasks, 1):
            ended(dispatcher, seconds, task)
            dispatcher.add(jobs(1, task, number))
            expected.append(number)
        lanes = [Lane() for _ in range(lanes)]
        done = []
        while len(done) < len(tasks):
            assert dispatcher.assign(lanes) or any(lane.held for lane in lanes)
            for lane in lanes:
                assert len(lane.held) <= MOST
                assert len(lane.held) < 2 or lane.load <= HANDOUT * 1.001
                for held in list(lane.held.values()):
                    done.append(held.job.number)
                    lane.release(held.sequence)
        assert sorted(done) == expected


class TestAsync:
    def test_the_emptiest_lane_gets_the_next(self):
        dispatcher = Dispatcher()
        dispatcher.add(jobs(10, is_async=True))
        assert sizes(dispatcher.assign_async([Lane(100), Lane(100)])) == [5, 5]

    def test_never_more_than_run_at_once(self):
        dispatcher = Dispatcher()
        dispatcher.add(jobs(10, is_async=True))
        assert sizes(dispatcher.assign_async([Lane(3), Lane(3)])) == [3, 3]
        assert len(dispatcher.waiting_async) == 4


class TestRoom:
    def lanes(self, count=2, capacity=1):
        return [Lane(capacity) for _ in range(count)]

    def test_of_long_tasks_one_for_each_lane_is_fetched(self):
        dispatcher = known(1.0)
        lanes = self.lanes()
        assert dispatcher.room(lanes, []) == 2
        dispatcher.add(jobs(2))
        dispatcher.assign(lanes)
        assert dispatcher.room(lanes, []) == 0

    def test_of_short_tasks_enough_for_two_hand_outs(self):
        assert known(HANDOUT / 10).room(self.lanes(1), []) in range(15, 21)

    def test_lanes_that_are_down_need_nothing(self):
        lanes = self.lanes()
        lanes[0].closed = True
        assert known(1.0).room(lanes, []) == 1

    def test_idle_are_open_lanes_that_hold_nothing_beyond_what_waits(self):
        dispatcher, lanes = known(1.0), self.lanes(3)
        lanes[0].closed = True
        assert dispatcher.idle(lanes) == 2
        dispatcher.add(jobs(1))
        assert dispatcher.idle(lanes) == 1
        dispatcher.assign(lanes)
        assert dispatcher.idle(lanes) == 1
        dispatcher.add(jobs(4))
        dispatcher.assign(lanes)
        assert dispatcher.idle(lanes) == 0

    def test_large_messages_count_as_long_work(self):
        dispatcher = known(0.000_01)
        large = Job(1, b"x" * 1_000_000, None)
        for _ in range(200):
            ended(dispatcher, 0.000_01, job=large)
        assert dispatcher.room(self.lanes(1), []) in range(3, 6)

    def test_nothing_is_wanted_while_many_bytes_wait(self):
        dispatcher, lanes = known(0.000_01), self.lanes(1)
        assert dispatcher.room(lanes, []) > 100
        dispatcher.add([(Job(number, b"x" * 1_000_000, None), Handling("t")) for number in range(1, 10)])
        assert dispatcher.room(lanes, []) <= 0
        dispatcher.assign(lanes)
        assert dispatcher.room(lanes, []) > 100

    def test_async_lanes_are_filled_in_steps(self):
        dispatcher = known(1.0)
        lanes = self.lanes(2, 100)
        fetched = 0
        while (room := dispatcher.room([], lanes)) > 0:
            assert room <= max(32, fetched + 32)
            dispatcher.add(jobs(room, first=fetched + 1, is_async=True))
            dispatcher.assign_async(lanes)
            fetched += room
        assert fetched == 200

    def test_room_for_async_jobs_is_not_filled_with_sync_ones(self):
        dispatcher, lanes, async_lanes = known(1.0), self.lanes(), self.lanes(2, 100)
        number = 1
        while dispatcher.room(lanes, async_lanes) > 0:
            room = dispatcher.room(lanes, async_lanes)
            dispatcher.add(jobs(room, first=number))
            dispatcher.assign(lanes)
            number += room
        assert len(dispatcher.waiting) <= 40
