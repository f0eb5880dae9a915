"""Values of one thread, and threads of the background (API-046)."""

import asyncio
import threading

from celery.utils.threads import Local, LocalManager, LocalStack, bgThread


def test_a_stack_belongs_to_its_thread():
    stack, seen = LocalStack(), []
    stack.push("main")
    thread = threading.Thread(target=lambda: seen.append(stack.top))
    thread.start()
    thread.join(10)
    assert seen == [None]
    assert stack.stack == ["main"]
    assert stack.pop() == "main"
    assert stack.pop() is None
    assert len(stack) == 0


def test_coroutines_that_run_together_do_not_disturb_each_other():
    stack = LocalStack()

    async def run(name, met):
        stack.push(name)
        await met.wait()
        return stack.pop()

    async def main():
        met = asyncio.Barrier(2)
        return await asyncio.gather(run("a", met), run("b", met))

    assert asyncio.run(main()) == ["a", "b"]


def test_a_manager_forgets_what_a_thread_has():
    local = Local()
    local.x = 1
    assert dict(local) == {"x": 1}
    LocalManager(local).cleanup()
    assert not hasattr(local, "x")


def test_a_background_thread_works_until_stopped():
    worked = threading.Event()

    class Worker(bgThread):
        def body(self):
            worked.set()
            self._stop_requested.wait(0.01)

    worker = Worker()
    worker.start()
    assert worked.wait(10)
    worker.stop()
    assert not worker.is_alive()
