"""A message is always in exactly one place, whatever receivers do, in whatever order."""

from __future__ import annotations

import shutil
import tempfile
import time

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from celery.brokers.base import Publish, Settlement, Verdict
from celery.brokers.sqlite import Sender, liveness
from celery.brokers.sqlite.leases import Leases
from celery.brokers.sqlite.store import Store
from celery.wire.envelope import Envelope

QUEUES = ["a", "b"]


class Places(RuleBasedStateMachine):
    """Two receivers on one file; the model is how many messages there must be."""

    def __init__(self):
        super().__init__()
        self.folder = tempfile.mkdtemp()
        url = f"sqlite:///{self.folder}/x.db"
        options = {"synchronous": "OFF"}
        self.sender = Sender(url, options)
        self.store = Store(url, options)
        self.receivers = [Leases(Store(url, options), f"w{number}") for number in range(2)]
        for receiver in self.receivers:
            receiver.enter()
        self.held = [[], []]
        self.stale = []
        self.count = 0

    @rule(queue=st.sampled_from(QUEUES), count=st.integers(1, 4), priority=st.integers(-1, 12), later=st.booleans())
    def send(self, queue, count, priority, later):
        envelope = Envelope({"id": "x"}, b"", properties={"priority": priority})
        self.sender.publish([Publish(envelope, "", queue, until=time.time() + 3600 if later else None)] * count)
        self.count += count

    @rule(number=st.integers(0, 1), limit=st.integers(1, 5))
    def claim(self, number, limit):
        deliveries = self.receivers[number].claim(QUEUES, limit).deliveries
        assert len(deliveries) <= limit
        self.held[number] += deliveries

    @precondition(lambda self: any(self.held))
    @rule(data=st.data())
    def settle(self, data):
        number = data.draw(st.sampled_from([number for number in range(2) if self.held[number]]))
        chosen = data.draw(st.lists(st.sampled_from(self.held[number]), min_size=1, max_size=4, unique_by=id))
        verdicts = [data.draw(st.sampled_from(Verdict)) for _ in chosen]
        batch = [Settlement(one, verdict, until=time.time() - 1) for one, verdict in zip(chosen, verdicts, strict=True)]
        assert self.receivers[number].settle(batch) == []
        done = [one for one, verdict in zip(chosen, verdicts, strict=True) if verdict is not Verdict.START]
        self.held[number] = [one for one in self.held[number] if one not in done]
        self.stale += done
        self.count -= verdicts.count(Verdict.ACK)

    @rule(number=st.integers(0, 1))
    def die_and_come_back(self, number):
        with self.store.writing() as db:
            liveness.bury(db, [self.receivers[number].owner])
        self.stale += self.held[number]
        self.held[number] = []
        self.receivers[number]._next_beat = 0.0
        self.receivers[number].tick()

    @precondition(lambda self: self.stale)
    @rule(verdict=st.sampled_from(Verdict))
    def settle_what_is_no_longer_held(self, verdict):
        held = {(one.receipt) for some in self.held for one in some}
        late = [one for one in self.stale if one.receipt not in held]
        for receiver in self.receivers:
            assert receiver.settle([Settlement(one, verdict, until=0.0) for one in late]) == late

    @invariant()
    def every_message_is_in_one_place(self):
        with self.store.reading() as db:
            placed = [id for table in ("waiting", "held", "delayed") for (id,) in db.execute(f"SELECT id FROM {table}")]
            written = [id for (id,) in db.execute("SELECT id FROM message")]
        assert sorted(placed) == sorted(written)
        assert len(written) == self.count

    def teardown(self):
        for receiver in self.receivers:
            receiver.leave()
        self.sender.close()
        self.store.close()
        shutil.rmtree(self.folder)


TestPlaces = Places.TestCase
TestPlaces.settings = settings(max_examples=25, stateful_step_count=30, database=None)


def test_a_receiver_that_the_disk_kept_from_giving_signs_of_life_does_not_bury_itself(sqlite_path):
    url = f"sqlite:///{sqlite_path}"
    sender, leases = Sender(url, {}), Leases(Store(url, {}), "w")
    sender.publish([Publish(Envelope({"id": "x"}, b""), "", QUEUES[0])])
    leases.enter()
    (held,) = leases.claim(QUEUES, 1).deliveries
    with leases.store.writing() as db:  # as if the commit of the last sign had taken longer than a lease
        db.execute("UPDATE worker SET seen_at = seen_at - ?", (2 * liveness.LEASE,))
    leases.tick()
    assert not leases.claim(QUEUES, 1).deliveries
    assert leases.settle([Settlement(held, Verdict.ACK)]) == []
    leases.leave()
    sender.close()
