"""A way to a server that a test can cut, or let fall silent, as networks do. It runs in a thread of the test.

*Cut*: every connection ends at both sides. *Close*: so does each that is made later. *Hush*: what is open stays open
and carries nothing any more, for good; connections made later work. The server and its clients see the same: only a
missing answer tells them. *Slow*: what clients send arrives at a rate. *Hold*: over each connection, what the
server says waits from a certain word on.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading

_CHUNK = 65_536


class Proxy:
    """Carries bytes between a loopback port of its own and another; usable as a context manager.

    Args:
        target: the port to carry to.
    """

    def __init__(self, target):
        self.target = target
        self.port = 0
        #: How many pieces were carried to the server, and from it: writes, where one waits for the other.
        self.sent = self.received = 0
        self._ready = threading.Event()
        self._roads = set()
        self._silent = set()
        self._rate = None
        self._closed = False
        self._word = None
        #: Over so many connections the word was said, and is not carried on.
        self.holds = 0
        self._carriers = set()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def __enter__(self):
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *exc_info):
        self._loop.call_soon_threadsafe(self._end.set)
        self._thread.join(10)

    def cut(self):
        """End every connection at once; how many there were."""
        return self._on_loop(self._cut)

    def hush(self):
        """Let every open connection fall silent; how many there were."""
        return self._on_loop(self._hush)

    def close(self):
        """End every connection, and let nobody through any more, until `reopen`."""
        self._closed = True
        return self.cut()

    def reopen(self):
        """Let through who comes now."""
        self._closed = False

    def slow(self, rate):
        """Carry so many bytes a second to the server, over each connection; None: as many as come."""
        self._rate = rate

    def hold(self, word):
        """Carry nothing more of what the server says over the connections over which it says this, until `let_go`."""
        self._on_loop(self._let_go.clear)
        self._word = word

    def let_go(self):
        """Carry on what was held."""
        self._word = None
        self._on_loop(self._let_go.set)

    # -- on the loop

    async def _run(self):
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        self._let_go = asyncio.Event()
        server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._end.wait()
        server.close()
        for ends in self._roads | self._silent:
            _abort(ends)
        await asyncio.gather(*self._carriers)

    async def _carry(self, reader, writer):
        self._carriers.add(carrier := asyncio.current_task())
        carrier.add_done_callback(self._carriers.discard)
        try:
            if self._closed:
                raise ConnectionRefusedError
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.close()
            return
        ends = (writer, far_writer)
        self._roads.add(ends)
        one, other = self._pass_on(reader, far_writer, ends), self._pass_on(far_reader, writer, ends)
        with contextlib.suppress(OSError):
            await asyncio.gather(one, other)
        if ends not in self._silent:
            self._roads.discard(ends)
            _abort(ends)

    async def _pass_on(self, reader, writer, ends):
        """Carry in one direction until somebody hangs up."""
        while data := await reader.read(_CHUNK):
            if self._word and writer is ends[0] and self._word in data:
                self.holds += 1
                await self._let_go.wait()
            if ends not in self._silent:
                self.sent += writer is ends[1]
                self.received += writer is ends[0]
                if self._rate is not None and writer is ends[1]:
                    await asyncio.sleep(len(data) / self._rate)
                writer.write(data)
                await writer.drain()
        if ends not in self._silent:
            raise ConnectionResetError

    def _on_loop(self, act):
        async def call():
            return act()

        return asyncio.run_coroutine_threadsafe(call(), self._loop).result(10)

    def _cut(self):
        count = len(self._roads)
        for ends in self._roads:
            _abort(ends)
        self._roads.clear()
        return count

    def _hush(self):
        count = len(self._roads)
        self._silent |= self._roads
        self._roads.clear()
        return count


def _abort(ends):
    for writer in ends:
        writer.transport.abort()
