"""The soak: ten minutes of mixed traffic with 2 000 clients, sampled. `make soak`, or `python -m benchmarks.soak`.

__main__.py     the processes, the samples, what is printed
traffic.py      what is published from SQL, and the witnesses that latencies are taken with
population.py   the clients, in a process of their own
ledger.py       whether what a client got is what it should have got
summary.py      whether the samples are flat
tables.sql      the application's table
"""
