"""How workers end, and what becomes of their tasks (CLI-050..054, ROUTE-060, ROUTE-061)."""

import contextlib
import signal
import time

import pytest
import redis
from harness import SOON, Stage, measured, size, wait_until
from proxy import Proxy

from celery.exceptions import WorkerLostError


def value_of(result):
    return result.get(timeout=SOON, interval=0.01)


def somebody_blocks(server):
    """Whether a client of this Redis database waits for a list."""
    with redis.Redis.from_url(server) as client:
        number = server.rpartition("/")[2]
        return any(each["db"] == number and "b" in each["flags"] for each in client.client_list())


class TestWarm:
    def test_what_runs_is_finished_and_what_waits_goes_back_at_once(self, stage):
        worker = stage.worker("-c", "2")
        running, waiting = [stage.key(), stage.key()], [stage.key() for _ in range(10)]
        results = stage.send_all("block", [(key,) for key in running])
        for key in running:
            stage.ledger.wait("start", key)
        stage.send_all("record", [(key,) for key in waiting])
        worker.tell(signal.SIGTERM)
        # Until it has heard that, it has not stopped: the ten may not have been taken yet, and would run.
        worker.wait_said("Warm shutdown")
        wait_until(lambda: stage.waiting() == 10, stage.waiting)
        for key in running:
            stage.open_gate(key)
        assert worker.wait_end() == 0
        assert [result.state for result in results] == ["SUCCESS"] * 2
        assert not stage.ledger.entries("ran")
        second = stage.worker("-c", "2")
        for key in waiting:
            stage.ledger.wait("ran", key)
        assert second.stop() == 0

    def test_what_was_asked_for_before_and_comes_afterwards_goes_back_too(self, redis_url, tmp_path):
        """An answer under way while nobody receives, as what came before it is still being taken."""
        server, _, database = redis_url.rpartition("/")
        with Proxy(int(server.rpartition(":")[2])) as proxy:
            url = f"redis://127.0.0.1:{proxy.port}/{database}"
            stage = Stage("redis", url, url, tmp_path)
            with contextlib.closing(stage):
                worker = stage.worker("-c", "1", "--prefetch-multiplier", "4", "--include", "held_receivers")
                running, behind, first, asked, gate = (stage.key() for _ in range(5))
                stage.send("block", running)
                stage.ledger.wait("start", running)
                stage.send("record", behind)
                wait_until(lambda: worker.said().count(" received") == 2, worker.said)
                # Another priority is another list: it is claimed beside the wait for those of the usual one, if that
                # has begun. Else the claim gives the usual ones as well, and `first` is not received.
                wait_until(lambda: somebody_blocks(redis_url), "the worker's wait")
                proxy.hold(asked.encode())
                stage.send("record", asked, priority=3)
                wait_until(lambda: proxy.holds, "the answer to a claim")
                stage.send("record", first, headers={"gate": gate})
                stage.ledger.wait("received", gate)
                worker.tell(signal.SIGTERM)
                worker.wait_said("Warm shutdown")
                proxy.let_go()
                wait_until(lambda: stage.waiting() == 1, "what waited in the worker, which takes no more now")
                stage.open_gate(gate)
                wait_until(lambda: stage.waiting() == 3, stage.waiting)
                stage.open_gate(running)
                assert worker.wait_end() == 0
                assert not stage.ledger.entries("ran")

    def test_what_waits_for_its_time_waits_on_in_the_queue(self, stage):
        worker, key = stage.worker("-c", "1"), stage.key()
        due = time.time() + 1.8
        stage.send("record", key, countdown=1.8)
        assert worker.stop() == 0
        stage.worker("-c", "1")
        (ran,) = stage.ledger.wait("ran", key)
        assert ran.time >= due - 0.002

    def test_an_idle_worker_ends_at_once(self, stage):
        worker = stage.worker("-c", "1")
        began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - began < 3

    def test_restarts_lose_nothing_and_run_nothing_twice(self, stage):
        keys, each = [stage.key() for _ in range(size(300, 400))], size(60, 40)
        stage.worker("-c", "2")
        for number, key in enumerate(keys):
            stage.send("nap_late" if number % 2 else "nap", key, 0.02)
            if (number + 1) % each == 0:
                worker = stage.workers[-1].wait_ready()
                worker.tell(signal.SIGTERM)
                stage.start("-c", "2")
                assert worker.wait_end() == 0
        wait_until(lambda: len(stage.ledger.counts("end")) == len(keys), lambda: len(stage.ledger.counts("end")))
        assert stage.workers[-1].wait_ready().stop() == 0
        starts = stage.ledger.counts("start")
        twice = sum(times > 1 for times in starts.values())
        measured(stage, "restarted by SIGTERM", sent=len(keys), restarts=len(stage.workers) - 1, started_twice=twice)
        assert set(starts.values()) == {1}


class TestSoft:
    def test_what_ends_in_time_is_finished(self, stage):
        worker, key = stage.worker("-c", "1", worker_soft_shutdown_timeout=15), stage.key()
        result = stage.send("block", key)
        stage.ledger.wait("start", key)
        worker.tell(signal.SIGQUIT)
        worker.wait_said("Initiating Soft Shutdown, terminating in 15")
        stage.open_gate(key)
        worker.wait_end()
        assert result.state == "SUCCESS"

    def test_what_does_not_is_killed(self, stage):
        worker, key = stage.worker("-c", "1", worker_soft_shutdown_timeout=0.5), stage.key()
        stage.send("block_late", key)
        stage.ledger.wait("start", key)
        began = time.monotonic()
        assert worker.stop(signal.SIGQUIT) == 1
        assert 0.5 <= time.monotonic() - began < 8
        wait_until(lambda: stage.waiting() == 1, stage.waiting)


class TestCold:
    def test_what_was_acknowledged_ends_as_retry_and_what_was_not_goes_back(self, stage):
        worker = stage.worker("-c", "2")
        early, late, third = stage.key(), stage.key(), stage.key()
        results = [stage.send("block", early), stage.send("block_late", late)]
        for key in (early, late):
            stage.ledger.wait("start", key)
        stage.send("record", third)
        assert worker.stop(signal.SIGQUIT) == 1
        assert results[0].state == "RETRY"
        assert results[1].state == "PENDING"
        wait_until(lambda: stage.waiting() == 2, stage.waiting)
        stage.worker("-c", "2")
        stage.ledger.wait("ran", third)
        stage.ledger.wait("start", late, times=2)
        stage.open_gate(late)
        assert value_of(results[1]) == late

    def test_a_second_signal_overrides_a_warm_shutdown(self, stage):
        worker, key = stage.worker("-c", "1"), stage.key()
        stage.send("block", key)
        stage.ledger.wait("start", key)
        worker.tell(signal.SIGTERM)
        worker.wait_said("Warm shutdown")
        assert worker.stop(signal.SIGQUIT) == 1


class TestAway:
    """The result store is away, or the broker, and stays so (`celery.worker.leaving`)."""

    @pytest.fixture
    def stage_with(self, make_stage, private_redis, tmp_path):
        """A function: a stage on this broker, and the store for its results."""
        with contextlib.ExitStack() as stages:

            def make(broker):
                store = private_redis()
                stage = Stage(broker, make_stage(broker).broker, store.url, tmp_path)
                return stages.enter_context(contextlib.closing(stage)), store

            yield make

    @pytest.mark.parametrize(
        "broker",
        [
            pytest.param("redis", marks=pytest.mark.needs("redis")),
            pytest.param("rabbitmq", marks=pytest.mark.needs("rabbitmq")),
        ],
    )
    def test_a_store_that_stays_away_keeps_a_worker_for_ten_seconds_and_what_is_not_acknowledged_runs_again(
        self, stage_with, broker
    ):
        stage, store = stage_with(broker)
        worker, early, late = stage.worker("-c", "2"), stage.key(), stage.key()
        results = [stage.send("block", early), stage.send("block_late", late)]
        for key in (early, late):
            stage.ledger.wait("start", key)
        inspect = stage.app.control.inspect([worker.node])
        wait_until(lambda: any(task["acknowledged"] for task in inspect.active()[worker.node]), inspect.active)
        store.kill()
        for key in (early, late):
            stage.open_gate(key)
            stage.ledger.wait("end", key)
        worker.wait_said("The result backend cannot be reached")
        began = time.monotonic()
        worker.tell(signal.SIGTERM)
        worker.wait_said("outcomes wait to be settled")
        assert worker.wait_end(2 * SOON) == 1
        assert 9 < time.monotonic() - began < 2 * SOON
        said = worker.said()
        assert f"run again: project.block_late[{results[1].id}]" in said
        assert f"results are lost: project.block[{results[0].id}]" in said
        store.start()
        stage.worker("-c", "2")
        assert results[1].get(timeout=SOON) == late
        assert len(stage.ledger.entries("start", late)) == 2
        assert len(stage.ledger.entries("start", early)) == 1
        if broker == "redis":  # whose next worker finds that it had begun
            with pytest.raises(WorkerLostError):
                results[0].get(timeout=SOON)

    @pytest.mark.parametrize("again", [signal.SIGTERM, signal.SIGQUIT])
    def test_a_second_signal_waits_for_no_store(self, stage_with, again):
        stage, store = stage_with("sqlite")
        worker, key = stage.worker("-c", "1"), stage.key()
        store.kill()
        result = stage.send("record_late", key)
        worker.wait_said("The result backend cannot be reached")
        worker.tell(signal.SIGTERM)
        worker.wait_said("outcomes wait to be settled")
        began = time.monotonic()
        assert worker.stop(again) == 1
        assert time.monotonic() - began < 5
        assert f"run again: project.record_late[{result.id}]" in worker.said()
        assert stage.waiting() == 1

    def test_a_second_signal_ends_nothing_that_runs(self, stage):
        worker, key = stage.worker("-c", "1"), stage.key()
        result = stage.send("block", key)
        stage.ledger.wait("start", key)
        for times in (1, 2):
            worker.tell(signal.SIGTERM)
            wait_until(lambda times=times: worker.said().count("Warm shutdown") == times, worker.said)
        stage.open_gate(key)
        assert worker.wait_end() == 0
        assert result.state == "SUCCESS"

    @pytest.mark.needs("rabbitmq")
    def test_a_second_signal_does_not_wait_for_a_broker_that_says_nothing(self, private_rabbitmq, tmp_path):
        server = private_rabbitmq()
        with contextlib.closing(Stage("rabbitmq", server.url, "rpc://", tmp_path)) as stage:
            worker = stage.worker("-c", "1")
            server.pause()
            worker.tell(signal.SIGTERM)
            worker.wait_said("Warm shutdown")
            assert worker.stop() == 0
            server.resume()

    def test_children_that_store_themselves_do_not_keep_it_either(self, tmp_path, monkeypatch):
        shelf, away = tmp_path / "shelf", tmp_path / "away"
        shelf.mkdir()
        monkeypatch.setenv("SHELF", str(shelf))
        stage = Stage("sqlite", f"sqlite:///{tmp_path / 'broker.sqlite'}", "shelf:Shelf", tmp_path)
        with contextlib.closing(stage):
            worker, key = stage.worker("-c", "1"), stage.key()
            shelf.rename(away)
            result = stage.send("record_late", key)
            worker.wait_said("its result cannot be settled")
            began = time.monotonic()
            assert worker.stop() == 1
            assert 9 < time.monotonic() - began
            assert "its result is not waited for any longer" in worker.said()
            away.rename(shelf)
            stage.worker("-c", "1")
            assert result.get(timeout=SOON, interval=0.02) is None
            assert len(stage.ledger.entries("ran", key)) == 2


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 0), (signal.SIGQUIT, 1)])
def test_a_worker_that_is_not_up_yet_ends_too(stage, number, status):
    worker = stage.start("-c", "1")
    worker.wait_said("[tasks]")
    worker.tell(number)
    assert worker.wait_end() == status
