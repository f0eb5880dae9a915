"""Each Celery runs what the other sends, and both read the results: the same expressions in either client, with the
worker of the other side.
"""

import json
import uuid

import pytest

OTHER = {"ours": "theirs", "theirs": "ours"}


class Pair:
    """A client of one side and the worker of the other."""

    def __init__(self, fleet, sender):
        self.fleet = fleet
        self.sender = sender
        self.runner = OTHER[sender]
        self.key = uuid.uuid4().hex[:12]

    def do(self, expression, client=None):
        """Evaluate in the sender's client (or another's), where KEY and SIDE stand for a word and the worker's side."""
        text = expression.replace("SIDE", f"side={self.runner!r}").replace("KEY", repr(self.key))
        return self.fleet.clients[client or self.sender].do(text)

    def wait_noted(self, event, key=None):
        return self.fleet.wait_noted(event, key or self.key)


@pytest.fixture(params=["ours", "theirs"], ids=["ours-to-theirs", "theirs-to-ours"])
def pair(fleet, request):
    pair = Pair(fleet, request.param)
    yield pair
    fleet.open_gate(pair.key)


# -- calls


def test_a_call_gives_its_result(pair):
    assert pair.do("call(add, 2, 3, SIDE)") == 5


def test_arguments_by_position_and_by_name_arrive(pair):
    queue = f"{pair.fleet.name}-{pair.runner}"
    got = pair.do(f"value(echo.apply_async((1, [2, None]), {{'name': {{'nested': 'ü🙂'}}}}, queue={queue!r}))")
    assert got == [[1, [2, None]], {"name": {"nested": "ü🙂"}}]


def test_rich_types_arrive_and_come_back_as_they_were(pair):
    assert pair.do("call(echo, *rich(), SIDE) == [rich(), {}]")
    assert pair.do("call(kinds, *rich(), SIDE) == [type(each).__name__ for each in rich()]")


@pytest.mark.parametrize("serializer", ["json", "pickle", "yaml", "msgpack"])
def test_every_serializer_is_read(pair, serializer):
    assert pair.do(f"call(echo, 1, 'ü', [2.5, None], SIDE, serializer={serializer!r})") == [[1, "ü", [2.5, None]], {}]


def test_pickled_types_arrive(pair):
    assert pair.do("call(kinds, {1}, (2,), 3j, SIDE, serializer='pickle')") == ["set", "tuple", "complex"]


@pytest.mark.parametrize("compression", ["gzip", "bzip2", "lzma"])
def test_every_compression_is_read(pair, compression):
    assert pair.do(f"call(echo, 'x' * 5000, SIDE, compression={compression!r}) == [['x' * 5000], {{}}]")


def test_a_large_message_and_result_arrive(pair):
    assert pair.do("call(echo, 'x' * 3_000_000, SIDE) == [['x' * 3_000_000], {}]")


def test_the_task_sees_the_same_request(fleet):
    """wire.md 1.2, 1.3: what a worker makes of a message does not depend on who sent it, nor on whose worker it is."""
    seen = {}
    for sender in OTHER:
        for runner in OTHER:
            options = "shadow='shade', headers={'h': 1}, time_limit=50, soft_time_limit=40, priority=3, expires=900"
            seen[sender, runner] = fleet.clients[sender].do(
                f"call(describe, side={runner!r}, task_id={f'{sender}-{runner}-{fleet.name}'!r}, {options})"
            )
    for request in seen.values():
        for varies in ("id", "root_id", "correlation_id", "reply_to", "expires"):
            assert request.pop(varies)
    one = seen["theirs", "theirs"]
    assert all(request == one for request in seen.values()), seen


def test_protocol_1_is_understood(pair):
    queue = f"{pair.fleet.name}-{pair.runner}"
    assert pair.do(f"value(old.send_task('project.echo', (1,), {{'a': 2}}, queue={queue!r}))") == [[1], {"a": 2}]


def test_a_protocol_1_message_with_a_time_and_a_callback_is_understood(pair):
    options = f"queue='{pair.fleet.name}-{pair.runner}', countdown=0.3, link=callback.s(KEY).set(queue=NAME)"
    pair.do(f"old.send_task('project.record', (KEY,), {options}) and 0")
    assert pair.wait_noted("called", f"{pair.key}:{pair.key}")


# -- time


def test_a_task_does_not_run_before_its_time(pair):
    assert -10 < pair.do("call(early_by, SIDE, countdown=0.5)") <= 0
    eta = "datetime.datetime.now(datetime.timezone(datetime.timedelta(hours=5))) + datetime.timedelta(seconds=0.5)"
    assert -10 < pair.do(f"call(early_by, SIDE, eta={eta})") <= 0


def test_a_task_whose_time_is_further_away_comes_on_time(pair):
    assert -10 < pair.do("call(early_by, SIDE, countdown=3)") <= 0


def test_an_expired_task_is_revoked(pair):
    pair.do("send(record, KEY, SIDE, task_id=KEY, expires=-1)")
    assert pair.do("state_after(app.AsyncResult(KEY), 'PENDING')") == "REVOKED"
    assert pair.do("type(app.AsyncResult(KEY).result).__name__") == "TaskRevokedError"
    assert not pair.fleet.noted("ran", pair.key)


# -- outcomes


def test_a_failure_comes_back_with_type_arguments_and_traceback(pair):
    expected = ["Trouble", ["why", "7"], True, "FAILURE"]
    assert pair.do("failure(send(fail, 'why', SIDE, task_id=KEY))") == expected
    assert pair.do("failure(app.AsyncResult(KEY))", pair.runner) == expected


def test_retries_run_to_the_end(pair):
    assert pair.do("call(retry_twice, KEY, SIDE)") == 2
    assert pair.fleet.noted("ran", pair.key) == [pair.runner] * 3


def test_retries_in_vain_end_as_the_failure(pair):
    assert pair.do("failure(send(retry_in_vain, SIDE))")[::3] == ["Trouble", "FAILURE"]


def test_either_worker_picks_up_the_retries_of_the_other(pair):
    assert pair.do("value(retry_until_both_ran.apply_async((KEY,), queue=NAME))") >= 1
    assert set(pair.fleet.noted("ran", pair.key)) == {"ours", "theirs"}


def test_a_rejected_message_comes_again(pair):
    pair.do("call(reject_once, KEY, SIDE)")
    assert pair.fleet.noted("ran", pair.key) == [pair.runner] * 2


def test_callbacks_are_sent(pair):
    pair.do("send(add, 1, 2, SIDE, link=callback.s(KEY).set(queue=NAME))")
    assert pair.wait_noted("called", f"{pair.key}:3")


def test_the_result_knows_its_callbacks_as_children(pair):
    link = "link=add.s(4).set(queue=NAME)"
    assert pair.do(f"(value(r := send(add, 1, 2, SIDE, {link})), [value(c) for c in r.children])") == [3, [7]]


def test_the_result_knows_the_tasks_that_the_task_sent(pair):
    sent, children = pair.do("(value(r := send(parents_call, 5, SIDE)), [[c.id, value(c)] for c in r.children])")
    assert children == [[sent, 6]]


def test_errbacks_of_both_kinds_are_called(pair):
    pair.do("send(fail, 'why', SIDE, task_id=KEY, link_error=[old_errback.si(KEY).set(queue=NAME), new_errback.s()])")
    assert pair.wait_noted("old-errback", pair.key)
    assert pair.wait_noted("new-errback", f"{pair.key}:Trouble:True")


def test_an_errback_gets_the_id_of_the_failed_task(pair):
    pair.do("send(fail, 'why', SIDE, task_id=KEY, link_error=old_errback.s().set(queue=NAME))")
    assert pair.wait_noted("old-errback", pair.key)


@pytest.mark.parametrize("how", ["record, KEY, SIDE, ignore_result=True", "record_only, KEY, SIDE"])
def test_an_unwanted_result_is_not_stored(pair, how):
    pair.do(f"send({how}, task_id=KEY) and 0")
    pair.wait_noted("ran")
    # What comes next on the same worker is finished after it.
    assert pair.do("call(add, 0, 0, SIDE), app.AsyncResult(KEY).state") == [0, "PENDING"]


def test_an_ignored_outcome_is_not_stored(pair):
    sent = "send(ignore, SIDE, task_id=KEY)"
    assert pair.do(f"({sent}, call(add, 0, 0, SIDE), app.AsyncResult(KEY).state)[2]") == "PENDING"


def test_a_started_task_says_so(pair):
    pair.do("send(block, KEY, SIDE, task_id=KEY) and 0")
    for client in OTHER:
        assert pair.do("state_after(app.AsyncResult(KEY), 'PENDING')", client) == "STARTED"
    pair.fleet.open_gate(pair.key)
    assert pair.do("value(app.AsyncResult(KEY))").startswith(pair.runner)


def test_states_of_its_own_are_seen_by_both(pair):
    pair.do("send(progress, KEY, SIDE, task_id=KEY) and 0")
    for client in OTHER:
        seen = pair.do("(state_after(app.AsyncResult(KEY), 'PENDING', 'STARTED'), app.AsyncResult(KEY).info)", client)
        assert seen == ["PROGRESS", {"done": 1}]
    pair.fleet.open_gate(pair.key)
    assert pair.do("value(app.AsyncResult(KEY))") == "done"


# -- results


def test_either_side_reads_forgets_and_makes_results(pair):
    pair.do("call(add, 20, 22, SIDE, task_id=KEY)")
    assert pair.do("value(app.AsyncResult(KEY))", pair.runner) == 42
    pair.do("app.AsyncResult(KEY).forget()", pair.runner)
    assert pair.do("app.AsyncResult(KEY).state") == "PENDING"
    pair.do("app.backend.store_result(KEY, [1], 'SUCCESS')")
    assert pair.do("value(app.AsyncResult(KEY))", pair.runner) == [1]


def test_a_result_is_the_same_record_whoever_ran_the_task(fleet):
    """wire.md 4.1"""
    records = {}
    for runner in OTHER:
        task_id = f"{fleet.name}-{uuid.uuid4().hex[:8]}"
        fleet.clients["theirs"].do(f"call(add, 1, 1, side={runner!r}, task_id={task_id!r})")
        stored = fleet.clients["theirs"].do(f"app.backend.get(app.backend.get_key_for_task({task_id!r})).decode()")
        records[runner] = json.loads(stored) | {"task_id": "", "date_done": ""}
    assert records["ours"] == records["theirs"]


# -- control


def test_the_other_side_revokes_what_has_not_begun(pair):
    node = f"{pair.runner}@host"
    pair.do("send(record, KEY, SIDE, task_id=KEY, countdown=2) and 0")
    [waits] = pair.do(f"until(lambda: app.control.inspect([{node!r}], timeout=SOON, limit=1).scheduled()[{node!r}])")
    assert waits["request"]["id"] == pair.key
    pair.do("app.control.revoke(KEY, reply=True, limit=2, timeout=SOON)")
    assert pair.do("state_after(app.AsyncResult(KEY), 'PENDING')") == "REVOKED"
    assert not pair.fleet.noted("ran", pair.key)


def test_the_other_side_ends_what_runs(pair):
    pair.do("send(block, KEY, SIDE, task_id=KEY) and 0")
    pair.wait_noted("start")
    node = f"{pair.runner}@host"
    # Ours learns what runs by looking, every few milliseconds.
    [active] = pair.do(f"until(lambda: app.control.inspect([{node!r}], timeout=SOON, limit=1).active()[{node!r}])")
    assert active["id"] == pair.key
    pair.do(f"app.control.revoke(KEY, terminate=True, signal='SIGKILL', destination=[{node!r}])")
    assert pair.do("state_after(app.AsyncResult(KEY), 'PENDING', 'STARTED')") == "REVOKED"
    assert pair.do("call(add, 1, 1, SIDE)") == 2


def test_priorities_order_what_waits(pair):
    """Low numbers come first on Redis, high ones on RabbitMQ (wire.md 7, 15)."""
    node, queue = f"{pair.runner}@host", f"{pair.fleet.name}-urgent-{pair.runner}"
    pair.do("send(block, KEY, SIDE) and 0")
    pair.wait_noted("start")
    # The child is busy now, and the worker takes one message ahead.
    pair.do("send(record, 'ahead', SIDE, task_id=KEY + '-ahead') and 0")
    pair.do(f"until(lambda: (app.control.inspect([{node!r}], timeout=SOON, limit=1).reserved() or {{}}).get({node!r}))")
    levels = [0, 9, 3, 6]
    for level in levels:
        pair.do(f"record.apply_async((KEY + '-{level}',), queue={queue!r}, priority={level}) and 0")
    pair.fleet.open_gate(pair.key)
    for level in levels:
        pair.wait_noted("ran", f"{pair.key}-{level}")
    order = [int(key.rpartition("-")[2]) for _, key, _ in pair.fleet.ledger() if key.startswith(f"{pair.key}-")]
    assert order == sorted(levels, reverse=not pair.fleet.broker.startswith("redis"))


# -- workflows that only their client makes yet


def test_a_chain_of_theirs_runs_through_our_worker(fleet):
    steps = "add.s(1, 1).set(queue=Q), add.s(2).set(queue=Q), echo.s(x=5).set(queue=Q)".replace("Q", "f'{NAME}-ours'")
    client = fleet.clients["theirs"]
    assert client.do(f"value(celery.chain({steps})())") == [[4], {"x": 5}]
    assert client.do(f"(value(r := celery.chain({steps})()), r.parent.result, r.parent.parent.result)[1:]") == [4, 2]


def test_a_chain_goes_back_and_forth_between_the_workers(fleet):
    sides = ["ours", "theirs"] * 3
    steps = ", ".join(f"add.s({'1, ' * (not i)}1).set(queue=f'{{NAME}}-{side}')" for i, side in enumerate(sides))
    assert fleet.clients["theirs"].do(f"value(celery.chain({steps})())") == 7


def test_a_chain_ends_where_a_step_of_it_fails(fleet):
    steps = "add.s(1, 1).set(queue=Q), fail.s().set(queue=Q), record.s().set(queue=Q)".replace("Q", "f'{NAME}-ours'")
    assert fleet.clients["theirs"].do(f"failure(celery.chain({steps})())")[0] == "Trouble"


def test_members_of_a_group_of_theirs_run_on_our_worker(fleet):
    members = "[add.s(n, n).set(queue=f'{NAME}-ours') for n in range(5)]"
    assert fleet.clients["theirs"].do(f"value(celery.group({members})())") == [0, 2, 4, 6, 8]


def test_both_workers_drain_one_queue_and_nothing_is_lost_or_run_twice(fleet):
    key = uuid.uuid4().hex[:8]
    for sender, client in fleet.clients.items():
        got = client.do(f"[value(r) for r in [record.delay(f'{key}-{sender}-{{n}}') for n in range(150)]]")
        assert got == [f"{key}-{sender}-{n}" for n in range(150)]
    ran = [(about, node) for event, about, node in fleet.ledger() if event == "ran" and about.startswith(key)]
    assert len(ran) == len({about for about, _ in ran}) == 300
    assert {node for _, node in ran} == {"ours", "theirs"}
