"""One module for each task queue, run by an interpreter that has it; `adapter.py` talks to them all alike.

What a module has
    ``WAITS``: whether its calls need an event loop; where they do not, its coroutines never wait.
    ``async start()``: connect, make tables; returns nothing.
    ``async send(task, *args)``: one task by the ordinary call; a handle.
    ``async send_many(task, args, count)``: the same many times by the call made for that; left out where there is none.
    ``async result(handle)``: wait for its result, 10 s at most; left out where results are not stored.
    ``async call(task, *args)``: both in one, where the system has its own way for that.
    ``key(handle)``, ``handle(key)``: a handle as text and back.
    ``workers(children)``: the commands that run side by side and have so many processes for tasks between them.
The tasks
    ``noop()``, result not stored; ``add(x, y)``, stored; ``swallow(data)``, not stored; ``nap()`` sleeps 20 ms without
    keeping its process busy. Each notes its own completion in the ledger.
Settings
    Those that the system's own documentation recommends for throughput, named at the top of its module. Where it leaves
    the choice open, what was fastest here for a task that does nothing.
"""
