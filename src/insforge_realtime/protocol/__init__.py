"""Engine.IO 4 and Socket.IO 5 without I/O: bytes and text in, events and text out.

Knows nothing of channels, users or PostgreSQL, opens nothing, waits for nothing, reads no clock (`now` is an argument).
"""
