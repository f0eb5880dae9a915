"""Chords whose senders have died, as a worker finds them."""

from __future__ import annotations

import asyncio
import json

from celery import Celery
from celery.worker.chording import Chording


def test_one_that_cannot_be_read_ends_no_worker_and_keeps_no_other_from_its_end(tmp_path, caplog):
    async def main(app):
        ended, told = [], asyncio.Event()

        def settle(settlements):
            ended.extend(each.closes.part.group_id for each in settlements)
            told.set()

        chords = Chording(app, settle)
        watching = asyncio.create_task(chords.watch())
        await asyncio.wait([watching, asyncio.ensure_future(told.wait())], timeout=5, return_when="FIRST_COMPLETED")
        assert ended == ["whole"]
        assert not watching.done()
        watching.cancel()
        chords.end()

    url = f"sqlite:///{tmp_path / 'results.sqlite'}"
    with Celery("proj", broker="memory://", backend=url, set_as_current=False) as app:
        app.backend.chords.open("unreadable", b'{"task', 0.0)
        body = json.dumps(app.signature("proj.body", task_id="its-id"))
        app.backend.chords.open("whole", body.encode(), 0.0)
        asyncio.run(main(app))
    assert "Chord unreadable, whose sender has died, cannot be failed" in caplog.text
