-- Rooms for the attackers: one whose policy takes its time, and one that is open to everybody.

CREATE FUNCTION public.slow() RETURNS boolean LANGUAGE sql VOLATILE AS 'SELECT pg_sleep(0.3) IS NOT NULL';

INSERT INTO realtime.channels (pattern) VALUES ('slow-%'), ('open-%');

CREATE POLICY slow ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'slow-%' AND public.slow());

CREATE POLICY open ON realtime.channels FOR SELECT TO authenticated USING (pattern = 'open-%');

CREATE POLICY open ON realtime.messages FOR INSERT TO authenticated WITH CHECK (true);
