"""The other processes of a run, for reading rows that lie on their disks.

Every process hands out rows of its own files from a thread, to the processes of its run alone: who
connects must know a key that was drawn for this run and told to its processes only. Rows travel
unencrypted, as gradients do.
"""

__all__ = ["Peers"]

import secrets
import socket
import threading
from collections.abc import Callable, Sequence
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from typing import Any

import numpy as np

from jaxlin.core import DataError
from jaxlin.distributed.processes import gather_results
from jaxlin.transfer import aligned

REQUEST_BYTES = 8 << 20
"""About how much one answer holds."""
SECONDS_TO_CONNECT = 10.0


class Peers:
    """Connections from this process to all others of its run; all have to make one at once.

    Args:
      number: of this process.
      gather: the JSON values of all processes, on all.
      names: host names or addresses under which others may reach this process, best first.

    Raises:
      DataError: on every process: one of them cannot be reached from another.
    """

    def __init__(self, number: int, gather: Callable[[Any], list], names: Sequence[str]):
        self.number, self._gather = number, gather
        self._served: list = []
        self._key = secrets.token_bytes(32)
        self._server = socket.create_server(("", 0), backlog=128)
        threading.Thread(target=self._accept, daemon=True, name="jaxlin-peers").start()
        port = self._server.getsockname()[1]
        found = gather({"names": list(names), "port": port, "key": self._key.hex()})
        self._connections: dict[int, Connection] = {}
        self._locks = [threading.Lock() for _ in found]
        self.gather_results(lambda: self._connect(found))

    def gather_results(self, make: Callable[[], Any]) -> list:
        """`jaxlin.distributed.processes.gather_results` of this run."""
        return gather_results(self._gather, make)

    def serve(self, source: Any) -> int:
        """Hand out the rows of a `jaxlin.data.rows.ReadRows`, under the number returned."""
        self._served.append(source)
        return len(self._served) - 1

    def fetch(self, owner: int, number: int, rows: np.ndarray, out: np.ndarray) -> None:
        """Rows (n,) of the source that process `owner` serves under `number`, into `out` (n, D).

        Raises:
          DataError: the owner's, with its number.
          ConnectionError: the owner has gone.
        """
        step = max(1, REQUEST_BYTES // max(1, out.shape[1] * out.itemsize))
        with self._locks[owner]:
            for start in range(0, len(rows), step):
                asked = np.array([number, *rows[start : start + step]], np.int64)
                block = out[start : start + step]
                try:
                    self._connections[owner].send_bytes(asked.data)
                    refused = self._connections[owner].recv_bytes().decode()
                    if not refused:
                        self._connections[owner].recv_bytes_into(block.view(np.uint8).ravel().data)
                except (OSError, EOFError):
                    raise ConnectionError(
                        f"connection closed: process {owner} of this run hands out no more rows."
                    ) from None
                if refused:
                    raise DataError(f"process {owner}: {refused}")

    def _connect(self, found: list[dict]) -> None:
        for owner, other in enumerate(found):
            if owner == self.number:
                continue
            key = bytes.fromhex(other["key"])
            tried = (_reach(name, other["port"], key) for name in other["names"])
            connection = next((made for made in tried if made is not None), None)
            if connection is None:
                raise DataError(
                    f"cannot reach process {owner} at {' or '.join(other['names'])}, port "
                    f"{other['port']}, for rows of its files. Let the hosts of the run connect "
                    "to each other, or give each of them all the files."
                )
            self._connections[owner] = connection

    def _accept(self) -> None:
        while True:
            caller, _ = self._server.accept()
            serve = threading.Thread(target=self._answer, args=(_connection(caller),), daemon=True)
            serve.start()

    def _answer(self, connection: Connection) -> None:
        """Hand out rows to one process until it has gone; nothing to who does not know the key."""
        try:
            deliver_challenge(connection, self._key)
            answer_challenge(connection, self._key)
            while True:
                number, *rows = np.frombuffer(connection.recv_bytes(), np.int64)
                source = self._served[number]
                block = aligned((len(rows), source.shape[1]), source.dtype)
                try:
                    source.read_into(block, [np.array(rows, np.int64)])
                except (DataError, OSError) as error:
                    connection.send_bytes(str(error).encode())
                    continue
                connection.send_bytes(b"")
                connection.send_bytes(block.view(np.uint8).reshape(-1).data)
        except (OSError, EOFError, AuthenticationError):
            pass
        finally:
            connection.close()


def _reach(name: str, port: int, key: bytes) -> Connection | None:
    """A connection to the process that knows this key, if it is the one at this address."""
    try:
        connection = _connection(socket.create_connection((name, port), SECONDS_TO_CONNECT))
    except OSError:
        return None
    try:
        if connection.poll(SECONDS_TO_CONNECT):
            answer_challenge(connection, key)
            deliver_challenge(connection, key)
            return connection
    except (OSError, EOFError, AuthenticationError):
        pass
    connection.close()
    return None


def _connection(socket_: socket.socket) -> Connection:
    socket_.settimeout(None)
    socket_.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    socket_.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    return Connection(socket_.detach())
