"""A TCP relay before a peer: the network, which a test can cut, stop or slow down."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import Enum, auto

_PIECE = 4096
_TREACLE_SECONDS = 0.05  # for each piece


class Weather(Enum):
    """What the network does to connections."""

    FAIR = auto()
    CLOSED = auto()
    """New connections are closed at once, and those that are open too."""
    DROPS = auto()
    """Connections are accepted and closed at the first byte."""
    TREACLE = auto()
    """Bytes crawl."""


@dataclass
class Relay:
    """Listens on ``port`` and relays to the peer behind it, as the weather allows."""

    behind: int
    weather: Weather = Weather.FAIR
    port: int = 0
    _open: list[socket.socket] = field(default_factory=list)

    def turn(self, weather: Weather) -> None:
        """Change the weather; what is open is cut where it is to be."""
        self.weather = weather
        if weather in (Weather.CLOSED, Weather.DROPS):
            for connection in self._open:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def serve(self, listener: socket.socket) -> None:
        """Accept until the listener is closed."""
        while True:
            try:
                caller, _ = listener.accept()
            except OSError:
                return
            if self.weather is Weather.CLOSED:
                caller.close()
                continue
            peer = socket.create_connection(("127.0.0.1", self.behind))
            self._open += [caller, peer]
            for one, other in ((caller, peer), (peer, caller)):
                threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(_PIECE):
                if self.weather in (Weather.CLOSED, Weather.DROPS):
                    break
                if self.weather is Weather.TREACLE:
                    time.sleep(_TREACLE_SECONDS)
                other.sendall(piece)
        for connection in (one, other):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def relay_to(port: int) -> Iterator[Relay]:
    """Stand before the peer on ``port`` for the length of the block."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        relay = Relay(behind=port, port=listener.getsockname()[1])
        threading.Thread(target=relay.serve, args=(listener,), daemon=True).start()
        yield relay
        relay.turn(Weather.CLOSED)
