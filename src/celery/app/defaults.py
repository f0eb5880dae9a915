"""The option table: every setting there is, with its type, default, old names and meaning (SET-001..236).

The table is flat and is the only place where a setting is declared; `NAMESPACES`, `DEFAULTS`, `SETTING_KEYS` and the
name maps are derived from it, and so is the settings page of the documentation. Vocabulary:

* a setting's *name* is its new-style, lower-case name (``task_serializer``);
* its *old names* are the upper-case spellings of Celery 3, both the ones that Celery's code accepts and the ones that
  only its documentation lists (CONF-037); the first one is the canonical old name;
* its *namespace* is the first word of the name where that word is a documented namespace (``task``), and its *key* is
  the rest (``serializer``);
* a setting is *acted on* when this version does something with it. A setting that is known and not acted on yet is
  reported to the user who sets it instead of being silently ignored.

The file is longer than others because it is one table.
"""

from __future__ import annotations

from collections import deque
from datetime import timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

__all__ = ("NAMESPACES", "Option", "find", "flatten")

DEFAULT_POOL = "prefork"
DEFAULT_ACCEPT_CONTENT = ("json",)
DEFAULT_PROCESS_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(message)s"
DEFAULT_TASK_LOG_FMT = "[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s"
DEFAULT_SECURITY_DIGEST = "sha256"

#: How the old names of three namespaces are spelt: ``{0}`` is the key.
OLD_NS = {"celery_{0}"}
OLD_NS_BEAT = {"celerybeat_{0}"}
OLD_NS_WORKER = {"celeryd_{0}"}

_TRUE_WORDS = frozenset({"true", "yes", "on", "1"})
_FALSE_WORDS = frozenset({"false", "no", "off", "0"})


def to_bool(value: Any) -> Any:
    """Turn a word for true or false into a bool; anything but a string passes unchanged (CONF-022).

    Raises:
        TypeError: If a string is none of true/false, yes/no, on/off, 1/0 (in any case).
    """
    if not isinstance(value, str):
        return value
    word = value.strip().lower()
    if word in _TRUE_WORDS:
        return True
    if word in _FALSE_WORDS:
        return False
    raise TypeError(f"Cannot read {value!r} as a bool: write true or false, yes or no, on or off, 1 or 0.")


def _unchanged(value: Any) -> Any:
    return value


def _encode(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else value


class Option:
    """One setting: its default, its type and what is known about its name (MOD-0126).

    Args:
        default: Value of the setting where nobody sets it.
        *args: Ignored; accepted because the documented signature has it.
        **kwargs: Attributes to set: ``type``, ``old``, ``doc``, ``alt``, ``deprecate_by``, ``remove_by``.
    """

    alt: str | None = None
    deprecate_by: str | None = None
    remove_by: str | None = None
    old: tuple[str, ...] = ()
    type: str = "string"
    doc: str = ""
    typemap: ClassVar[Mapping[str, Callable[[Any], Any]]] = MappingProxyType({
        "string": str, "int": int, "float": float, "any": _unchanged, "bool": to_bool, "dict": dict,
        "tuple": tuple, "list": list, "bytes": _encode,
    })  # fmt: skip

    def __init__(self, default: Any = None, *args: Any, **kwargs: Any) -> None:  # noqa: ARG002  documented signature
        self.default = default
        for name, value in kwargs.items():
            setattr(self, name, value)

    def to_python(self, value: Any) -> Any:
        """Convert *value* to the option's type; raises ValueError or TypeError if it cannot be."""
        return self.typemap[self.type](value)

    def __repr__(self) -> str:
        return f"<Option: type->{self.type} default->{self.default!r}>"


def Namespace(__old__: Iterable[str] | None = None, **options: Option) -> dict[str, Option]:  # noqa: N802  documented name
    """Group *options* under one namespace; options without old names get theirs from the patterns *__old__*."""
    for key, option in options.items():
        option.old = option.old or tuple(pattern.format(key).upper() for pattern in __old__ or ())
    return options


def old_ns(ns: str) -> set[str]:
    """Return the pattern of old names for a namespace whose old names are simply upper-cased (MOD-0125)."""
    return {f"{ns}_{{0}}"}


def _option(type: str, default: Any, doc: str, *old: str, **more: str) -> Option:
    return Option(default, type=type, doc=doc, old=old, **more)


OPTIONS: dict[str, Option] = {
    # general
    "accept_content": _option("list", DEFAULT_ACCEPT_CONTENT,
        "Serializer names or MIME types a consumer decodes; any other message is refused.", "CELERY_ACCEPT_CONTENT"),
    "enable_utc": _option("bool", True,
        "Message timestamps are converted to UTC. If false and no timezone is set, the app timezone is the host's "
        "local zone.", "ENABLE_UTC", "CELERY_ENABLE_UTC"),
    "imports": _option("tuple", (), "Modules imported, in order, when worker/beat/shell start.", "CELERY_IMPORTS"),
    "include": _option("tuple", (),
        "More modules, imported after imports. Set by Celery(include=...).", "CELERY_INCLUDE"),
    "timezone": _option("string", None,
        "App timezone. Unset: UTC if enable_utc else local. Also falls back to Django's TIME_ZONE key when "
        "present in the config object.", "CELERY_TIMEZONE"),
    # arangodb
    "arangodb_backend_settings": _option("dict", None,
        "Keys host localhost, port 8529, database celery, collection celery, username, password, http_protocol "
        "http, verify False.", "CELERY_ARANGODB_BACKEND_SETTINGS"),
    # azureblockblob
    "azureblockblob_base_path": _option("string", "", "Blob name prefix.", "AZUREBLOCKBLOB_BASE_PATH"),
    "azureblockblob_connection_timeout": _option("int", 20, "Connect timeout, s.", "AZUREBLOCKBLOB_CONNECTION_TIMEOUT"),
    "azureblockblob_container_name": _option("string", "celery", "Container.", "AZUREBLOCKBLOB_CONTAINER_NAME"),
    "azureblockblob_read_timeout": _option("int", 120, "Read timeout, s.", "AZUREBLOCKBLOB_READ_TIMEOUT"),
    "azureblockblob_retry_increment_base": _option("int", 2, "Back-off base.", "AZUREBLOCKBLOB_RETRY_INCREMENT_BASE"),
    "azureblockblob_retry_initial_backoff_sec": _option("int", 2,
        "First back-off.", "AZUREBLOCKBLOB_RETRY_INITIAL_BACKOFF_SEC"),
    "azureblockblob_retry_max_attempts": _option("int", 3, "Attempts.", "AZUREBLOCKBLOB_RETRY_MAX_ATTEMPTS"),
    # beat
    "beat_cron_starting_deadline": _option("int", None,
        "How many seconds in the past a missed crontab run may lie and still be run at once; None = always run a "
        "missed one.", "CELERYBEAT_CRON_STARTING_DEADLINE"),
    "beat_enable_remote_control": _option("bool", False,
        "Standalone beat joins the control mailbox as celerybeat@host and answers ping only.",
        "CELERYBEAT_ENABLE_REMOTE_CONTROL"),
    "beat_executable": _option("string", None, "Default of beat --executable."),
    "beat_gid": _option("string", None, "Default of beat --gid."),
    "beat_logfile": _option("string", None, "Default of beat --logfile."),
    "beat_max_loop_interval": _option("float", 0,
        "Upper bound of beat's sleep between schedule checks; 0 means scheduler's own default (300 s for the "
        "built-in one).", "CELERYBEAT_MAX_LOOP_INTERVAL"),
    "beat_pidfile": _option("string", None, "Default of beat --pidfile."),
    "beat_remote_control_max_tick_age": _option("float", None,
        "Max seconds since last scheduler pass before beat stops answering ping. None = max(2 x effective loop "
        "interval, 60). 0 disables the check.", "CELERYBEAT_REMOTE_CONTROL_MAX_TICK_AGE"),
    "beat_schedule": _option("dict", {}, "Periodic task table.", "CELERYBEAT_SCHEDULE"),
    "beat_schedule_filename": _option("string", "celerybeat-schedule",
        "Shelve file of the persistent scheduler (suffix may be added by dbm).", "CELERYBEAT_SCHEDULE_FILENAME"),
    "beat_scheduler": _option("string", "celery.beat:PersistentScheduler", "Scheduler class.", "CELERYBEAT_SCHEDULER"),
    "beat_sync_every": _option("int", 0,
        "Number of sent tasks between forced schedule syncs; 0 = time based only (every 180 s).",
        "CELERYBEAT_SYNC_EVERY"),
    "beat_uid": _option("string", None, "Default of beat --uid."),
    "beat_umask": _option("any", None, "Default of beat --umask."),
    # broker
    "broker_channel_error_retry": _option("bool", False,
        "Treat channel errors like connection errors (reconnect). No effect if broker_connection_retry is off.",
        "BROKER_CHANNEL_ERROR_RETRY"),
    "broker_connection_max_retries": _option("int", 100,
        "Attempts before giving up; None = forever.", "BROKER_CONNECTION_MAX_RETRIES"),
    "broker_connection_retry": _option("bool", True,
        "Re-establish a connection lost after the first successful connect. Also governs start-up while "
        "broker_connection_retry_on_startup is None.", "BROKER_CONNECTION_RETRY"),
    "broker_connection_retry_on_startup": _option("bool", None,
        "Retry while the broker is unreachable at start. None = use broker_connection_retry.",
        "BROKER_CONNECTION_RETRY_ON_STARTUP"),
    "broker_connection_timeout": _option("float", 4,
        "Seconds to wait when a connection is being established.", "BROKER_CONNECTION_TIMEOUT"),
    "broker_failover_strategy": _option("any", None,
        "How to pick the next URL: round-robin (default), shuffle, or a generator function.",
        "BROKER_FAILOVER_STRATEGY"),
    "broker_heartbeat": _option("int", 120,
        "AMQP heartbeat seconds, worker side only (negotiated).", "BROKER_HEARTBEAT"),
    "broker_heartbeat_checkrate": _option("float", 3.0,
        "Heartbeats are checked every broker_heartbeat / this seconds.", "BROKER_HEARTBEAT_CHECKRATE"),
    "broker_host": _option("string", None,
        "Legacy split form of the broker address; used only when broker_url is unset.", "BROKER_HOST"),
    "broker_login_method": _option("string", None,
        "AMQP login mechanism; None leaves it to the transport (AMQPLAIN).", "BROKER_LOGIN_METHOD"),
    "broker_native_delayed_delivery_queue_type": _option("string", "quorum",
        "Queue type of the native delayed-delivery queues on RabbitMQ; anything else is a ValueError at worker "
        "start.", "BROKER_NATIVE_DELAYED_DELIVERY_QUEUE_TYPE"),
    "broker_password": _option("string", None, "Legacy split form: password.", "BROKER_PASSWORD"),
    "broker_pool_acquire_timeout": _option("float", None,
        "Seconds to wait for a pooled connection/producer before raising OperationalError; None = wait for ever.",
        "BROKER_POOL_ACQUIRE_TIMEOUT"),
    "broker_pool_limit": _option("int", 10,
        "Max pooled broker connections/producers; None or 0 disables pooling.", "BROKER_POOL_LIMIT"),
    "broker_port": _option("int", None, "Legacy split form: port.", "BROKER_PORT"),
    "broker_read_url": _option("string", None,
        "URL used for consuming; falls back to broker_url. Env CELERY_BROKER_READ_URL wins.", "BROKER_READ_URL"),
    "broker_transport": _option("string", None, "Transport name when not given in the URL.", "BROKER_TRANSPORT"),
    "broker_transport_options": _option("dict", {},
        "Options handed to the transport: visibility_timeout, max_retries, confirm_publish, priority_steps...",
        "BROKER_TRANSPORT_OPTIONS"),
    "broker_url": _option("string", None,
        "Broker URL or list of URLs (or several joined with ';'). None, with no other broker setting: the "
        "embedded SQLite file. Env CELERY_BROKER_URL wins.", "BROKER_URL"),
    "broker_use_ssl": _option("bool", False,
        "TLS to the broker; pyamqp takes keyfile/certfile/ca_certs/cert_reqs, redis takes "
        "ssl_cert_reqs/ssl_ca_certs/ssl_certfile/ssl_keyfile.", "BROKER_USE_SSL"),
    "broker_user": _option("string", None, "Legacy split form: user.", "BROKER_USER"),
    "broker_vhost": _option("string", None, "Legacy split form: virtual host.", "BROKER_VHOST"),
    "broker_write_url": _option("string", None,
        "URL used for publishing; falls back to broker_url. Env CELERY_BROKER_WRITE_URL wins.", "BROKER_WRITE_URL"),
    "embedded_path": _option("string", None,
        "SQLite file of the embedded broker and results; None: celery.sqlite under CELERY_HOME, else beside the "
        "app's module (ours)."),
    "sasl_username": _option("string", None, "User of a SASL broker (Kafka); read by users' own configuration only."),
    # cache
    "cache_backend": _option("string", None,
        "Only meaningful with result_backend='cache' (e.g. 'memory' or a memcache URL).", "CELERY_CACHE_BACKEND"),
    "cache_backend_options": _option("dict", {},
        "Options for the memcache client; defaults applied: default_noreply False, connect_timeout 5, timeout 5; "
        "retry_attempts/retry_delay/retry_for/do_not_retry_for wrap the client with retries; legacy pylibmc keys "
        "behaviors/binary are ignored with a deprecation warning.", "CELERY_CACHE_BACKEND_OPTIONS"),
    # cassandra
    "cassandra_auth_kwargs": _option("dict", None, "Arguments for the auth provider.", "CASSANDRA_AUTH_KWARGS"),
    "cassandra_auth_provider": _option("string", None,
        "Name of an auth provider class of the driver (PlainTextAuthProvider, SaslAuthProvider).",
        "CASSANDRA_AUTH_PROVIDER"),
    "cassandra_bundle_path": _option("string", None,
        "Never read by the backend: use cassandra_secure_bundle_path.", "CASSANDRA_BUNDLE_PATH"),
    "cassandra_entry_ttl": _option("float", None, "TTL of rows; None = keep.", "CASSANDRA_ENTRY_TTL"),
    "cassandra_keyspace": _option("string", None, "Keyspace.", "CASSANDRA_KEYSPACE"),
    "cassandra_options": _option("dict", {}, "Extra arguments for the driver's Cluster.", "CASSANDRA_OPTIONS"),
    "cassandra_port": _option("int", None, "Port (effective default 9042).", "CASSANDRA_PORT"),
    "cassandra_read_consistency": _option("string", None,
        "Read consistency (effective default LOCAL_QUORUM); also used for the read-before-write that protects a "
        "stored SUCCESS.", "CASSANDRA_READ_CONSISTENCY"),
    "cassandra_secure_bundle_path": _option("string", None, "Astra DB bundle; exclusive with cassandra_servers."),
    "cassandra_servers": _option("list", None, "Hosts; exclusive with the secure bundle.", "CASSANDRA_SERVERS"),
    "cassandra_table": _option("string", None, "Table name.", "CASSANDRA_TABLE", "CASSANDRA_COLUMN_FAMILY"),
    "cassandra_write_consistency": _option("string", None,
        "Write consistency (effective default LOCAL_QUORUM).", "CASSANDRA_WRITE_CONSISTENCY"),
    # control
    "control_exchange": _option("string", "celery",
        "Base name of the control exchange (fanout exchange is <name>.pidbox; replies go through "
        "reply.<name>.pidbox).", "CONTROL_EXCHANGE"),
    "control_queue_durable": _option("bool", False, "Durable control exchange and queue.", "CONTROL_QUEUE_DURABLE"),
    "control_queue_exclusive": _option("bool", True,
        "Control queue exclusive to its connection. True together with control_queue_durable raises "
        "ImproperlyConfigured.", "CONTROL_QUEUE_EXCLUSIVE"),
    "control_queue_expires": _option("float", 10.0,
        "Seconds after which an unused control/reply queue is deleted.", "CONTROL_QUEUE_EXPIRES"),
    "control_queue_ttl": _option("float", 300.0,
        "Message TTL (s) of control queues and reply queues.", "CONTROL_QUEUE_TTL"),
    # cosmosdbsql
    "cosmosdbsql_collection_name": _option("string", "celerycol", "Collection.", "COSMOSDBSQL_COLLECTION_NAME"),
    "cosmosdbsql_consistency_level": _option("string", "Session",
        "Consistency level.", "COSMOSDBSQL_CONSISTENCY_LEVEL"),
    "cosmosdbsql_database_name": _option("string", "celerydb", "Database.", "COSMOSDBSQL_DATABASE_NAME"),
    "cosmosdbsql_max_retry_attempts": _option("int", 9, "Attempts.", "COSMOSDBSQL_MAX_RETRY_ATTEMPTS"),
    "cosmosdbsql_max_retry_wait_time": _option("int", 30, "Total wait, s.", "COSMOSDBSQL_MAX_RETRY_WAIT_TIME"),
    # couchbase
    "couchbase_backend_settings": _option("dict", None,
        "Keys host localhost, port 8091, bucket default, username, password.", "CELERY_COUCHBASE_BACKEND_SETTINGS"),
    # events
    "events_executable": _option("string", None, "Default of events --executable."),
    "events_gid": _option("string", None, "Default of events --gid."),
    "events_logfile": _option("string", None, "Default of events --logfile."),
    "events_pidfile": _option("string", None, "Default of events --pidfile."),
    "events_uid": _option("string", None, "Default of events --uid."),
    "events_umask": _option("any", None, "Default of events --umask."),
    # worker
    "worker_agent": _option("string", None,
        "Experimental actor agent class started by a consumer bootstep.", "CELERYD_AGENT"),
    "worker_async_concurrency": _option("int", 100, "Async tasks that run at once in one child (ours)."),
    "worker_autoscaler": _option("string", "celery.worker.autoscale:Autoscaler",
        "Autoscaler class.", "CELERYD_AUTOSCALER"),
    "worker_cancel_long_running_tasks_on_connection_loss": _option("bool", False,
        "Kill running, unacked acks_late tasks when the broker connection drops (pending-deprecation warning when "
        "off).", "CELERYD_CANCEL_LONG_RUNNING_TASKS_ON_CONNECTION_LOSS"),
    "worker_concurrency": _option("any", None,
        "Pool size; None/0 = CPU count; 'auto' = min(affinity CPUs, ceil(cgroup quota)) for prefork, affinity "
        "CPUs for other pools.", "CELERYD_CONCURRENCY"),
    "worker_consumer": _option("string", "celery.worker.consumer:Consumer", "Consumer class.", "CELERYD_CONSUMER"),
    "worker_deduplicate_successful_tasks": _option("bool", False,
        "Skip a redelivered acks_late message whose task already is SUCCESS (local cache, then persistent "
        "backend).", "CELERYD_DEDUPLICATE_SUCCESSFUL_TASKS"),
    "worker_detect_quorum_queues": _option("bool", True,
        "Detect quorum queues on RabbitMQ and switch to per-consumer QoS.", "CELERYD_DETECT_QUORUM_QUEUES"),
    "worker_direct": _option("bool", False,
        "Also consume a queue of this worker alone: <nodename>.dq2, bound to exchange C.dq2 by node name.",
        "CELERY_WORKER_DIRECT"),
    "worker_disable_prefetch": _option("bool", False,
        "Fetch only when a slot is free (redis broker only; others warn and ignore).", "CELERYD_DISABLE_PREFETCH"),
    "worker_disable_rate_limits": _option("bool", False, "Ignore all rate limits.", "CELERY_DISABLE_RATE_LIMITS"),
    "worker_enable_prefetch_count_reduction": _option("bool", True,
        "Shrink prefetch after a reconnect by the running tasks and restore it as they finish (no-op with per-"
        "consumer QoS).", "CELERYD_ENABLE_PREFETCH_COUNT_REDUCTION"),
    "worker_enable_remote_control": _option("bool", True, "Start the control mailbox.", "CELERY_ENABLE_REMOTE_CONTROL"),
    "worker_enable_soft_shutdown_on_idle": _option("bool", False,
        "Do the soft shutdown even when no task runs (helps ETA tasks be requeued).",
        "CELERYD_ENABLE_SOFT_SHUTDOWN_ON_IDLE"),
    "worker_eta_task_limit": _option("int", None,
        "Cap of ETA tasks / unacked messages held by the worker (QoS max_prefetch).", "CELERYD_ETA_TASK_LIMIT"),
    "worker_executable": _option("string", None, "Default of worker --executable."),
    "worker_gid": _option("string", None, "Default of worker --gid."),
    "worker_hijack_root_logger": _option("bool", True,
        "Drop handlers already on the root logger.", "CELERYD_HIJACK_ROOT_LOGGER"),
    "worker_log_color": _option("bool", None,
        "Colour logs; None = only when stderr is a tty and no logfile.", "CELERYD_LOG_COLOR"),
    "worker_log_datefmt": _option("string", None, "strftime format of asctime.", "CELERYD_LOG_DATEFMT"),
    "worker_log_format": _option("string", DEFAULT_PROCESS_LOG_FMT,
        "Log format of the worker.", "CELERYD_LOG_FORMAT", "CELERY_WORKER_LOG_FORMAT"),
    "worker_logfile": _option("string", None, "Default of worker --logfile."),
    "worker_lost_wait": _option("float", 10.0,
        "Seconds to wait for a result of a vanished child before WorkerLostError.", "CELERYD_WORKER_LOST_WAIT"),
    "worker_max_memory_per_child": _option("int", None,
        "Resident memory, in KiB, at which a child is replaced after its task.", "CELERYD_MAX_MEMORY_PER_CHILD"),
    "worker_max_tasks_per_child": _option("int", None,
        "Tasks after which a child is replaced.", "CELERYD_MAX_TASKS_PER_CHILD"),
    "worker_pidfile": _option("string", None, "Default of worker --pidfile."),
    "worker_pool": _option("string", DEFAULT_POOL,
        "Pool name or class path (use -P for eventlet/gevent; setting them here warns).", "CELERYD_POOL"),
    "worker_pool_putlocks": _option("bool", True,
        "Limit tasks handed to the pool to free slots.", "CELERYD_POOL_PUTLOCKS"),
    "worker_pool_restarts": _option("bool", False, "Allow the pool_restart control command.", "CELERYD_POOL_RESTARTS"),
    "worker_pool_start_method": _option("string", "fork",
        "How prefork children start; other values ImproperlyConfigured.", "CELERYD_POOL_START_METHOD"),
    "worker_prefetch_multiplier": _option("int", 4,
        "Prefetch = this x concurrency; 0 = unlimited.", "CELERYD_PREFETCH_MULTIPLIER"),
    "worker_proc_alive_timeout": _option("float", 4.0,
        "Seconds a new child has to come up.", "CELERYD_PROC_ALIVE_TIMEOUT"),
    "worker_redirect_stdouts": _option("bool", True,
        "Redirect stdout/stderr to a logger.", "CELERY_REDIRECT_STDOUTS", "CELERYD_REDIRECT_STDOUTS"),
    "worker_redirect_stdouts_level": _option("string", "WARNING",
        "Level of redirected output.", "CELERY_REDIRECT_STDOUTS_LEVEL", "CELERYD_REDIRECT_STDOUTS_LEVEL"),
    "worker_send_task_events": _option("bool", False, "Default of -E.", "CELERY_SEND_EVENTS"),
    "worker_soft_shutdown_timeout": _option("float", 0.0,
        "Seconds of grace before a cold shutdown; 0 = off.", "CELERYD_SOFT_SHUTDOWN_TIMEOUT"),
    "worker_state_db": _option("string", None, "File with persistent revokes and clock.", "CELERYD_STATE_DB"),
    "worker_task_log_datefmt": _option("string", None, "asctime format of task logger.", "CELERYD_TASK_LOG_DATEFMT"),
    "worker_task_log_format": _option("string", DEFAULT_TASK_LOG_FMT,
        "Format of the celery.task logger.", "CELERYD_TASK_LOG_FORMAT", "CELERY_WORKER_TASK_LOG_FORMAT"),
    "worker_timer": _option("string", None,
        "ETA timer class (effective default: pool's Timer, or the event loop's timer).", "CELERYD_TIMER"),
    "worker_timer_precision": _option("float", 1.0,
        "Max sleep between timer checks (not with the event loop).", "CELERYD_TIMER_PRECISION"),
    "worker_uid": _option("string", None, "Default of worker --uid."),
    "worker_umask": _option("any", None, "Default of worker --umask."),
    # database
    "database_create_tables_at_setup": _option("bool", True,
        "Create tables when the backend is set up instead of on first use.", "DATABASE_CREATE_TABLES_AT_SETUP"),
    "database_engine_callback": _option("any", None,
        "Called with the engine right after creation.", "DATABASE_ENGINE_CALLBACK"),
    "database_engine_options": _option("dict", {"pool_pre_ping": True, "pool_recycle": 3600},
        "SQLAlchemy engine options.", "CELERY_RESULT_ENGINE_OPTIONS"),
    "database_short_lived_sessions": _option("bool", False,
        "Open/close a session per use.", "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS"),
    "database_table_names": _option("dict", None,
        "Table names for keys task (celery_taskmeta) and group (celery_tasksetmeta), and ours: chord, chord_part, "
        "chord_watch (celeriac_...).",
        "CELERY_RESULT_DB_TABLENAMES", "CELERY_RESULT_DB_TABLE_NAMES"),
    "database_table_schemas": _option("dict", None,
        "Schemas for the same keys; chords go with group.", "DATABASE_TABLE_SCHEMAS"),
    "database_url": _option("string", None,
        "Old way to give the SQLAlchemy URL (use result_backend='db+...').", "CELERY_RESULT_DBURI"),
    # dynamodb
    "dynamodb_endpoint_url": _option("string", None, "Custom DynamoDB endpoint."),
    # elasticsearch
    "elasticsearch_max_retries": _option("int", None,
        "Retries (effective default 3).", "CELERY_ELASTICSEARCH_MAX_RETRIES"),
    "elasticsearch_retry_on_timeout": _option("bool", None,
        "Try another node on timeout (effective default False).", "CELERY_ELASTICSEARCH_RETRY_ON_TIMEOUT"),
    "elasticsearch_save_meta_as_text": _option("bool", True,
        "Store meta as text rather than native JSON.", "CELERY_ELASTICSEARCH_SAVE_META_AS_TEXT"),
    "elasticsearch_timeout": _option("float", None, "Timeout (effective default 10).", "CELERY_ELASTICSEARCH_TIMEOUT"),
    # event
    "event_exchange": _option("string", "celeryev",
        "Event exchange name (topic; fanout on redis and gcpubsub).", "CELERY_EVENT_EXCHANGE"),
    "event_queue_durable": _option("bool", False,
        "Durable monitor queue (also turns off auto_delete).", "CELERY_EVENT_QUEUE_DURABLE"),
    "event_queue_exclusive": _option("bool", True,
        "Monitor queue exclusive. True with event_queue_durable raises ImproperlyConfigured.",
        "CELERY_EVENT_QUEUE_EXCLUSIVE"),
    "event_queue_expires": _option("float", 60.0,
        "x-expires (s) of a monitor's event queue.", "CELERY_EVENT_QUEUE_EXPIRES"),
    "event_queue_prefix": _option("string", "celeryev",
        "Prefix of monitor queue names (<prefix>.<uuid>).", "CELERY_EVENT_QUEUE_PREFIX"),
    "event_queue_ttl": _option("float", 5.0, "x-message-ttl (s) of a monitor's event queue.", "CELERY_EVENT_QUEUE_TTL"),
    "event_serializer": _option("string", "json", "Serializer for events.", "CELERY_EVENT_SERIALIZER"),
    # gcs
    "firestore_project": _option("string", None, "Project of the chord counters; None: gcs_project."),
    "gcs_base_path": _option("string", "", "Key prefix; slashes stripped at both ends.", "GCS_BASE_PATH"),
    "gcs_bucket": _option("string", None, "Bucket (or from gs:// URL).", "GCS_BUCKET"),
    "gcs_project": _option("string", None, "Project (or ?gcs_project= in URL).", "GCS_PROJECT"),
    "gcs_threadpool_maxsize": _option("int", 10, "Thread/connection pool size."),
    "gcs_ttl": _option("float", 0,
        "Seconds to keep result blobs (needs a bucket delete-lifecycle rule); 0 = none.", "GCS_TTL"),
    # mongodb
    "mongodb_backend_settings": _option("dict", None,
        "Keys database celery, taskmeta_collection celery_taskmeta, groupmeta_collection celery_groupmeta, "
        "max_pool_size 10, options {} (plus host/user/password...).", "CELERY_MONGODB_BACKEND_SETTINGS"),
    # redis
    "redis_backend_credential_provider": _option("any", None, "redis-py credential provider; replaces user/password."),
    "redis_backend_health_check_interval": _option("int", None, "Seconds between connection health checks."),
    "redis_backend_use_ssl": _option("dict", None,
        "TLS options of the redis backend (same keys as broker_use_ssl for redis).", "CELERY_REDIS_BACKEND_USE_SSL"),
    "redis_client_name": _option("string", None, "Client name of backend connections."),
    "redis_db": _option("int", None, "Legacy part: db (used when the URL omits it).", "CELERY_REDIS_DB"),
    "redis_host": _option("string", None, "Legacy part: host.", "CELERY_REDIS_HOST"),
    "redis_max_connections": _option("int", None,
        "Max pool size of the redis backend; exceeding it raises ConnectionError.", "CELERY_REDIS_MAX_CONNECTIONS"),
    "redis_password": _option("string", None, "Legacy part: password.", "CELERY_REDIS_PASSWORD"),
    "redis_port": _option("int", None, "Legacy part: port.", "CELERY_REDIS_PORT"),
    "redis_retry_on_timeout": _option("bool", False,
        "Retry an operation that timed out (not for unix sockets).", "CELERY_REDIS_RETRY_ON_TIMEOUT"),
    "redis_socket_connect_timeout": _option("float", None,
        "Connect timeout, s.", "CELERY_REDIS_SOCKET_CONNECT_TIMEOUT"),
    "redis_socket_keepalive": _option("bool", False, "TCP keepalive.", "CELERY_REDIS_SOCKET_KEEPALIVE"),
    "redis_socket_timeout": _option("float", 120.0, "Read/write timeout, s.", "CELERY_REDIS_SOCKET_TIMEOUT"),
    "redis_username": _option("string", None, "Legacy part: user.", "CELERY_REDIS_USERNAME"),
    "visibility_timeout": _option("int", None,
        "Visibility timeout of Redis reservations, s: set it in both transport-option dicts as well."),
    # result
    "override_backends": _option("dict", None, "Result-backend aliases to add or replace: {alias: class path}."),
    "result_accept_content": _option("list", None,
        "The same for the result backend; None: accept_content.", "RESULT_ACCEPT_CONTENT"),
    "result_backend": _option("string", None,
        "Backend name or URL (scheme may be class path; 'db+<sqlalchemy url>', 'cache+memcached://...'). Env "
        "CELERY_RESULT_BACKEND wins. Unset = disabled backend.", "CELERY_RESULT_BACKEND"),
    "result_backend_always_retry": _option("bool", False,
        "Retry recoverable backend errors with exponential back-off (database backend: True when unset or None).",
        "CELERY_RESULT_BACKEND_ALWAYS_RETRY"),
    "result_backend_base_sleep_between_retries_ms": _option("int", 10,
        "Back-off base.", "CELERY_RESULT_BACKEND_BASE_SLEEP_BETWEEN_RETRIES_MS"),
    "result_backend_max_retries": _option("float", float("inf"),
        "Backend operation retries when always_retry is on (database backend: 3 when unset or None).",
        "CELERY_RESULT_BACKEND_MAX_RETRIES"),
    "result_backend_max_sleep_between_retries_ms": _option("int", 10000,
        "Upper bound of back-off between backend retries.", "CELERY_RESULT_BACKEND_MAX_SLEEP_BETWEEN_RETRIES_MS"),
    "result_backend_thread_safe": _option("bool", False,
        "Share one backend object between threads instead of one per thread."),
    "result_backend_transport_options": _option("dict", {},
        "Backend options: global_keyprefix, retry_policy, visibility_timeout, result_chord_ordered (True), "
        "master_name, sentinel_kwargs, min_other_sentinels, additional_connection_errors.",
        "CELERY_RESULT_BACKEND_TRANSPORT_OPTIONS"),
    "result_cache_max": _option("int", -1,
        "Client-side cache of results: -1 none, 0/None unlimited, n = LRU of n.", "CELERY_MAX_CACHED_RESULTS"),
    "result_chord_expires": _option("float", None,
        "Life of chord bookkeeping (redis and cache backends); None = result_expires; 0 = never.",
        "CELERY_RESULT_CHORD_EXPIRES"),
    "result_chord_join_timeout": _option("float", 3.0,
        "Timeout when joining header results inside a chord.", "CELERY_RESULT_CHORD_JOIN_TIMEOUT"),
    "result_chord_retry_interval": _option("float", 1.0,
        "default_retry_delay of celery.chord_unlock.", "CELERY_RESULT_CHORD_RETRY_INTERVAL"),
    "result_compression": _option("string", None,
        "Compress stored results; the payload tells its method, so readers need no setting.",
        "CELERY_RESULT_COMPRESSION"),
    "result_exchange": _option("string", "celeryresults",
        "Legacy (old AMQP result backend); rpc uses the default exchange.", "CELERY_RESULT_EXCHANGE"),
    "result_exchange_type": _option("string", "direct", "Legacy, as above.", "CELERY_RESULT_EXCHANGE_TYPE"),
    "result_expires": _option("float", timedelta(days=1),
        "Age (s or timedelta) at which results are deleted; None or 0: never. Backends without expiry of their "
        "own rely on the daily celery.backend_cleanup.", "CELERY_TASK_RESULT_EXPIRES", "CELERY_RESULT_EXPIRES"),
    "result_extended": _option("bool", False,
        "Also store name, args, kwargs, worker, retries, queue and stamps with the result.", "CELERY_RESULT_EXTENDED"),
    "result_failure_expires": _option("float", None,
        "Separate expiry for FAILURE results (redis backend only; others warn); 0 = never.",
        "CELERY_RESULT_FAILURE_EXPIRES"),
    "result_persistent": _option("bool", None,
        "rpc: publish result messages as persistent. None = backend default (rpc: transient).",
        "CELERY_RESULT_PERSISTENT"),
    "result_serializer": _option("string", "json", "Serializer of results.", "CELERY_RESULT_SERIALIZER"),
    # s3
    "s3_access_key_id": _option("string", None, "Access key.", "S3_ACCESS_KEY_ID"),
    "s3_base_path": _option("string", None, "Key prefix.", "S3_BASE_PATH"),
    "s3_bucket": _option("string", None, "Bucket; required.", "S3_BUCKET"),
    "s3_endpoint_url": _option("string", None, "Custom endpoint.", "S3_ENDPOINT_URL"),
    "s3_region": _option("string", None, "Region.", "S3_REGION"),
    "s3_secret_access_key": _option("string", None, "Secret key.", "S3_SECRET_ACCESS_KEY"),
    # security
    "security_cert_store": _option("string", None,
        "Directory/glob with certificates accepted when verifying.", "CELERY_SECURITY_CERT_STORE"),
    "security_certificate": _option("string", None,
        "X.509 certificate used for signing.", "CELERY_SECURITY_CERTIFICATE"),
    "security_digest": _option("string", DEFAULT_SECURITY_DIGEST, "Digest for signing.", "CELERY_SECURITY_DIGEST"),
    "security_key": _option("string", None, "Private key for signing.", "CELERY_SECURITY_KEY"),
    "security_key_password": _option("bytes", None, "Password of the key.", "CELERY_SECURITY_KEY_PASSWORD"),
    # task
    "task_acks_late": _option("bool", False, "Acknowledge after execution instead of just before.", "CELERY_ACKS_LATE"),
    "task_acks_on_failure": _option("bool", None,
        "With acks_late: ack a failed task; false = reject without requeue. None: as task_acks_on_failure_or_timeout.",
        "CELERY_ACKS_ON_FAILURE"),
    "task_acks_on_failure_or_timeout": _option("bool", True,
        "Default of task_acks_on_failure and task_acks_on_timeout, both. Deprecated since 6.0, goes in 7.0.",
        "CELERY_ACKS_ON_FAILURE_OR_TIMEOUT",
        deprecate_by="6.0", remove_by="7.0", alt="task_acks_on_failure and task_acks_on_timeout"),
    "task_acks_on_timeout": _option("bool", None,
        "With acks_late: ack a hard-timed-out task; false = reject with requeue. None: likewise.",
        "CELERY_ACKS_ON_TIMEOUT"),
    "task_allow_error_cb_on_chord_header": _option("bool", False,
        "chord.link_error() also links to each header task.", "CELERY_ALLOW_ERROR_CB_ON_CHORD_HEADER"),
    "task_always_eager": _option("bool", False,
        "apply_async/delay run in-process and return EagerResult (arguments are still round-tripped through the "
        "serializer). send_task ignores it with an AlwaysEagerIgnored warning.",
        "CELERY_ALWAYS_EAGER", "CELERY_TASK_ALWAYS_EAGER"),
    "task_annotations": _option("any", None,
        "Rewrite task attributes from config: {'name'|'*': {attr: value}}, or objects with "
        "annotate(task)/annotate_any(); a key starting with '@' wraps (decorates) the attribute. Strings are "
        "import paths.", "CELERY_ANNOTATIONS"),
    "task_compression": _option("string", None,
        "Default message compression (gzip, bzip2, zlib, brotli, lzma, zstd when available).",
        "CELERY_MESSAGE_COMPRESSION"),
    "task_create_missing_queue_exchange_type": _option("string", None,
        "Exchange type of auto-created queues; None = leave what autoexchange returns.",
        "CELERY_CREATE_MISSING_QUEUE_EXCHANGE_TYPE"),
    "task_create_missing_queue_type": _option("string", "classic",
        "Type of auto-created queues; other values ValueError on use.", "CELERY_CREATE_MISSING_QUEUE_TYPE"),
    "task_create_missing_queues": _option("bool", True,
        "Auto-define queues that are named but not declared.", "CELERY_CREATE_MISSING_QUEUES"),
    "task_default_delivery_mode": _option("string", 2,
        "Default delivery mode (2 = persistent).", "CELERY_DEFAULT_DELIVERY_MODE"),
    "task_default_exchange": _option("string", None,
        "Exchange for queues without one; defaults to task_default_queue.", "CELERY_DEFAULT_EXCHANGE"),
    "task_default_exchange_type": _option("string", "direct", "Type of that exchange.", "CELERY_DEFAULT_EXCHANGE_TYPE"),
    "task_default_priority": _option("int", None, "Priority for tasks that have none.", "CELERY_DEFAULT_PRIORITY"),
    "task_default_queue": _option("string", "celery", "Queue for tasks without a route.", "CELERY_DEFAULT_QUEUE"),
    "task_default_queue_type": _option("string", "classic",
        "Type of the implicit default queue.", "CELERY_DEFAULT_QUEUE_TYPE"),
    "task_default_rate_limit": _option("string", None,
        "Rate limit for tasks that have none.", "CELERY_DEFAULT_RATE_LIMIT"),
    "task_default_routing_key": _option("string", None,
        "Routing key for queues without one; defaults to task_default_queue.", "CELERY_DEFAULT_ROUTING_KEY"),
    "task_delivery_limit": _option("int", 5,
        "Deaths of its process after which a message goes to the dead queue; on RabbitMQ, coming back from a worker "
        "that died or hung up counts a quarter; 0: no bound (ours)."),
    "task_eager_propagates": _option("bool", False,
        "apply()/eager re-raise exceptions.", "CELERY_EAGER_PROPAGATES_EXCEPTIONS", "CELERY_EAGER_PROPAGATES"),
    "task_ignore_result": _option("bool", False, "Default of Task.ignore_result.", "CELERY_IGNORE_RESULT"),
    "task_inherit_parent_priority": _option("bool", False,
        "Child tasks and chain steps inherit the parent's priority.", "CELERY_INHERIT_PARENT_PRIORITY"),
    "task_protocol": _option("int", 2, "Message protocol version used when publishing.", "CELERY_TASK_PROTOCOL"),
    "task_publish_retry": _option("bool", True,
        "Retry publishing on connection errors.", "CELERY_TASK_PUBLISH_RETRY", "CELERY_PUBLISH_RETRY"),
    "task_publish_retry_policy": _option(
        "dict", {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2},
        "max_retries, interval_start, interval_step, interval_max, retry_errors.",
        "CELERY_TASK_PUBLISH_RETRY_POLICY", "CELERY_PUBLISH_RETRY_POLICY"),
    "task_queue_max_priority": _option("int", None,
        "Default x-max-priority for every queue (RabbitMQ).", "CELERY_QUEUE_MAX_PRIORITY"),
    "task_queues": _option("dict", None,
        "Declared queues (list of Queue, or dict); None: one default queue.", "CELERY_QUEUES"),
    "task_reject_on_worker_lost": _option("bool", None,
        "With acks_late: requeue when the pool child dies.",
        "CELERY_REJECT_ON_WORKER_LOST", "CELERY_TASK_REJECT_ON_WORKER_LOST"),
    "task_remote_tracebacks": _option("bool", False,
        "Rebuild worker traceback when re-raising (needs tblib).", "CELERY_REMOTE_TRACEBACKS"),
    "task_repr_maxlevels": _option("int", 3,
        "Nesting depth of argsrepr/kwargsrepr; 0/None = unlimited.", "CELERY_REPR_MAXLEVELS"),
    "task_retry_on_worker_lost": _option("bool", False,
        "Re-send as retry() would when the pool child dies (also without acks_late); wins over "
        "reject_on_worker_lost; counts towards max_retries and waits default_retry_delay.",
        "CELERY_RETRY_ON_WORKER_LOST"),
    "task_routes": _option("any", None, "Routers: dict, list, callable or import path.", "CELERY_ROUTES"),
    "task_send_sent_event": _option("bool", False,
        "Publishers send task-sent events.", "CELERY_SEND_TASK_SENT_EVENT", "CELERY_SEND_SENT_EVENT"),
    "task_serializer": _option("string", "json", "Default task serializer.", "CELERY_TASK_SERIALIZER"),
    "task_soft_time_limit": _option("float", None,
        "Soft limit, s.", "CELERYD_TASK_SOFT_TIME_LIMIT", "CELERYD_SOFT_TIME_LIMIT"),
    "task_store_eager_result": _option("bool", False,
        "Also store eager results (needs task_always_eager and not ignore_result).", "CELERY_STORE_EAGER_RESULT"),
    "task_store_errors_even_if_ignored": _option("bool", False,
        "Store failures even when results are ignored.", "CELERY_STORE_ERRORS_EVEN_IF_IGNORED"),
    "task_time_limit": _option("float", None, "Hard limit, s.", "CELERYD_TASK_TIME_LIMIT", "CELERYD_TIME_LIMIT"),
    "task_track_started": _option("bool", False,
        "Report STARTED state.", "CELERY_TRACK_STARTED", "CELERY_TASK_TRACK_STARTED"),
}  # fmt: skip

#: The settings that the present code acts on; the others are known, and reported to whoever sets them.
ACTED_ON: frozenset[str] = frozenset({
    "accept_content", "broker_connection_max_retries", "broker_connection_retry",
    "broker_connection_retry_on_startup", "broker_connection_timeout", "broker_failover_strategy", "broker_heartbeat",
    "broker_host", "broker_login_method", "broker_native_delayed_delivery_queue_type", "broker_password",
    "broker_pool_acquire_timeout", "broker_pool_limit", "broker_port", "broker_read_url", "broker_transport",
    "broker_transport_options", "broker_url", "broker_use_ssl", "broker_user", "broker_vhost", "broker_write_url",
    "cache_backend", "control_exchange", "control_queue_durable", "control_queue_exclusive", "control_queue_expires",
    "control_queue_ttl", "database_create_tables_at_setup", "database_engine_callback", "database_engine_options",
    "database_short_lived_sessions", "database_table_names", "database_table_schemas", "database_url",
    "embedded_path", "enable_utc", "event_exchange", "event_serializer", "imports", "include", "override_backends",
    "redis_backend_credential_provider", "redis_backend_health_check_interval", "redis_backend_use_ssl",
    "redis_client_name", "redis_db", "redis_host", "redis_password", "redis_port", "redis_socket_connect_timeout",
    "redis_socket_keepalive", "redis_socket_timeout", "redis_username", "result_accept_content", "result_backend",
    "result_backend_thread_safe", "result_backend_transport_options", "result_cache_max", "result_chord_expires",
    "result_chord_join_timeout", "result_chord_retry_interval", "result_compression",
    "result_expires", "result_extended", "result_failure_expires", "result_persistent", "result_serializer",
    "task_acks_late", "task_acks_on_failure", "task_acks_on_failure_or_timeout", "task_acks_on_timeout",
    "task_allow_error_cb_on_chord_header",
    "task_always_eager", "task_annotations", "task_compression", "task_create_missing_queue_exchange_type",
    "task_create_missing_queue_type", "task_create_missing_queues", "task_default_delivery_mode",
    "task_default_exchange", "task_default_exchange_type", "task_default_priority", "task_default_queue",
    "task_default_queue_type", "task_default_routing_key", "task_delivery_limit", "task_eager_propagates",
    "task_ignore_result", "task_inherit_parent_priority", "task_protocol", "task_publish_retry",
    "task_publish_retry_policy", "task_queue_max_priority", "task_queues", "task_reject_on_worker_lost",
    "task_retry_on_worker_lost",
    "task_remote_tracebacks", "task_repr_maxlevels", "task_routes", "task_serializer", "task_soft_time_limit",
    "task_store_eager_result", "task_store_errors_even_if_ignored", "task_time_limit", "task_track_started",
    "timezone", "worker_async_concurrency", "worker_cancel_long_running_tasks_on_connection_loss",
    "worker_concurrency", "worker_deduplicate_successful_tasks",
    "worker_detect_quorum_queues", "worker_direct",
    "worker_enable_remote_control", "worker_gid", "worker_hijack_root_logger", "worker_log_color", "worker_log_datefmt",
    "worker_log_format", "worker_logfile",
    "worker_max_memory_per_child", "worker_max_tasks_per_child", "worker_pidfile", "worker_pool",
    "worker_prefetch_multiplier", "worker_proc_alive_timeout", "worker_redirect_stdouts",
    "worker_redirect_stdouts_level", "worker_soft_shutdown_timeout", "worker_task_log_datefmt",
    "worker_task_log_format", "worker_uid", "worker_umask",
})  # fmt: skip

_NAMESPACE_NAMES = (
    "beat", "broker", "cache", "cassandra", "s3", "azureblockblob", "gcs", "control", "couchbase", "arangodb",
    "mongodb", "cosmosdbsql", "event", "redis", "result", "elasticsearch", "security", "database", "task", "worker",
)  # fmt: skip
_UNGROUPED = frozenset({"result_accept_content"})  # documented at the top level although its first word is a namespace


def _group(options: Mapping[str, Option]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, option in options.items():
        namespace, _, key = name.partition("_")
        if namespace in _NAMESPACE_NAMES and name not in _UNGROUPED:
            tree.setdefault(namespace, {})[key] = option
        else:
            tree[name] = option
    return tree


#: {namespace: {key: Option}}, and {name: Option} for the settings that have no namespace.
NAMESPACES: dict[str, Any] = _group(OPTIONS)
#: {name: default}. Defaults that are dicts are shared: whoever hands them out copies them (see `app.config`).
DEFAULTS: dict[str, Any] = {name: option.default for name, option in OPTIONS.items()}
SETTING_KEYS: frozenset[str] = frozenset(OPTIONS)
#: {old name: name}, with every accepted old spelling, and {name: canonical old name}.
NEW_NAMES: dict[str, str] = {old: name for name, option in OPTIONS.items() for old in option.old}
OLD_NAMES: dict[str, str] = {name: option.old[0] for name, option in OPTIONS.items() if option.old}


class searchresult(NamedTuple):  # noqa: N801  shows in the repr that users see
    """Where `find` found an option: its namespace (None at the top level), its key there, and the option."""

    namespace: str | None
    key: str
    type: Any


def _full_name(root: str, key: str, value: Any) -> tuple[str, Any]:
    return root + key, value


def flatten(
    d: Mapping[str, Any], root: str = "", keyfilter: Callable[[str, str, Any], tuple[str, Any]] = _full_name
) -> Iterator[tuple[str, Any]]:
    """Walk nested namespaces and yield ``keyfilter(prefix, key, option)`` for each option (MOD-0133).

    Args:
        d: Namespaces, such as `NAMESPACES`.
        root: What to put in front of the names, without the underscore.
        keyfilter: Makes the yielded pair; the default one yields ``(full name, option)``.
    """
    pending = deque([(root, d)])
    while pending:
        name, options = pending.popleft()
        prefix = f"{name}_" if name else ""
        for key, value in options.items():
            if isinstance(value, dict):
                pending.append((prefix + key, value))
            else:
                yield keyfilter(prefix, key, value)


def find(name: str, namespace: str | None = "celery") -> searchresult:
    """Find an option by its key in *namespace*, else by its full name, else by its key in any namespace (MOD-0135).

    Raises:
        KeyError: If no option is called *name*.
    """
    name = name.lower()
    namespace = (namespace or "").lower()
    if isinstance(NAMESPACES.get(namespace), dict) and name in NAMESPACES[namespace]:
        return searchresult(namespace, name, NAMESPACES[namespace][name])
    if name in NAMESPACES:
        return searchresult(None, name, NAMESPACES[name])
    if name in OPTIONS:
        return searchresult(None, name, OPTIONS[name])
    for group, options in NAMESPACES.items():
        if isinstance(options, dict) and name in options:
            return searchresult(group, name, options[name])
    raise KeyError(name)


def find_deprecated_settings(source: Mapping[str, Any]) -> list[tuple[str, Option]]:
    """Return ``(name as written, option)`` for each deprecated setting that *source* sets, by any name (CONF-013)."""
    return [
        (spelling, option)
        for name, option in OPTIONS.items() if option.deprecate_by
        for spelling in (name, *option.old) if spelling in source
    ]  # fmt: skip
