"""Joins standard input and output to a Unix socket: ``relay.py SOCKET``. Ends with either side."""

import os
import select
import socket
import sys


def main(path):
    """Carry bytes both ways until one side ends."""
    there = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        there.connect(path)
    except OSError as error:
        sys.exit(f"{path}: {error.strerror}")
    here = sys.stdin.fileno()
    while True:
        ready, _, _ = select.select([here, there.fileno()], [], [])
        if here in ready:
            part = os.read(here, 65536)
            if not part:
                return
            there.sendall(part)
        if there.fileno() in ready:
            part = there.recv(65536)
            if not part:
                return
            while part:
                part = part[os.write(1, part) :]


if __name__ == "__main__":
    main(sys.argv[1])
