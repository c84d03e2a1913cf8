-- Queries on what a database is, not on what it holds.

-- name: look
-- Whether our record is there, and how many tables and the like are in our schema.
SELECT to_regclass(quote_ident($1) || '.lockstep_store') IS NOT NULL,
    (SELECT count(*) FROM pg_class WHERE relnamespace = to_regnamespace(quote_ident($1)))

-- name: find_schema
-- Whether our schema is there; somebody with more rights than we have may have made it.
SELECT to_regnamespace(quote_ident($1)) IS NOT NULL

-- name: name_schema
-- The statement that makes our schema.
SELECT format('CREATE SCHEMA %I', $1::text)

-- name: lock_migrations
-- Wait until nobody else changes tables, until the transaction ends.
SELECT pg_advisory_xact_lock($1::integer, hashtext($2))

-- name: read_record
-- What this database is.
SELECT version, cluster_id::text, shard, shards FROM lockstep_store WHERE id = 0

-- name: create_record
-- Say what this database is. The first one of a cluster invents its id.
INSERT INTO lockstep_store (id, version, cluster_id, shard, shards, generation)
VALUES (0, 0, coalesce($3::uuid, gen_random_uuid()), $1, $2, 1)

-- name: set_version
-- Say how far the tables were changed.
UPDATE lockstep_store SET version = $1 WHERE id = 0 AND version < $1

-- name: show
-- A setting of the server.
SELECT current_setting($1)

-- name: prepare_cluster
-- Enter the number of partitions, unless there is one, and return what holds.
UPDATE lockstep_store SET partitions = coalesce(partitions, $1) WHERE id = 0 RETURNING partitions, generation,
    cluster_id::text

-- name: read_generation
-- The generation of etcd.
SELECT generation FROM lockstep_store WHERE id = 0

-- name: raise_generation
-- Enter the next generation of etcd, and return it.
UPDATE lockstep_store SET generation = generation + 1 WHERE id = 0 RETURNING generation

-- name: now_ms
-- The time of day, in milliseconds since the epoch.
SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint
