"""What brings packets to clients and back: a WebSocket of our own, one of any ASGI server, or HTTP long-polling."""
