"""Which lane gets which jobs. Pure: no I/O, no clock.

Rules
    1. A lane is given more when it holds less than half of what it may hold: so hand-outs are batches, and it is
       never idle while it waits for the next one.
    2. It may hold `HANDOUT` seconds of measured work and `MOST` jobs; one job of a task not measured yet.
    3. What waits is shared: no lane gets more than its part while another could begin at once.
    4. What is on its way is bounded in bytes too: a large message counts as long work, and when many wait, nothing more
       is wanted.
    5. Jobs that come back (recalled, or their child died before they began) go first.
    6. A lane stuck behind a job that runs longer than a hand-out gets nothing, and what it holds is recalled.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from celery.concurrency.base import HANDOUT, Handling, Job

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from celery.app.outcome import Outcome

#: Jobs in one lane at most.
MOST = 128
#: Weight of the latest run in the running mean of a task's duration.
_WEIGHT = 0.2
#: Jobs fetched at once in the hope that they are async: at first, and at most when all that came lately were.
_PROBE, _MOST_PROBED = 32, 256
#: Async positions left empty for each sync job that waits.
_SHADOW = 8
#: Sync jobs are fetched when one in so many that are wanted is missing: a claim for each few that end costs more than
#: they do.
_STEP = 4
#: Seconds that a job counts for beside its body, and for each byte of its message. A child spends about 0.6 ns a byte
#: (1.2 without `pybase64`); ten are counted, so that a lane holds some 2 MB at most. With 3 or 1 ns a queue of 100 KB
#: messages takes as much CPU and as long, and a lane holds 7 or 20 MB.
_OVERHEAD, _PER_BYTE = 0.000_03, 0.000_000_01
#: Bytes of messages that may wait here.
_MOST_BYTES = 8 << 20


class Held(msgspec.Struct, eq=False, gc=False):
    """A job here, waiting or in a lane. A struct, as one is made for each message: a third of a named tuple's cost."""

    job: Job
    handling: Handling
    #: Bytes of its message.
    size: int
    #: In its lane; 0 while it waits.
    sequence: int = 0
    cost: float = 0.0


class Lane:
    """One lane's books. The pool subclasses it, to add what carries the jobs."""

    def __init__(self, capacity: int = 1) -> None:
        #: Jobs that run at once; 1 is the sync lane.
        self.capacity = capacity
        self.held: dict[int, Held] = {}
        self.load = 0.0
        self.sequence = 0
        #: Takes nothing: not up yet, or about to end.
        self.closed = False
        #: Takes nothing until its long job has ended (rule 6).
        self.stuck = False

    @property
    def takes(self) -> bool:
        """Whether it may be given jobs."""
        return not self.closed and not self.stuck

    def take(self, held: Held, cost: float) -> None:
        """Enter a job that is handed out."""
        self.sequence = held.sequence = self.sequence + 1
        self.held[held.sequence] = held
        held.cost = cost
        self.load += cost

    def release(self, sequence: int) -> Held | None:
        """A job is over, or came back."""
        held = self.held.pop(sequence, None)
        if held is not None:
            self.load = self.load - held.cost if self.held else 0.0
        return held

    def release_all(self) -> list[Held]:
        """The lane is gone."""
        gone, self.held, self.load = list(self.held.values()), {}, 0.0
        return gone


class Dispatcher:
    """What waits, and how long each task takes."""

    def __init__(self) -> None:
        self.waiting: deque[Held] = deque()
        self.waiting_async: deque[Held] = deque()
        self._waiting_bytes = 0
        self._seconds: dict[str, float] = {}
        #: Mean seconds of a sync job lately; None before the first.
        self.mean: float | None = None
        self._probe = _PROBE

    @property
    def waits(self) -> bool:
        """Whether there is anything to hand out."""
        return bool(self.waiting or self.waiting_async)

    def over(self, lane: Lane, ended: Iterable[tuple[int, Outcome]]) -> list[Outcome]:
        """Jobs of a lane are over, and took as long as their outcomes say.

        Args:
            lane: which had them.
            ended: sequence numbers there, and outcomes.

        Returns:
            The outcomes, but of jobs that the lane does not have.
        """
        outcomes, known = [], self._seconds
        for sequence, outcome in ended:
            held = lane.release(sequence)
            if held is None:
                continue
            outcomes.append(outcome)
            if held.job.aftermath is not None:
                continue
            handling = held.handling
            task, seconds = handling.task, outcome.runtime + _OVERHEAD + _PER_BYTE * held.size
            mean = known.get(task, seconds)
            known[task] = mean + _WEIGHT * (seconds - mean)
            if not handling.is_async:
                mean = seconds if self.mean is None else self.mean
                self.mean = mean + _WEIGHT / 4 * (seconds - mean)
        return outcomes

    def forget(self, handling: Handling) -> None:
        """A job has cost its process: the next of its kind are handed out alone, as they would take with them what was
        finished before them and not told yet.
        """
        self._seconds.pop(handling.task, None)

    def add(self, jobs: Iterable[tuple[Job, Handling]]) -> None:
        """These wait."""
        only_async = True
        for job, handling in jobs:
            size = job.size
            self._waiting_bytes += size
            held = Held(job, handling, size)
            if handling.is_async:
                self.waiting_async.append(held)
            else:
                only_async = False
                self.waiting.append(held)
        self._probe = min(2 * self._probe, _MOST_PROBED) if only_async else _PROBE

    def put_back(self, jobs: Sequence[Held]) -> None:
        """These came back, and go first."""
        for held in reversed(jobs):
            self._waiting_bytes += held.size
            (self.waiting_async if held.handling.is_async else self.waiting).appendleft(held)

    def remove(self, number: int) -> bool:
        """Take a waiting job out."""
        for queue in (self.waiting, self.waiting_async):
            for held in queue:
                if held.job.number == number:
                    queue.remove(held)
                    self._waiting_bytes -= held.size
                    return True
        return False

    def assign(self, lanes: Sequence[Lane]) -> list[tuple[Lane, list[Held]]]:
        """Hand-outs for the sync lanes."""
        waiting = self.waiting
        if not waiting:
            return []
        open_lanes = [lane for lane in lanes if lane.load < HANDOUT / 2 and len(lane.held) < MOST / 2 and lane.takes]
        if not open_lanes:
            return []
        open_lanes.sort(key=lambda lane: lane.load)
        share = -(-len(waiting) // len(open_lanes))
        handed = []
        seconds = self._seconds
        for lane in open_lanes:
            batch: list[Held] = []
            for _ in range(min(share, len(waiting), MOST - len(lane.held))):
                held = waiting[0]
                # A whole hand-out where nothing is known.
                cost = seconds.get(held.handling.task, HANDOUT)
                if lane.held and lane.load + cost > HANDOUT:
                    break
                waiting.popleft()
                self._waiting_bytes -= held.size
                lane.take(held, cost)
                batch.append(held)
            if batch:
                handed.append((lane, batch))
        return handed

    def assign_async(self, lanes: Sequence[Lane]) -> list[tuple[Lane, list[Held]]]:
        """Hand-outs for the async lanes: each up to its capacity, the emptiest first."""
        waiting = self.waiting_async
        handed: dict[Lane, list[Held]] = {}
        open_lanes = [lane for lane in lanes if not lane.closed and len(lane.held) < lane.capacity]
        while waiting and open_lanes:
            lane = min(open_lanes, key=lambda each: len(each.held))
            held = waiting.popleft()
            self._waiting_bytes -= held.size
            lane.take(held, 0.0)
            handed.setdefault(lane, []).append(held)
            if len(lane.held) >= lane.capacity:
                open_lanes.remove(lane)
        return list(handed.items())

    def room(self, sync_lanes: Sequence[Lane], async_lanes: Sequence[Lane]) -> int:
        """How many more jobs would keep the lanes busy for about two hand-outs.

        Nobody knows what kind the next message is of: room for async jobs is also taken by sync ones, which then wait
        here although another worker might have run them. So it is filled in steps, and the more of these there are,
        the less is taken.
        """
        if self._waiting_bytes >= _MOST_BYTES:
            return 0
        open_sync = [lane for lane in sync_lanes if not lane.closed]
        unfinished = sum(len(lane.held) for lane in open_sync) + len(self.waiting)
        if self.mean is None:
            wanted = 2 * len(open_sync)
        elif self.mean > HANDOUT:
            # Long tasks: one for each lane; the next is fetched when one ends.
            wanted = len(open_sync)
        else:
            wanted = len(open_sync) * min(3 * MOST, max(2, int(2 * HANDOUT / self.mean)))
        missing = wanted - unfinished
        if 0 < missing < wanted // _STEP:
            missing = 0
        free = sum(lane.capacity - len(lane.held) for lane in async_lanes if not lane.closed)
        probe = min(self._probe, free - len(self.waiting_async) - _SHADOW * len(self.waiting))
        return missing + max(0, probe)

    def idle(self, sync_lanes: Sequence[Lane]) -> int:
        """How many more sync jobs could begin at once."""
        return max(0, sum(not lane.held for lane in sync_lanes if lane.takes) - len(self.waiting))
