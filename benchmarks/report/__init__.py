"""What was measured, as a table: `python -m benchmarks.report`. Nothing is judged here: each row has judged itself.

__main__.py   the command
results.py    the rows, read from what run.py wrote
table.py      Markdown: the table, and the page with what it was measured on
plots.py      the pictures; here, and only here, is matplotlib used
"""
