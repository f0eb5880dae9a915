"""What is compared with what: each workload is a measure and its contestants, in the order of the page.

Every contestant gets as many tasks as keep it busy for some seconds. That is fair as long as the cost of a task does
not depend on how many wait, which the workloads of the family `shape` look into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import measures
from measures import Contestant

if TYPE_CHECKING:
    from collections.abc import Callable

OURS = "Celeriac"
THEIRS = "Celery 5.7.0"


class Workload(NamedTuple):
    """One table row, or several: what is done, by whom, and who is the measure of the others."""

    name: str
    #: for the page
    about: str
    measure: Callable[[measures.Run], measures.Measures]
    contestants: list[Contestant]
    #: `celery`: against Celery only; `peers`: against everyone; `shape`: ours against ours
    family: str = "celery"
    #: label of the contestant whose numbers the others are divided by
    reference: str = THEIRS
    #: runs of each contestant, unless the command line says otherwise
    rounds: int = 5


def pair(
    ours: tuple[str, int], theirs: tuple[str, int], task: str = "noop", options: dict[str, Any] | None = None
) -> list[Contestant]:
    """Celeriac and Celery, each with its broker and its number of tasks."""
    return [
        Contestant(OURS, "celeriac", *ours, task=task),
        Contestant(THEIRS, "celery", *theirs, task=task, options=options or {}),
    ]


def everyone(task: str, tasks: dict[str, int], options: dict[str, Any] | None = None) -> list[Contestant]:
    """Each system on the broker that it is mostly used with; those on PostgreSQL are there for scale."""
    brokers = {"procrastinate": "postgres", "pgqueuer": "postgres"}
    labels = {"celeriac": OURS, "celery": THEIRS}
    return [
        Contestant(labels.get(name, name), name, brokers.get(name, "redis"), count, task=task, options=options or {})
        for name, count in tasks.items()
    ]


AGAINST_CELERY = [
    Workload(
        "drain-redis",
        "drain a full queue, Redis",
        measures.drain,
        pair(("redis", 50_000), ("redis", 2_500)),
    ),
    Workload(
        "drain-redis-results",
        "the same, results stored",
        measures.drain,
        pair(("redis", 40_000), ("redis", 1_500), "add"),
    ),
    Workload(
        "drain-rabbitmq",
        "drain, RabbitMQ (classic queue, durable)",
        measures.drain,
        pair(("rabbitmq", 25_000), ("rabbitmq", 3_500)),
    ),
    Workload(
        "drain-sqlite-results",
        "drain with results, SQLite; Celery on Redis",
        measures.drain,
        pair(("sqlite", 30_000), ("redis", 1_500), "add"),
    ),
    Workload(
        "send-redis",
        "send one by one, Redis",
        measures.send,
        pair(("redis", 10_000), ("redis", 2_000)),
    ),
    Workload(
        "send-rabbitmq",
        "send one by one, RabbitMQ (unconfirmed)",
        measures.send,
        pair(("rabbitmq", 10_000), ("rabbitmq", 2_000)),
    ),
    Workload(
        "send-sqlite",
        "send one by one, SQLite; Celery on Redis",
        measures.send,
        pair(("sqlite", 10_000), ("redis", 2_000)),
    ),
    Workload(
        "bulk-redis",
        "send many in one call, Redis; Celery by a group",
        measures.bulk,
        pair(("redis", 50_000), ("redis", 2_000)),
    ),
    Workload(
        "bulk-rabbitmq",
        "send many in one call, RabbitMQ; Celery by a group",
        measures.bulk,
        pair(("rabbitmq", 50_000), ("rabbitmq", 2_000)),
    ),
    Workload(
        "bulk-sqlite",
        "send many in one call, SQLite; Celery by a group on Redis",
        measures.bulk,
        pair(("sqlite", 50_000), ("redis", 2_000)),
    ),
    Workload(
        "roundtrip-redis",
        "send and get, one at a time, Redis",
        measures.roundtrip,
        pair(("redis", 1_000), ("redis", 300), "add"),
    ),
    Workload(
        "roundtrip-rabbitmq",
        "send and get, one at a time, RabbitMQ and rpc",
        measures.roundtrip,
        pair(("rabbitmq", 1_000), ("rabbitmq", 300), "add"),
    ),
    Workload(
        "roundtrip-sqlite",
        "send and get, one at a time, SQLite; Celery on Redis",
        measures.roundtrip,
        pair(("sqlite", 1_000), ("redis", 300), "add"),
    ),
    Workload(
        "async-redis",
        "tasks that sleep 20 ms, 500 at once, Redis; Celery with gevent",
        measures.drain,
        pair(("redis", 20_000), ("redis", 1_500), "nap", {"pool": "gevent"}),
    ),
    Workload(
        "large-redis",
        "tasks with an argument of 100 KB, Redis",
        measures.drain,
        pair(("redis", 6_000), ("redis", 1_000), "swallow"),
    ),
    Workload(
        "idle-2",
        "an idle worker with 2 children, Redis",
        measures.idle,
        pair(("redis", 1), ("redis", 1)),
    ),
    Workload(
        "idle-8",
        "an idle worker with 8 children, Redis",
        measures.idle,
        [contestant._replace(children=8) for contestant in pair(("redis", 1), ("redis", 1))],
    ),
    Workload(
        "starting",
        "import and first application; the first task sent, Redis",
        measures.starting,
        pair(("redis", 1), ("redis", 1)),
    ),
]

AGAINST_EVERYONE = [
    Workload(
        "peers-drain",
        "drain a full queue",
        measures.drain,
        everyone(
            "noop",
            {
                "celeriac": 60_000,
                "celery": 4_000,
                "dramatiq": 6_000,
                "huey": 10_000,
                "rq": 2_000,
                "taskiq": 10_000,
                "arq": 4_000,
                "saq": 4_000,
                "procrastinate": 2_000,
                "pgqueuer": 30_000,
            },
        ),
        "peers",
    ),
    Workload(
        "peers-results",
        "drain a full queue, results stored",
        measures.drain,
        everyone(
            "add",
            {
                "celeriac": 40_000,
                "celery": 2_500,
                "dramatiq": 4_000,
                "huey": 8_000,
                "rq": 2_000,
                "taskiq": 8_000,
                "arq": 3_000,
                "saq": 4_000,
            },
            {"results": True},
        ),
        "peers",
    ),
    Workload(
        "peers-rabbitmq",
        "drain a full queue, RabbitMQ",
        measures.drain,
        [
            *pair(("rabbitmq", 30_000), ("rabbitmq", 6_000)),
            Contestant("dramatiq", "dramatiq", "rabbitmq", 6_000),
            Contestant("taskiq", "taskiq", "rabbitmq", 4_000),
        ],
        "peers",
    ),
    Workload(
        "peers-send",
        "send one by one",
        measures.send,
        everyone(
            "noop",
            {
                "celeriac": 10_000,
                "celery": 3_000,
                "dramatiq": 5_000,
                "huey": 8_000,
                "rq": 2_000,
                "taskiq": 5_000,
                "arq": 3_000,
                "saq": 3_000,
                "procrastinate": 2_000,
                "pgqueuer": 3_000,
            },
        ),
        "peers",
    ),
    Workload(
        "peers-bulk",
        "send many in one call, where there is such a call",
        measures.bulk,
        everyone(
            "noop", {"celeriac": 50_000, "celery": 3_000, "rq": 6_000, "procrastinate": 10_000, "pgqueuer": 50_000}
        ),
        "peers",
    ),
    Workload(
        "peers-roundtrip",
        "send and get, one at a time",
        measures.roundtrip,
        everyone(
            "add",
            {
                "celeriac": 1_000,
                "celery": 500,
                "dramatiq": 300,
                "huey": 500,
                "rq": 300,
                "taskiq": 500,
                "arq": 300,
                "saq": 500,
            },
            {"results": True, "notify": True},
        ),
        "peers",
    ),
    Workload(
        "peers-async",
        "tasks that sleep 20 ms, 500 at once; Celery with gevent",
        measures.drain,
        everyone(
            "nap",
            {
                "celeriac": 20_000,
                "celery": 3_000,
                "dramatiq": 4_000,
                "taskiq": 8_000,
                "arq": 4_000,
                "saq": 4_000,
                "procrastinate": 2_000,
                "pgqueuer": 10_000,
            },
            {"naps": True},
        ),
        "peers",
    ),
    Workload(
        "peers-large",
        "tasks with an argument of 100 KB",
        measures.drain,
        everyone(
            "swallow",
            {
                "celeriac": 6_000,
                "celery": 1_000,
                "dramatiq": 1_500,
                "huey": 2_000,
                "rq": 1_000,
                "taskiq": 1_500,
                "arq": 1_500,
                "saq": 1_500,
                "procrastinate": 500,
                # Two batches of 500 are claimed before the clock starts: of 2,000 tasks that was half.
                "pgqueuer": 10_000,
            },
        ),
        "peers",
    ),
    Workload(
        "peers-sqlite",
        "drain with results, SQLite, no server; Celery on Redis",
        measures.drain,
        [
            *pair(("sqlite", 30_000), ("redis", 2_500), "add"),
            Contestant("huey", "huey", "sqlite", 2_000, task="add"),
        ],
        "peers",
    ),
    Workload(
        "peers-idle",
        "an idle worker with 2 processes for tasks",
        measures.idle,
        everyone("noop", dict.fromkeys(measures.SYSTEMS, 1)),
        "peers",
    ),
    Workload(
        "peers-starting",
        "import and first application; the first task sent",
        measures.starting,
        everyone("noop", dict.fromkeys(measures.SYSTEMS, 1)),
        "peers",
    ),
]
# Celery naps in gevent's pool.
AGAINST_EVERYONE = [
    workload._replace(
        contestants=[
            each._replace(options={"pool": "gevent"}) if each.system == "celery" and each.task == "nap" else each
            for each in workload.contestants
        ]
    )
    for workload in AGAINST_EVERYONE
]


def waiting(broker: str, sizes: list[int]) -> list[Contestant]:
    """The same stretch of work from queues of different lengths."""
    return [Contestant(f"{size:,} waiting", "celeriac", broker, size, enough=min(sizes)) for size in sizes]


def variant(label: str, task: str = "noop", **options: Any) -> Contestant:
    """The plain drain with something asked for beside."""
    return Contestant(label, "celeriac", "redis", 40_000, task=task, options=options)


SHAPE = [
    *(
        Workload(
            f"waiting-{broker}",
            f"10,000 tasks of a queue, by its length, {name}",
            measures.drain,
            waiting(broker, [10_000, 100_000, 1_000_000]),
            "shape",
            "10,000 waiting",
            # A million takes a minute or more to send.
            rounds=3,
        )
        for broker, name in (("redis", "Redis"), ("rabbitmq", "RabbitMQ"), ("sqlite", "SQLite"))
    ),
    Workload(
        "children",
        "drain, Redis, by the number of children",
        measures.drain,
        [
            Contestant(f"{number} of them", "celeriac", "redis", 40_000, children=number)
            for number in (1, 2, 4, 8)
        ],
        "shape",
        "1 of them",
    ),
    Workload(
        "costs",
        "drain, Redis, with something asked for beside",
        measures.drain,
        [
            variant("plain"),
            variant("late acknowledgement", task_acks_late=True),
            variant("priorities", priority=True),
            variant("results", "add"),
            # variant("events", events=True) joins when workers send them.
        ],
        "shape",
        "plain",
    ),
]

NESTED = "Celery 5.7.0, 20 of 20"
GROUP = "group of 100,000 with results"


def parts(broker: str, *more: Contestant) -> list[Contestant]:
    """Chords of several sizes, beside the same tasks without a body."""
    sizes = (1_000, 10_000, 100_000)
    return [
        Contestant(GROUP, "celeriac", broker, sizes[-1], task="results"),
        *(Contestant(f"chord of {size:,}", "celeriac", broker, size, task="chord") for size in sizes),
        *more,
    ]


FLOWS = [
    Workload(
        "group-redis",
        "a group from a generator, Redis",
        measures.flow,
        pair(("redis", 100_000), ("redis", 5_000), "group"),
        "canvas",
    ),
    Workload(
        "chain-redis",
        "a chain of 1,000, Redis",
        measures.flow,
        pair(("redis", 1_000), ("redis", 1_000), "chain"),
        "canvas",
        rounds=3,
    ),
    Workload(
        "nested-redis",
        "chains of as many groups of as many, Redis",
        measures.flow,
        [
            Contestant("Celeriac, 20 of 20", "celeriac", "redis", 20, task="nested"),
            Contestant("Celeriac, 50 of 50", "celeriac", "redis", 50, task="nested"),
            # 20 of 20 take it 40 s on a busy machine: 50 of 50 are left out.
            Contestant(NESTED, "celery", "redis", 20, task="nested"),
        ],
        "canvas",
        NESTED,
        rounds=3,
    ),
    Workload(
        "chord-redis",
        "chords with all their parts in the queue, Redis",
        measures.drain,
        parts(
            "redis",
            Contestant("Celery 5.7.0, group of 1,000 with results", "celery", "redis", 1_000, task="results"),
            Contestant("Celery 5.7.0, chord of 1,000", "celery", "redis", 1_000, task="chord"),
        ),
        "canvas",
        GROUP,
    ),
    Workload(
        "chord-sqlite",
        "chords with all their parts in the queue, SQLite",
        measures.drain,
        parts("sqlite"),
        "canvas",
        GROUP,
    ),
]

WORKLOADS = {workload.name: workload for workload in [*AGAINST_CELERY, *FLOWS, *AGAINST_EVERYONE, *SHAPE]}
