"""Webhooks: each message of a channel with `webhook_urls` is POSTed to each of them, and what came of it is kept.

The queue is a table (pg/deliveries.py). Here is what empties it:

    worker.py    claims what is due, keeps so many requests in flight, writes down what came of them
    hosts.py     who may have how many: fairness between hosts, and the circuit breaker of each
    sender.py    one attempt, and what its answer means
    answer.py    the beginning of an answer, which is all that decides
    request.py   what a request says: headers, signatures; and when the answer wants to be asked again
    guard.py     which addresses may be connected to
"""
