"""The option table against the parity inventory (SET-001..236)."""

import ast
import csv
import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from celery.app import defaults
from celery.app.config import Settings

ROOT = Path(__file__).parents[3]
OURS = {"worker_async_concurrency": 100, "task_delivery_limit": 5, "embedded_path": None}
# CONF-037: documented old names that 5.7 ignores, and what they mean.
DOCUMENTED_ONLY = {
    "CELERY_ENABLE_UTC": "enable_utc",
    "CASSANDRA_COLUMN_FAMILY": "cassandra_table",
    "CELERY_RESULT_EXPIRES": "result_expires",
    "CELERY_TASK_ALWAYS_EAGER": "task_always_eager",
    "CELERY_EAGER_PROPAGATES": "task_eager_propagates",
    "CELERY_PUBLISH_RETRY": "task_publish_retry",
    "CELERY_PUBLISH_RETRY_POLICY": "task_publish_retry_policy",
    "CELERY_SEND_SENT_EVENT": "task_send_sent_event",
    "CELERYD_SOFT_TIME_LIMIT": "task_soft_time_limit",
    "CELERYD_TIME_LIMIT": "task_time_limit",
    "CELERY_TASK_TRACK_STARTED": "task_track_started",
    "CELERY_TASK_REJECT_ON_WORKER_LOST": "task_reject_on_worker_lost",
    "CELERY_WORKER_LOG_FORMAT": "worker_log_format",
    "CELERY_WORKER_TASK_LOG_FORMAT": "worker_task_log_format",
    "CELERYD_REDIRECT_STDOUTS": "worker_redirect_stdouts",
    "CELERYD_REDIRECT_STDOUTS_LEVEL": "worker_redirect_stdouts_level",
    "CELERY_RESULT_DB_TABLE_NAMES": "database_table_names",
}


def inventory():
    with (ROOT / "tests/data/parity/settings.tsv").open() as lines:
        return list(csv.DictReader(lines, delimiter="\t", quoting=csv.QUOTE_NONE))


ROWS = inventory()
NAMES = [row["name"] for row in ROWS]


def expected_default(row):
    text = row["default"]
    if text in ("unset", "gcs_project"):  # "not in the option table": known to us, and None
        return None
    return eval(text, {"timedelta": timedelta, "inf": float("inf")})


def accepts(type_name, text):
    """Whether the type column of the inventory allows for the type of the option."""
    allowed = {
        "bool": ("bool",),
        "int": ("int", "float", "1 or 2"),
        "float": ("float", "int"),
        "dict": ("dict",),
        "list": ("list", "str or list", "dict, list"),
        "tuple": ("sequence", "list/set/tuple"),
        "bytes": ("bytes",),
        "string": ("str", "path", "callable", "list of str", "gid", "uid", "'"),
        "any": ("str", "int", "class path", "callable", "dict", "list"),
    }
    return any(word in text for word in allowed[type_name])


def test_the_inventory_has_every_setting_of_the_reference():
    assert len(ROWS) == 236
    assert set(defaults.OPTIONS) == {*NAMES, *OURS}


@pytest.mark.filterwarnings("ignore:The setting 'CELERY_ACKS_ON_FAILURE_OR_TIMEOUT' is deprecated")
@pytest.mark.parametrize("row", ROWS, ids=[f"{row['id']}-{row['name']}" for row in ROWS])
def test_a_setting_is_known_with_its_type_default_and_old_names(row):
    option = defaults.OPTIONS[row["name"]]
    assert option.default == expected_default(row)
    assert type(option.default) is type(expected_default(row))
    assert set(filter(None, row["old_names"].split(","))) <= set(option.old)
    assert option.doc
    assert option.type in defaults.Option.typemap
    for old in option.old:
        value = {"bool": True, "int": 12345, "float": 12.5}.get(option.type) or object()
        settings = Settings(load=lambda: {old: value})
        assert getattr(settings, row["name"]) is value
        assert settings[old] is value


@pytest.mark.parametrize("row", ROWS, ids=NAMES)
def test_the_type_of_an_option_fits_the_inventory(row):
    assert accepts(defaults.OPTIONS[row["name"]].type, row["type"])


@pytest.mark.parametrize(("old", "name"), DOCUMENTED_ONLY.items())
def test_an_old_name_that_only_the_documentation_lists_is_accepted(old, name):
    """CONF-037."""
    assert defaults.NEW_NAMES[old] == name
    assert defaults.OLD_NAMES[name] != old


def test_an_old_name_means_one_setting():
    spellings = [old for option in defaults.OPTIONS.values() for old in option.old]
    assert len(spellings) == len(set(spellings))


@pytest.mark.parametrize(("name", "default"), OURS.items())
def test_our_own_settings_have_defaults(name, default):
    assert defaults.DEFAULTS[name] == default


def test_settings_that_are_acted_on_exist():
    assert defaults.ACTED_ON <= defaults.SETTING_KEYS


#: Acted on, under names that are put together: `<command>_<option>` of programs that can run in the background.
READ_BY_PATTERN = {f"worker_{option}" for option in ("gid", "logfile", "pidfile", "uid", "umask")}

#: Named in the code and not acted on yet, with what the code does.
NAMED_IN_VAIN = {
    "beat_cron_starting_deadline": "crontabs know it, and nothing runs them yet",
    "beat_schedule": "entries are kept there for beat, which does not run yet",
    "task_default_rate_limit": "tasks carry their rate limit, and the worker does not limit",
    "visibility_timeout": "the transport option of this name is read, the setting is not",
    "worker_send_task_events": "the banner shows it, and nothing is sent",
}


def names_in_code() -> set[str]:
    """Every attribute that the package reads and every text in it, save documentation."""
    names = set()
    for path in Path(defaults.__file__).parents[1].rglob("*.py"):
        if path.name in {"defaults.py", "setting_names.py"}:  # tables of all settings
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load):
                names.add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
    return names


def test_the_settings_that_are_acted_on_are_those_that_the_code_reads():
    named = names_in_code() & defaults.SETTING_KEYS
    assert not NAMED_IN_VAIN.keys() - named, "no longer named"
    assert defaults.ACTED_ON - READ_BY_PATTERN <= named, "never read"
    assert named - NAMED_IN_VAIN.keys() <= defaults.ACTED_ON, "read: say so in ACTED_ON, or above why not"


@pytest.mark.parametrize(
    ("name", "namespace", "found"),
    [
        ("concurrency", "worker", ("worker", "concurrency")),
        ("url", "celery", ("broker", "url")),
        ("CONCURRENCY", "celery", ("worker", "concurrency")),
        ("task_serializer", "celery", (None, "task_serializer")),
        ("timezone", "celery", (None, "timezone")),
    ],
)
def test_find_looks_in_the_namespace_then_for_the_full_name_then_everywhere(name, namespace, found):
    """MOD-0135."""
    result = defaults.find(name, namespace)
    assert (result.namespace, result.key) == found
    assert isinstance(result.type, defaults.Option)


def test_find_does_not_invent_options():
    with pytest.raises(KeyError, match="nope"):
        defaults.find("nope")


def test_flatten_walks_all_namespaces():
    assert dict(defaults.flatten(defaults.NAMESPACES)) == defaults.OPTIONS
    assert dict(defaults.flatten({"a": {"b": defaults.Option(1)}}, root="x")).keys() == {"x_a_b"}


def test_namespace_gives_options_their_old_names():
    """MOD-0124, MOD-0125."""
    group = defaults.Namespace(__old__=defaults.old_ns("celery_redis"), host=defaults.Option(), port=defaults.Option())
    assert group["host"].old == ("CELERY_REDIS_HOST",)


@pytest.mark.parametrize(
    ("kind", "given", "converted"),
    [
        ("int", "3", 3),
        ("float", "3", 3.0),
        ("string", 3, "3"),
        ("any", "3", "3"),
        ("bytes", "x", b"x"),
        ("list", ("a",), ["a"]),
        ("bool", "YES", True),
        ("bool", "off", False),
        ("bool", "1", True),
        ("bool", "False", False),
        ("bool", None, None),
    ],
)
def test_an_option_converts_text_to_its_type(kind, given, converted):
    """CONF-022."""
    assert defaults.Option(type=kind).to_python(given) == converted


def test_a_word_that_is_neither_true_nor_false_is_refused():
    with pytest.raises(TypeError, match="maybe"):
        defaults.Option(type="bool").to_python("maybe")


def test_a_deprecated_setting_is_found_under_any_name():
    """CONF-013."""
    for name in ("task_acks_on_failure_or_timeout", "CELERY_ACKS_ON_FAILURE_OR_TIMEOUT"):
        [(found, option)] = defaults.find_deprecated_settings({name: True, "task_serializer": "json"})
        assert (found, option.remove_by) == (name, "7.0")


def test_the_settings_page_is_current():
    page = subprocess.run(
        [sys.executable, ROOT / "scripts/settings_reference.py"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT / "src")},
    ).stdout
    assert (ROOT / "docs/settings.md").read_text() == page, (
        "run: python scripts/settings_reference.py > docs/settings.md"
    )
