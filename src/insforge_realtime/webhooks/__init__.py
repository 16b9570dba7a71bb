"""Webhooks: each message of a channel with `webhook_urls` is POSTed to each of them, and the outcome is kept.

The queue is a table (pg/deliveries.py). Here is what empties it:

    worker.py    claims what is due, keeps requests in flight up to a limit, records their outcomes
    hosts.py     how many each host may have: fairness between hosts, and the circuit breaker of each
    sender.py    one attempt, and what its answer means
    answer.py    the beginning of an answer, which alone decides
    request.py   what a request contains: headers, signatures; and when a retry is due
    guard.py     which addresses may be connected to
"""
