"""The command line: main.py puts the commands together.

main.py       the entry point, and dev, serve, migrate, token, check: arguments, exit statuses, what is printed
client.py     tail and publish
webhooks.py   the group `webhooks`
options.py    what several of them share
dev.py        what dev does, in order; welcome.py: what it prints
serve.py      what serve does: a server that is this process
terminal.py   printing what strangers wrote
"""
