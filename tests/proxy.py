"""A proxy before a server, that does what networks do: it refuses, waits, cuts off, changes."""

import contextlib
import socket
import threading
from collections.abc import Callable


class Proxy:
    """Hands bytes on between a client and a server, except for what the fault in force does to them."""

    def __init__(self, port: int) -> None:
        self.server_port = port
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.connections = 0
        self.request: Callable[[bytes], bytes] = lambda data: data
        self.answer: Callable[[int, bytes], bytes | None] = lambda position, data: data  # None: hang up
        self.canned: bytes | None = None  # what is answered without asking the server; b"": nothing, ever
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        if self.canned is not None:
            client.recv(1 << 16)
            if self.canned:
                client.sendall(self.canned)
                client.close()
            return
        server = socket.create_connection(("127.0.0.1", self.server_port))
        threading.Thread(target=self._forward, args=(client, server), daemon=True).start()
        position = 0
        with contextlib.suppress(OSError):
            while data := server.recv(1 << 16):
                changed = self.answer(position, data)
                if changed is None:
                    break
                client.sendall(changed)
                position += len(data)
        for end in (client, server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _forward(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(1 << 16):
                server.sendall(self.request(data))
