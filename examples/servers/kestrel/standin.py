"""A stand-in for Kestrel where there is no .NET.

It decides exactly as KestrelServerOptionsSystemdExtensions.UseSystemd() of ASP.NET Core does whether it was given
sockets, listens on them once more, as Kestrel does, and otherwise binds what ASPNETCORE_URLS says, "localhost" as both
loopbacks. On SIGTERM it accepts no more, closes idle connections and waits for the others, at most 30 seconds.
"""

import asyncio
import os
import re
import signal
import socket
from urllib.parse import urlsplit

FIRST = 3
INT_MAX = 2**31 - 1
BACKLOG = 512


def given():
    """The descriptors, as UseSystemd() finds them: the exact text of the pid, and digits only."""
    if os.environ.get("LISTEN_PID") != str(os.getpid()):
        return []
    text = os.environ.get("LISTEN_FDS", "")
    if not re.fullmatch("[0-9]+", text, re.ASCII) or not 0 < int(text) <= INT_MAX - FIRST:
        return []
    return range(FIRST, FIRST + int(text))


def bound():
    """Sockets for ASPNETCORE_URLS."""
    for url in os.environ.get("ASPNETCORE_URLS", "http://localhost:5000").split(";"):
        parts = urlsplit(url)
        hosts = {"localhost": ["127.0.0.1", "::1"], "*": ["::"], "+": ["::"]}.get(parts.hostname, [parts.hostname])
        for host in hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            try:
                s = socket.socket(family, socket.SOCK_STREAM)
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                s.bind((host, parts.port or 80))
            except OSError:
                if host != "::1":  # an unusable IPv6 loopback is a warning
                    raise
                continue
            yield s


class Server:
    def __init__(self):
        self.stopping = asyncio.Event()
        self.clients = {}

    async def serve(self, reader, writer):
        task = asyncio.current_task()
        self.clients[task] = True  # idle
        try:
            while not self.stopping.is_set():
                head = await reader.readuntil(b"\r\n\r\n")
                self.clients[task] = False
                close = self.stopping.is_set() or b"connection: close" in head.lower()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n" + b"Connection: close\r\n" * close + b"\r\nhello\n")
                await writer.drain()
                self.clients[task] = True
                if close:
                    break
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            del self.clients[task]
            writer.close()

    async def run(self):
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, self.stopping.set)
        sockets = [socket.socket(fileno=fd) for fd in given()] or list(bound())
        servers = [await asyncio.start_server(self.serve, sock=s, backlog=BACKLOG) for s in sockets]
        await self.stopping.wait()
        for server in servers:
            server.close()
        for task, idle in list(self.clients.items()):
            if idle:
                task.cancel()
        if self.clients:
            await asyncio.wait(list(self.clients), timeout=30)


asyncio.run(Server().run())
