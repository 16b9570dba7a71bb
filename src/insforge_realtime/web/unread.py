"""How much of what was written to a socket its client has yet to take, the kernel's part included."""

from __future__ import annotations

import asyncio
import fcntl
import sys
import termios


def unread_bytes(transport: asyncio.Transport) -> int:
    """Return what the client has yet to take, in bytes; 0 once the rest is the kernel's alone.

    The kernel's part counts: it takes more only when a third of its buffer is free, which with a slow client takes minutes.
    """
    ours = transport.get_write_buffer_size()
    return ours and ours + _kernels(transport)


def _kernels(transport: asyncio.Transport) -> int:
    """Return what the kernel has of it; 0 where it does not tell."""
    try:
        told = fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, AttributeError):
        return 0
    return int.from_bytes(told, sys.byteorder)
