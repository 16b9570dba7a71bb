-- What makes many patterns and the audience counters cheap. How a migration is written is told in 0001_tables.sql.

--: create the function realtime.literal_prefix(), by which patterns are indexed
--? to_regprocedure('realtime.literal_prefix(text)') IS NULL
--! GRANT USAGE, CREATE ON SCHEMA realtime TO {user}
-- plpgsql and a high cost, so that the planner neither inlines it nor scans the table with it. It stands here and not in
-- functions.sql because an index holds its results: another definition would need another index. Whoever may insert into
-- realtime.channels needs EXECUTE, and it is a function of its argument only.
CREATE FUNCTION realtime.literal_prefix(p_pattern text) RETURNS text LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE COST 10000 AS $$
BEGIN
    RETURN pg_catalog.substring(p_pattern, '^[^%_\\]*');
END
$$;
GRANT EXECUTE ON FUNCTION realtime.literal_prefix(text) TO PUBLIC;

--: create the index channels_prefix_idx, by which the patterns for a name are found among thousands
--? to_regclass('realtime.channels_prefix_idx') IS NULL
--! ALTER TABLE realtime.channels OWNER TO {user}
CREATE INDEX channels_prefix_idx ON realtime.channels (realtime.literal_prefix(pattern) COLLATE "C")
    WHERE enabled AND pattern ~ '[%_\\]';

-- A count that is written to a full page makes a copy of the row elsewhere and an entry in every index. In half a page there is
-- room for the copies of all its rows.
--: leave half of each new page of realtime.messages free, so that every counter is updated in place
--? NOT EXISTS (SELECT FROM pg_class WHERE oid = to_regclass('realtime.messages') AND reloptions::text ~ 'fillfactor' AND reloptions::text !~ 'fillfactor=85\M')
ALTER TABLE realtime.messages SET (fillfactor = 50);
