"""The load generators. Each runs as a process of its own, so that what it computes is not the server's nor the run's.

launch.py             starts them
crowd.py              subscribers by the thousand: raw sockets that count frames and decode nothing
callers.py            clients that publish and subscribe, and take the time
ticks.py              messages at fixed times, and how long each took: what callers.py measures with
tally.py              whether anything was lost, doubled or out of order
webhook_receiver.py   the other end of webhooks
clients.py            Socket.IO clients that understand what they get, over WebSocket and over polling
wire.py               the bytes that all of these send and read
identities.py         users, tokens and channels
"""
