"""`python -m insforge_realtime` is the command `insforge-realtime`."""

from insforge_realtime.cli.main import main

main()
