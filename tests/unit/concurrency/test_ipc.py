"""Frames between worker and child: whatever the pieces in which they arrive."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from celery.app.outcome import Disposition, Outcome
from celery.brokers.base import BriefWrite, Publish, ResultWrite
from celery.concurrency import ipc
from celery.concurrency.base import Job
from celery.wire.envelope import Envelope

JOB = Job(
    7,
    Envelope({"task": "t", "retries": 0}, b"[[], {}, {}]", properties={"priority": 3}),
    {"exchange": "", "redelivered": False},
    ("WorkerLostError", ["gone"]),
    (1.5, None),
)
OUTCOME = Outcome(
    7,
    "FAILURE",
    Disposition.REJECT,
    (Publish(Envelope({}, b""), "", "celery"),),
    (ResultWrite("id", "FAILURE", b"{}"),),
    summary="ValueError()",
    traceback="Traceback",
)
LARGE = Job(8, b"x" * 100_000, None, limits=(1.5, None), expires=1.5e9)
SMALL = Job(9, b"x" * 1_000, None)
FRAMES = {
    b"".join(ipc.run_frame([JOB, JOB])): (ipc.Kind.RUN, [JOB, JOB]),
    b"".join(ipc.run_frame([LARGE])): (ipc.Kind.RUN, [LARGE]),
    ipc.outcomes_frame([(1, OUTCOME)]): (ipc.Kind.OUTCOMES, [(1, OUTCOME)]),
    ipc.frame(ipc.Kind.RETURNED, [1, 2]): (ipc.Kind.RETURNED, [1, 2]),
    ipc.frame(ipc.Kind.EXPIRED, [3]): (ipc.Kind.EXPIRED, [3]),
    ipc.frame(ipc.Kind.RETIRED, "made 3 attempts"): (ipc.Kind.RETIRED, "made 3 attempts"),
    ipc.frame(ipc.Kind.READY): (ipc.Kind.READY, None),
    ipc.frame(ipc.Kind.STOP): (ipc.Kind.STOP, None),
}


def read(reader, data):
    """What a reader finds in data, which it is given as it has space."""
    found = []
    while data:
        with reader.space() as space:
            count = min(len(space), len(data))
            space[:count] = data[:count]
        data = data[count:]
        found += reader.filled(count)
    return found


@given(st.lists(st.sampled_from(list(FRAMES)), max_size=8), st.data())
def test_frames_are_found_in_any_pieces(frames, data):
    stream = b"".join(frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(stream)), max_size=10)))
    reader, found = ipc.Frames(), []
    for start, end in zip([0, *cuts], [*cuts, len(stream)], strict=True):
        found += read(reader, stream[start:end])
    assert found == [FRAMES[frame] for frame in frames]


def test_jobs_keep_their_order_and_long_texts_are_not_copied_into_a_frame():
    jobs = [SMALL, LARGE, LARGE, JOB, SMALL, LARGE]
    pieces = ipc.run_frame(jobs)
    assert sum(piece is LARGE.message for piece in pieces) == 3
    assert [job for _, payload in read(ipc.Frames(), b"".join(pieces)) for job in payload] == jobs


def test_a_buffer_that_a_huge_frame_needed_is_given_up():
    reader = ipc.Frames()
    huge = Job(1, b"x" * 5_000_000, None)
    assert read(reader, b"".join(ipc.run_frame([huge]))) == [(ipc.Kind.RUN, [huge])]
    assert len(reader.space()) < 100_000
    assert read(reader, b"".join(ipc.run_frame([SMALL]))) == [(ipc.Kind.RUN, [SMALL])]


@pytest.mark.parametrize("value", [{1, 2}, object(), 1 + 2j])
def test_a_header_of_a_foreign_type_travels_as_its_repr(value):
    [frame] = ipc.run_frame([Job(1, Envelope({"odd": value}, b""), {})])
    ((_, (job,)),) = read(ipc.Frames(), frame)
    assert job.message.headers["odd"] in ([1, 2], repr(value))


def test_a_brief_record_arrives_as_a_record_that_has_what_it_left_out():
    brief = BriefWrite("id", "SUCCESS", b"{}")
    frame = ipc.outcomes_frame([(1, Outcome(7, "SUCCESS", writes=(brief,)))])
    [(_, [(_, outcome)])] = read(ipc.Frames(), frame)
    [write] = outcome.writes
    assert write == ResultWrite("id", "SUCCESS", b"{}")
    left_out = "content_type", "content_encoding", "reply_to"
    assert [getattr(brief, name) for name in left_out] == [getattr(write, name) for name in left_out]
    assert len(frame) < len(ipc.outcomes_frame([(1, outcome)]))
