"""A TCP proxy in front of a server, which loses replies, delays them, or cuts connections."""

from __future__ import annotations

import contextlib
import enum
import socket
import threading
import time
from typing import Self


class Fault(enum.Enum):
    """What happens to a reply."""

    NONE = enum.auto()
    CUT = enum.auto()
    """The connection is closed instead."""
    HOLD = enum.auto()
    """It is not delivered; the connection stays open."""
    DELAY = enum.auto()
    """It is delivered after a tenth of a second."""


class Proxy:
    """Forwards connections to a port of this machine. A context manager; `port` is where clients connect.

    Clients send a request and wait for its reply, so what comes from the server at once is one reply.
    """

    def __init__(self, server_port: int) -> None:
        """Listen on a free port."""
        self._server_port = server_port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self._fault, self._request, self._remaining = Fault.NONE, b"", 0
        self._lock = threading.Lock()
        self._is_closed, self._cuts = False, 0
        self.port: int = self._listener.getsockname()[1]
        self.lost = 0
        """How many replies have not been delivered."""

    def __enter__(self) -> Self:
        """Begin to forward."""
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        """Close everything."""
        self.close()

    def close(self) -> None:
        """Close all connections, and accept no more."""
        self._is_closed = True
        self._close(self._listener)
        self.cut_all()

    def disturb(self, fault: Fault, request: str, replies: int = 1) -> None:
        """Let a fault happen to the replies to the next requests that contain this text."""
        with self._lock:
            self._fault, self._request, self._remaining = fault, request.encode(), replies

    def redirect(self, server_port: int) -> None:
        """Close all connections, and forward new ones to another server, as after a failover."""
        self._server_port = server_port
        self.cut_all()

    def cut_all(self) -> None:
        """Close all connections."""
        with self._lock:
            self._cuts += 1
            connections, self._sockets[1:] = self._sockets[1:], []
        for connection in connections:
            self._close(connection)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                cuts = self._cuts
                try:
                    server = socket.create_connection(("127.0.0.1", self._server_port))
                except OSError:
                    client.close()
                    continue
                with self._lock:
                    was_cut = self._is_closed or cuts != self._cuts
                    if not was_cut:
                        self._sockets += (client, server)
                if was_cut:
                    self._close(client)
                    self._close(server)
                    continue
                faults: list[Fault] = []
                for forward in (self._forward_requests, self._forward_replies):
                    threading.Thread(target=forward, args=(client, server, faults), daemon=True).start()

    def _forward_requests(self, client: socket.socket, server: socket.socket, faults: list[Fault]) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65536):
                with self._lock:
                    if self._remaining and self._request in data:
                        self._remaining -= 1
                        faults.append(self._fault)
                server.sendall(data)
        self._close(client)
        self._close(server)

    def _forward_replies(self, client: socket.socket, server: socket.socket, faults: list[Fault]) -> None:
        with contextlib.suppress(OSError):
            while data := server.recv(65536):
                fault = faults.pop() if faults else Fault.NONE
                self.lost += fault in {Fault.CUT, Fault.HOLD}
                if fault is Fault.CUT:
                    break
                if fault is Fault.DELAY:
                    time.sleep(0.1)
                if fault is not Fault.HOLD:
                    client.sendall(data)
        self._close(client)
        self._close(server)

    @staticmethod
    def _close(connection: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection.shutdown(socket.SHUT_RDWR)
        connection.close()
