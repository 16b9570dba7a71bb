-- What holds on every connection: its settings, its limits, how its transactions begin. For pg/dial.py and pg/database.py.

-- name: path_of_our_own
-- For the rest of the transaction, no name means what somebody else has made of it.
SET LOCAL search_path = pg_catalog, pg_temp;

-- name: arrays_that_we_send
-- The types of parameters that asyncpg has to ask the catalog about (see pg/database.py).
SELECT NULL::bigint[] AS a, NULL::int[] AS b, NULL::float8[] AS c;

-- name: settle_session
-- What holds in a session whatever the defaults of the role and the database are: no limit but ours ($1 for statements, $2 for
-- locks, in ms), and what would change the meaning of a statement as PostgreSQL has it. (SET takes no parameters: put in as text.)
SET SESSION statement_timeout = $1; SET SESSION lock_timeout = $2; SET SESSION idle_session_timeout = 0;
SET SESSION idle_in_transaction_session_timeout = '60s'; SET SESSION jit = off; SET SESSION client_min_messages = warning;
SET SESSION standard_conforming_strings = on; SET SESSION row_security = on;
SET SESSION default_transaction_isolation = 'read committed'; SET SESSION default_transaction_deferrable = off;
SET SESSION tcp_keepalives_idle = 30; SET SESSION tcp_keepalives_interval = 10; SET SESSION tcp_keepalives_count = 3;

-- name: settle_session_17
-- The same, what came with PostgreSQL 17.
SET SESSION transaction_timeout = 0;

-- name: settle_writing
-- Let a session write whose role begins read-only.
SET SESSION default_transaction_read_only = off;

-- name: begin
-- Begin a transaction through a pooler, whatever kind the role begins with.
BEGIN ISOLATION LEVEL READ COMMITTED;

-- name: begin_writing
-- The same where that role begins read-only.
BEGIN ISOLATION LEVEL READ COMMITTED, READ WRITE;

-- name: try_out
-- Ask nothing: what the transaction begins with is tried.
SELECT 1;

-- name: settle_transaction
-- As settle_session, for one transaction: behind a pooler a session's settings would be somebody else's next.
SET LOCAL statement_timeout = $1; SET LOCAL lock_timeout = $2; SET LOCAL idle_in_transaction_session_timeout = '60s';
SET LOCAL jit = off; SET LOCAL client_min_messages = warning; SET LOCAL standard_conforming_strings = on;
SET LOCAL row_security = on;

-- name: settle_transaction_17
-- The same, what came with PostgreSQL 17.
SET LOCAL transaction_timeout = 0;

-- name: set_one
-- Set $1 to $2, for the transaction only if $3.
SELECT pg_catalog.set_config($1, $2, $3);

-- name: limit_statements
-- What PostgreSQL gives a statement of this session from now on, in milliseconds. (SET takes no parameters: put in as text.)
SET SESSION statement_timeout = $1;

-- name: limit_statements_here
-- The same for one transaction.
SET LOCAL statement_timeout = $1;

-- name: session_standing
-- Whether this server is a standby; and whether sessions begin read-only, and who says so.
SELECT pg_catalog.pg_is_in_recovery() AS standby, pg_catalog.current_setting('default_transaction_read_only') AS read_only,
       (SELECT source FROM pg_catalog.pg_settings WHERE name OPERATOR(pg_catalog.=) 'default_transaction_read_only') AS source;
