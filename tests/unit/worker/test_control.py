"""The register of commands, and what a worker remembers of tasks."""

import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from celery.brokers.base import Delivery
from celery.exceptions import WorkerShutdown, WorkerTerminate
from celery.wire.envelope import Envelope
from celery.worker import state
from celery.worker.control import Panel, control_command, inspect_command


@pytest.fixture
def register():
    """Whatever a test enters is taken out again."""
    data, meta = dict(Panel.data), dict(Panel.meta)
    yield
    for known, before in ((Panel.data, data), (Panel.meta, meta)):
        known.clear()
        known.update(before)


@pytest.mark.usefixtures("register")
class TestPanel:
    """CTL-009."""

    def test_a_function_is_a_command_of_its_name(self):
        @control_command(args=[("n", int)], signature="[N=1]")
        def grow_beans(state, n=1):
            """Grow some beans.

            More text.
            """

        assert Panel.data["grow_beans"] is grow_beans
        info = Panel.meta["grow_beans"]
        assert (info.type, info.visible, info.default_timeout) == ("control", True, 1.0)
        assert (info.help, info.args, info.signature) == ("Grow some beans.", [("n", int)], "[N=1]")

    def test_name_and_alias_may_be_given(self):
        @inspect_command(name="beans", alias="dump_beans", help="All of them.", visible=False, default_timeout=0.2)
        def list_beans(state):
            """Not this."""

        assert Panel.data["beans"] is Panel.data["dump_beans"] is list_beans
        assert "list_beans" not in Panel.data
        assert "dump_beans" not in Panel.meta
        assert Panel.meta["beans"]._asdict() == {
            "alias": "dump_beans", "type": "inspect", "visible": False, "default_timeout": 0.2, "help": "All of them.",
            "signature": None, "args": None, "variadic": None,
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("name", "alias", "type"),
        [
            ("ping", None, "inspect"),
            ("active", "dump_active", "inspect"),
            ("reserved", "dump_reserved", "inspect"),
            ("scheduled", "dump_schedule", "inspect"),
            ("revoked", "dump_revoked", "inspect"),
            ("registered", "dump_tasks", "inspect"),
            ("conf", "dump_conf", "inspect"),
            ("stats", None, "inspect"),
            ("query_task", None, "inspect"),
            ("active_queues", None, "inspect"),
            ("clock", None, "inspect"),
            ("report", None, "inspect"),
            ("hello", None, "inspect"),
            ("revoke", None, "control"),
            ("terminate", None, "control"),
            ("shutdown", None, "control"),
        ],
    )
    def test_the_commands_of_celery_are_there(self, name, alias, type):
        info = Panel.meta[name]
        assert (info.alias, info.type) == (alias, type)
        assert info.help
        assert alias is None or Panel.data[alias] is Panel.data[name]

    def test_only_hello_is_hidden(self):
        assert [name for name, info in Panel.meta.items() if not info.visible] == ["hello"]


def a_request(task_id, started_at=None):
    return SimpleNamespace(id=task_id, started_at=started_at)


@pytest.fixture
def held():
    held = {}
    state.watch(held)
    yield held
    state.reset_state()


class TestViews:
    def test_views_show_what_the_consumer_holds_now(self, held):
        assert (len(state.requests), len(state.active_requests), len(state.reserved_requests)) == (0, 0, 0)
        held[1] = waiting = a_request("a")
        held[2] = running = a_request("b", started_at=1.0)
        assert list(state.reserved_requests) == [waiting]
        assert list(state.active_requests) == [running]
        assert dict(state.requests) == {"a": waiting, "b": running}
        waiting.started_at = 2.0
        assert waiting in state.active_requests
        assert waiting not in state.reserved_requests
        held.clear()
        assert "a" not in state.requests
        assert not list(state.active_requests)

    def test_an_unknown_id_is_a_key_error(self, held):
        with pytest.raises(KeyError):
            state.requests["a"]


def schedule(task_id, until, **headers):
    headers = {"id": task_id, "task": "w.add", "shadow": None, "argsrepr": "(1, 2)", "kwargsrepr": "{}", **headers}
    delivery = Delivery(Envelope({}, b"", properties={"priority": 3}), None, "q", "x", "k", redelivered=True)
    state.task_scheduled(delivery, headers, until, "w1@h")


@pytest.mark.usefixtures("held")
class TestScheduled:
    """CTL-014, CTL-027."""

    def test_a_task_is_listed_until_its_time(self):
        later = time.time() + 60
        schedule("a", later)
        schedule("past", time.time() - 1)
        assert list(state.scheduled_requests) == ["a"]
        assert "past" not in state.scheduled_requests
        task = state.scheduled_requests["a"]
        assert task.until == later
        assert task.eta.endswith("+00:00")
        assert task.info == {
            "id": "a", "name": "w.add", "args": "(1, 2)", "kwargs": "{}", "type": "w.add", "hostname": "w1@h",
            "time_start": None, "acknowledged": False, "worker_pid": None,
            "delivery_info": {"exchange": "x", "routing_key": "k", "priority": 3, "redelivered": True},
        }  # fmt: skip

    def test_a_shadow_name_is_shown(self):
        schedule("a", time.time() + 60, shadow="other")
        info = state.scheduled_requests["a"].info
        assert (info["name"], info["type"]) == ("other", "w.add")

    def test_the_index_is_bounded_and_forgets_what_is_past_first(self):
        later = time.time() + 60
        schedule("past", time.time() - 1)
        for number in range(state.SCHEDULED_MAX):
            schedule(f"t{number}", later)
        assert len(state.scheduled_requests) == state.SCHEDULED_MAX
        schedule("one-more", later)
        assert len(state.scheduled_requests) == state.SCHEDULED_MAX
        assert "t0" not in state.scheduled_requests
        assert "one-more" in state.scheduled_requests


@pytest.mark.usefixtures("held")
class TestRevoked:
    """CTL-049."""

    @pytest.mark.parametrize("ids", [["a", "b"], {"a": 123.0, "b": 124.0}])
    def test_ids_are_merged_from_lists_and_from_old_mappings(self, ids):
        state.merge_revoked(ids)
        assert list(state.revoked) == ["a", "b"]

    def test_bounds_come_from_the_environment(self):
        code = "from celery.worker import state; print(state.REVOKES_MAX, state.REVOKE_EXPIRES, state.revoked.maxlen)"
        limits = {"CELERY_WORKER_REVOKES_MAX": "7", "CELERY_WORKER_REVOKE_EXPIRES": "2.5"}
        assert run(code, **limits).stdout == "7 2.5 7\n"
        ended = run(code, CELERY_WORKER_REVOKES_MAX="many")
        assert "ImproperlyConfigured: The environment variable CELERY_WORKER_REVOKES_MAX is 'many'" in ended.stderr


def run(code, **environment):
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **environment}, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(("name", "error"), [("should_stop", WorkerShutdown), ("should_terminate", WorkerTerminate)])
def test_people_may_ask_for_the_end(name, error, monkeypatch):
    state.maybe_shutdown()
    for nothing in (None, False):
        monkeypatch.setattr(state, name, nothing)
        state.maybe_shutdown()
    monkeypatch.setattr(state, name, 3)
    with pytest.raises(error) as caught:
        state.maybe_shutdown()
    assert caught.value.code == 3
