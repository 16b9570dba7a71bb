"""Attacks on a server, and what an honest client notices of them: `python -m benchmarks.attacks`. docs/security.md has the
figures.

    __main__.py    one attack after the other, each on a server of its own; a table
    witness.py     the honest: a subscriber, and clients that connect; and the server's memory and sockets
    attacker.py    the process that attacks
    strangers.py   attacks by clients without a token
    members.py     attacks by users who are let in, and by a webhook's receiver
    policies.sql   the rooms of these users
"""
