"""Stand between an SSH client and its server (`ProxyCommand`) and cut the connection after a number of bytes.

    dropping_proxy.py HOST PORT up|down BYTES TIMES close|freeze COUNTER [-- COMMAND …]

Only the first TIMES connections that get so far are cut; COUNTER is a file that counts them. COMMAND, where given,
reaches the server in place of a TCP connection to HOST and PORT.
"""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from pathlib import Path

CHUNK = 65536


def main(arguments: list[str]) -> None:
    """Pass bytes both ways until one side ends or the cut is reached."""
    host, port, direction, limit, times, how, counter = arguments[:7]
    count = Path(counter)
    remaining = int(limit) if int(count.read_text()) < int(times) else sys.maxsize
    with connection(host, int(port), arguments[8:]) as server:
        if not passed(server, direction, remaining):
            return
        count.write_text(str(int(count.read_text()) + 1))
        if how == "freeze":
            hold()


def connection(host: str, port: int, command: list[str]) -> socket.socket:
    """Reach the server by TCP, or through a command's standard input and output."""
    if not command:
        return socket.create_connection((host, port))
    ours, theirs = socket.socketpair()
    subprocess.Popen(command, stdin=theirs.fileno(), stdout=theirs.fileno())
    theirs.close()
    return ours


def passed(server: socket.socket, direction: str, remaining: int) -> bool:
    """Pass bytes both ways; True once `remaining` have gone in the direction, False where a side ended before."""
    while True:
        for source in select.select([0, server.fileno()], [], [])[0]:
            counted = (source == 0) == (direction == "up")
            size = min(CHUNK, remaining) if counted else CHUNK
            data = os.read(0, size) if source == 0 else server.recv(size)
            if not data:
                return False
            send(server, data) if source == 0 else write(data)
            remaining -= len(data) if counted else 0
            if not remaining:
                return True


def send(server: socket.socket, data: bytes) -> None:
    """Send bytes to the server."""
    server.sendall(data)


def write(data: bytes) -> None:
    """Write bytes to the client, whatever its pipe takes at a time."""
    while data:
        data = data[os.write(1, data) :]


def hold() -> None:
    """Keep both connections open without passing anything, until the client is gone."""
    gone = select.poll()
    gone.register(0, 0)
    gone.poll()


if __name__ == "__main__":
    main(sys.argv[1:])
