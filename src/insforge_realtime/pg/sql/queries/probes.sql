-- What only trying tells. For pg/probes.py; `migrate` and `check` ask it.

-- name: probe_claims
-- Be somebody with the claims $1, in both forms that clients have them in (judges.sql), and with the search_path that sessions
-- begin with, until the end of the transaction.
SELECT set_config('request.jwt.claims', $1::text, true),
       set_config('request.jwt.claim.sub', coalesce(nullif($1, '')::jsonb ->> 'sub', ''), true),
       set_config('request.jwt.claim.role', coalesce(nullif($1, '')::jsonb ->> 'role', ''), true),
       set_config('request.jwt.claim.email', coalesce(nullif($1, '')::jsonb ->> 'email', ''), true),
       set_config(name, reset_val, true)
FROM pg_settings WHERE name = 'search_path';

-- name: probe_uid
-- Who auth.uid() says asks, as the uuid that a message's sender_id is.
SELECT auth.uid()::text::uuid::text;
