"""Connections that have not said yet who they are, counted by host: they keep nobody else out."""

import threading
from collections import Counter


class Lobby:
    """Lets at most ``most`` connections of one host wait at a time; each is known by an object of its own."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._hosts: dict[object, str] = {}
        self._lock = threading.Lock()

    def enter(self, connection: object, host: str) -> bool:
        """Let the connection wait; whether there was room for one more of its host."""
        with self._lock:
            if Counter(self._hosts.values())[host] >= self._most:
                return False
            self._hosts[connection] = host
            return True

    def leave(self, connection: object) -> None:
        """The connection has said who it is, or has ended. To be told twice does no harm."""
        with self._lock:
            self._hosts.pop(connection, None)
