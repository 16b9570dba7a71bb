-- An application's table whose changes are published, and the policy that lets clients publish, too.

CREATE TABLE soak_orders (id integer PRIMARY KEY, room text NOT NULL, n integer NOT NULL DEFAULT 0);

CREATE FUNCTION soak_order_changed() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM realtime.publish(NEW.room, 'changed', jsonb_build_object('w', 0, 'n', NEW.n, 'text', repeat('x', 60)));
    RETURN NULL;
END
$$;

CREATE TRIGGER soak_order_changed AFTER UPDATE ON soak_orders FOR EACH ROW EXECUTE FUNCTION soak_order_changed();

CREATE POLICY soak ON realtime.messages FOR INSERT TO authenticated WITH CHECK (true);
