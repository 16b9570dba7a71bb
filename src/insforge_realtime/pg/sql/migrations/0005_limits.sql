-- How large an event may be, and how long a name. How a migration is written is told in 0001_tables.sql.

--: stop: a table realtime.limits exists that is not ours
--? EXISTS (SELECT FROM pg_class c WHERE c.oid = to_regclass('realtime.limits') AND (SELECT count(*) FROM pg_attribute a WHERE a.attrelid = c.oid AND a.attname IN ('one_row', 'max_event_bytes', 'max_name_bytes')) < 3)
DO $$ BEGIN RAISE 'realtime.limits lacks columns this server needs: rename or drop it'; END $$;

-- Functions read it only for what is beyond the least that a limit may be, so hardly ever.
--: create the table realtime.limits, of one row
--? to_regclass('realtime.limits') IS NULL
--! GRANT USAGE, CREATE ON SCHEMA realtime TO {user}
CREATE TABLE realtime.limits (
    one_row         boolean PRIMARY KEY DEFAULT true CHECK (one_row),
    max_event_bytes integer NOT NULL DEFAULT 4194304 CHECK (max_event_bytes BETWEEN 4194304 AND 67108864),
    max_name_bytes  integer NOT NULL DEFAULT 255 CHECK (max_name_bytes BETWEEN 255 AND 4096)
);
INSERT INTO realtime.limits DEFAULT VALUES;
ALTER TABLE realtime.limits ENABLE ROW LEVEL SECURITY;
REVOKE ALL ON realtime.limits FROM PUBLIC, anon, authenticated;

-- The same results, so the index that holds them stays: only the quotes are others, in which a backslash is a backslash.
--: make realtime.literal_prefix() independent of standard_conforming_strings
--? NOT EXISTS (SELECT FROM pg_proc WHERE oid = to_regprocedure('realtime.literal_prefix(text)') AND strpos(prosrc, '$q$') > 0)
--! ALTER FUNCTION realtime.literal_prefix(text) OWNER TO {user}
CREATE OR REPLACE FUNCTION realtime.literal_prefix(p_pattern text)
RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS $$
BEGIN
    RETURN pg_catalog.substring(p_pattern, $q$^[^%_\\]*$q$);
END
$$;
