"""Names that users of Celery 5.7 write are there in ours: options of commands, members of classes, their parameters.

What is absent is listed here, with the reason; a name of the list that has come since is an error too.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("names.py")

#: They set them for each instance.
INSTANCE = frozenset({"id", "results", "receivers"})
#: Of Celery's own workings: nothing that a user's code would call.
RPC = {"Consumer", "Exchange", "Producer", "Queue", "ResultConsumer", "binding", "destination_for", "oid", "poll",
       "revive", "add_pending_results", "on_out_of_band_result", "on_reply_declare", "on_result_fulfilled"}  # fmt: skip
REDIS = {"ConnectionPool", "ResultConsumer", "add_pending_results", "client", "connection_class_ssl", "ensure",
         "max_connections", "on_connection_error", "on_result_fulfilled", "redis"}  # fmt: skip
SETTINGS = {"defaults", "fromkeys", "iteritems", "iterkeys", "itervalues", "key_t", "maps", "swap_with"}
REQUEST = {"connection_errors", "eventer", "groups", "on_ack", "on_reject", "tzlocal"}

#: Classes, and what ours lack.
ABSENT = {
    "celery:Celery": {"Pickler", "conf", "on_after_configure", "on_after_finalize", "on_after_fork", "on_configure",
                      "user_options"},  # all but the first: of instances
    "celery.app.task:Task": set(),
    "celery.app.task:Context": set(),
    "celery.result:AsyncResult": INSTANCE,
    "celery.result:EagerResult": INSTANCE,
    "celery.result:ResultSet": INSTANCE,
    "celery.result:GroupResult": INSTANCE,
    "celery.canvas:Signature": set(),
    "celery.canvas:group": set(),
    "celery.canvas:chord": set(),
    "celery.canvas:chain": {"prepare_steps"},
    "celery.app.control:Control": set(),
    "celery.app.control:Inspect": set(),
    "celery.app.amqp:AMQP": set(),
    "celery.app.amqp:Queues": set(),
    "celery.app.utils:Settings": SETTINGS,
    "celery.backends.base:Backend": set(),
    "celery.backends.base:KeyValueStoreBackend": {"chord_expires"},
    "celery.backends.redis:RedisBackend": REDIS | {"chord_expires"},
    "celery.backends.rpc:RPCBackend": RPC,
    "celery.backends.database:DatabaseBackend": {"ResultSession", "extended_result", "task_cls", "taskset_cls"},
    "celery.schedules:crontab": set(),
    "celery.schedules:schedule": set(),
    "celery.schedules:solar": set(),
    "celery.loaders.base:BaseLoader": set(),
    "celery.app.log:Logging": set(),
    "celery.app.registry:TaskRegistry": set(),
    "celery.worker.request:Request": REQUEST,
    "celery.bin.base:CLIContext": set(),
    "celery.bin.base:CeleryCommand": set(),
    "celery.exceptions:Retry": set(),
    "celery.exceptions:Reject": set(),
    "celery.platforms:Signals": set(),
    "celery.platforms:DaemonContext": set(),
}  # fmt: skip
#: Commands of features that are to come.
COMMANDS_TO_COME = ("amqp", "beat", "events", "graph", "logtool", "migrate", "multi", "shell", "upgrade")
#: "class:method": parameters that ours lacks.
PARAMETERS_ABSENT = {
    "celery.app.utils:Settings:add_defaults": {"d"},
    "celery.backends.base:KeyValueStoreBackend:key_t": {"s"},
    "celery.backends.redis:RedisBackend:key_t": {"s"},
    "celery.backends.redis:RedisBackend:add_pending_result": {"start_drainer"},
    "celery.backends.redis:RedisBackend:add_to_chord": {"group_id"},
    "celery.backends.redis:RedisBackend:set": {"expires"},
    "celery.backends.rpc:RPCBackend:add_pending_result": {"start_drainer"},
    "celery.backends.rpc:RPCBackend:get_task_meta": {"backlog_limit"},
    "celery.backends.rpc:RPCBackend:reload_group_result": {"task_id"},
}


def names(python):
    ended = subprocess.run(
        [python, SCRIPT, *ABSENT], capture_output=True, text=True, timeout=60, check=False, cwd=SCRIPT.parent
    )
    assert ended.returncode == 0, ended.stderr
    return json.loads(ended.stdout)


@pytest.fixture(scope="module")
def both(celery57):
    return names(celery57), names(sys.executable)


@pytest.mark.parametrize("path", ABSENT)
def test_public_members_are_there(both, path):
    """MOD-*: what modules.tsv lists, as the real thing has it."""
    theirs, ours = (each["members"][path] for each in both)
    assert set(theirs) - set(ours) == set(ABSENT[path]) & set(theirs)


@pytest.mark.parametrize("path", ABSENT)
def test_parameters_have_the_same_names(both, path):
    theirs, ours = (each["members"][path] for each in both)
    lacking = {
        f"{path}:{member}": absent
        for member in theirs.keys() & ours.keys()
        if ours[member] and "*" not in ours[member]
        if (absent := set(theirs[member]) - {"*", "self", "cls"} - set(ours[member]))
    }
    assert lacking == {name: absent for name, absent in PARAMETERS_ABSENT.items() if name.rpartition(":")[0] == path}


def test_commands_have_the_same_options(both):
    """CLI-001 and its neighbours."""
    theirs, ours = (each["options"] for each in both)
    absent = {command for command in theirs.keys() - ours.keys() if not command.startswith(COMMANDS_TO_COME)}
    assert not absent
    lacking = {
        command: set(theirs[command]) - set(ours[command])
        for command in theirs.keys() & ours.keys()
        if set(theirs[command]) - set(ours[command])
    }
    assert not lacking
