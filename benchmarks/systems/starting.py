"""Programs that import a task queue and make an application, and what they go on with to send one task.

Text, run by a fresh interpreter of each system: nothing of the benchmark is imported, and nothing beside what a user of
it would need. ``URL`` stands for the broker's.
"""

from __future__ import annotations

from typing import NamedTuple


class Program(NamedTuple):
    """In two parts, as each is measured."""

    application: str
    send: str


PROGRAMS = {
    "celery_tasks": Program(
        "from celery import Celery\napp = Celery('starting', broker=URL, backend=URL)",
        "@app.task\ndef noop(): pass\nnoop.delay()",
    ),
    "dramatiq_tasks": Program(
        "import dramatiq\nfrom dramatiq.brokers.redis import RedisBroker\ndramatiq.set_broker(RedisBroker(url=URL))",
        "@dramatiq.actor\ndef noop(): pass\nnoop.send()",
    ),
    "huey_tasks": Program(
        "from huey import RedisHuey\nhuey = RedisHuey('starting', url=URL)",
        "@huey.task()\ndef noop(): pass\nnoop()",
    ),
    "rq_tasks": Program(
        "from redis import Redis\nfrom rq import Queue\nqueue = Queue(connection=Redis.from_url(URL))",
        "queue.enqueue('module.noop')",
    ),
    "taskiq_tasks": Program(
        "from taskiq_redis import ListQueueBroker\nbroker = ListQueueBroker(URL)",
        "import asyncio\n@broker.task\nasync def noop(): pass\n"
        "async def main():\n await broker.startup()\n await noop.kiq()\nasyncio.run(main())",
    ),
    "arq_tasks": Program(
        "from arq import create_pool\nfrom arq.connections import RedisSettings\n"
        "settings = RedisSettings.from_dsn(URL)",
        "import asyncio\n"
        "async def main():\n await (await create_pool(settings)).enqueue_job('noop')\nasyncio.run(main())",
    ),
    "saq_tasks": Program(
        "from saq import Queue\nqueue = Queue.from_url(URL)",
        "import asyncio\nasync def main():\n await queue.connect()\n await queue.enqueue('noop')\nasyncio.run(main())",
    ),
    "procrastinate_tasks": Program(
        "from procrastinate import App, PsycopgConnector\napp = App(connector=PsycopgConnector(conninfo=URL))",
        "import asyncio\n@app.task\nasync def noop(): pass\n"
        "async def main():\n async with app.open_async():\n  await noop.defer_async()\nasyncio.run(main())",
    ),
    "pgqueuer_tasks": Program(
        "import asyncpg\nfrom pgqueuer.db import AsyncpgDriver\nfrom pgqueuer.queries import Queries",
        "import asyncio\nasync def main():\n"
        " await Queries(AsyncpgDriver(await asyncpg.connect(URL))).enqueue('noop', None)\nasyncio.run(main())",
    ),
}
