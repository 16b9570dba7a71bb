-- What no row can stop. How a migration is written is told in 0001_tables.sql.

--: add the column undeliverable to realtime.messages: why a row is passed over, NULL for all others
--? NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('realtime.messages') AND attname = 'undeliverable')
--@ realtime.messages
--! ALTER TABLE realtime.messages OWNER TO {user}
-- Without a default, so nothing is rewritten, and a NULL takes no room.
ALTER TABLE realtime.messages ADD COLUMN undeliverable text;
