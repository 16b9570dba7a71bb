-- What clients, and Python code, ask for: to subscribe, and to publish. For pg/authorizer.py and pg/publishers.py; the judging and
-- inserting itself is in ../judges.sql. Policies and triggers run under the session's search_path, so all names are qualified.

-- name: check_subscribe
-- Judge many subscribe requests under row-level security in one round trip.
SELECT realtime.check_subscribe($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[]);

-- name: publish_as
-- Insert many clients' messages, each under the INSERT policies of its own role.
SELECT realtime.publish_as($1::pg_catalog.text[], $2::pg_catalog.text[], $3::pg_catalog.text[], $4::pg_catalog.text[], $5::pg_catalog.text[]);

-- name: publish_lists
-- Publish lists of messages as the system, each as a whole or not at all.
SELECT realtime.publish_lists($1::int[], $2::pg_catalog.text[], $3::pg_catalog.text[], $4::pg_catalog.text[]);
