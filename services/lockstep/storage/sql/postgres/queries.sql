-- Every query of the PostgreSQL store on the tables of a partition; $1 is the partition. Rows come as one array for each
-- column: a statement serves any number of them, and there is one for each table of a commit.
--
-- Rows are named by their whole key, and in a way that leaves the planner no choice but to find each through it: a list
-- of keys, or a join, it would rather check row by row, as long as it takes a table for small. So rows are looked up one
-- by one (OFFSET 0 keeps that apart), and deleted by their place, which nobody else can change meanwhile.

-- name: claim_partition
-- Fence every lower epoch.
SELECT claim_partition($1, $2, $3, $4)

-- name: check_owner
-- Fail unless the epoch is the stored one.
SELECT check_owner($1, $2, $3, $4)

-- name: count_further
-- Fail unless the epoch is the stored one; keep it so until the transaction ends; count further.
SELECT count_further($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)

-- name: read_progress
-- Read how far the partition has counted.
SELECT written, last_time_ms, last_chunk, last_grant, last_revision FROM progress WHERE partition = $1 ORDER BY written DESC LIMIT 1

-- name: read_catalogue
-- All definitions, deleted ones included.
SELECT entity, revision, definition FROM catalogue WHERE partition = $1

-- name: put_catalogue
-- Write definitions.
INSERT INTO catalogue (partition, entity, revision, definition)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[])
ON CONFLICT (partition, entity) DO UPDATE SET revision = excluded.revision, definition = excluded.definition

-- name: drop_catalogue
-- Forget deleted definitions.
DELETE FROM catalogue WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM catalogue WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: read_entities
-- The definitions that this partition has applied.
SELECT entity, revision, definition FROM entities WHERE partition = $1

-- name: put_entities
-- Write applied definitions.
INSERT INTO entities (partition, entity, revision, definition)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[])
ON CONFLICT (partition, entity) DO UPDATE SET revision = excluded.revision, definition = excluded.definition

-- name: read_counters
-- How far each entity has counted.
SELECT written, entity, last_sequence, last_dead_letter FROM counters WHERE partition = $1

-- name: put_counters
-- Write how far entities have counted, in place of what was written before.
WITH replaced AS (
DELETE FROM counters WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM counters WHERE partition = $1 AND written = a OFFSET 0) AS found)))
INSERT INTO counters (partition, written, entity, last_sequence, last_dead_letter)
SELECT $1, * FROM unnest($3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[])

-- name: drop_counters
-- Forget how far entities have counted.
DELETE FROM counters WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM counters WHERE partition = $1 AND written = a OFFSET 0) AS found))

-- name: read_chunks
-- What is known of all chunks, without their bodies, in the order they were sent.
SELECT chunk, entity, first_sequence, enqueued_ms, sizes, sessions, ttls, due_ms FROM chunks WHERE partition = $1 ORDER BY chunk

-- name: put_chunks
-- Write chunks.
INSERT INTO chunks (partition, chunk, entity, first_sequence, enqueued_ms, sizes, sessions, ttls, due_ms, checksum, bodies)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bytea[], $7::text[], $8::bytea[],
    $9::bytea[], $10::bytea[], $11::bytea[])

-- name: load_chunks
-- The bodies of some chunks.
SELECT found.* FROM unnest($2::bigint[]) AS named (a),
    LATERAL (SELECT chunk, sizes, checksum, bodies FROM chunks WHERE partition = $1 AND chunk = a OFFSET 0) AS found

-- name: drop_chunks
-- Delete chunks, with what is said of their messages.
WITH holes AS (
DELETE FROM gone WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM gone WHERE partition = $1 AND chunk = a OFFSET 0) AS found))),
numbers AS (
DELETE FROM moved WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM moved WHERE partition = $1 AND chunk = a OFFSET 0) AS found)))
DELETE FROM chunks WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM chunks WHERE partition = $1 AND chunk = a OFFSET 0) AS found))

-- name: read_gone
-- Which messages of chunks are stored no more.
SELECT chunk, first_place, last_place FROM gone WHERE partition = $1

-- name: put_gone
-- Take messages out of chunks.
INSERT INTO gone (partition, chunk, first_place, last_place)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])
ON CONFLICT (partition, chunk, first_place) DO UPDATE SET last_place = excluded.last_place

-- name: read_moved
-- Which messages of chunks have new numbers.
SELECT chunk, first_sequence, first_place, last_place, enqueued_ms, session_id FROM moved WHERE partition = $1

-- name: put_moved
-- Give messages of chunks new numbers.
INSERT INTO moved (partition, chunk, first_sequence, first_place, last_place, enqueued_ms, session_id)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bigint[], $6::bigint[], $7::bytea[])
ON CONFLICT (partition, chunk, first_sequence) DO UPDATE SET first_place = excluded.first_place, last_place = excluded.last_place,
    enqueued_ms = excluded.enqueued_ms, session_id = excluded.session_id

-- name: read_sessions
-- All sessions that are held, were held, or have a state.
SELECT written, entity, session_id, grant_number, holder, locked_until_ms, granted_ms, cursor,
    returned, turn, state_version, state_set_ms, released_ms, address, renewals, last_loss FROM sessions WHERE partition = $1

-- name: put_sessions
-- Write sessions, in place of what was written before.
WITH replaced AS (
DELETE FROM sessions WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM sessions WHERE partition = $1 AND written = a OFFSET 0) AS found)))
INSERT INTO sessions (partition, written, entity, session_id, grant_number, holder, locked_until_ms, granted_ms,
    cursor, returned, turn, state_version, state_set_ms, released_ms, address, renewals, last_loss)
SELECT $1, * FROM unnest($3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bytea[], $8::bigint[], $9::bigint[], $10::bigint[],
    $11::bytea[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[], $16::bytea[], $17::bigint[], $18::bytea[])

-- name: drop_sessions
-- Delete sessions.
DELETE FROM sessions WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM sessions WHERE partition = $1 AND written = a OFFSET 0) AS found))

-- name: read_states
-- Which sessions have a state, without the states.
SELECT written, entity, session_id, size, NULL::bytea FROM states WHERE partition = $1

-- name: put_states
-- Write session states, in place of what was written before.
WITH replaced AS (
DELETE FROM states WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM states WHERE partition = $1 AND written = a OFFSET 0) AS found)))
INSERT INTO states (partition, written, entity, session_id, size, value)
SELECT $1, * FROM unnest($3::bigint[], $4::bigint[], $5::bytea[], $6::bigint[], $7::bytea[])

-- name: load_states
-- Some session states.
SELECT found.* FROM unnest($2::bigint[]) AS named (a),
    LATERAL (SELECT entity, session_id, value FROM states WHERE partition = $1 AND written = a OFFSET 0) AS found

-- name: drop_states
-- Delete session states.
DELETE FROM states WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM states WHERE partition = $1 AND written = a OFFSET 0) AS found))

-- name: read_locks
-- The messages that receives have locked.
SELECT entity, grant_number, dead_letter, sequences, locked_until_ms FROM locks WHERE partition = $1

-- name: put_locks
-- Write message locks.
INSERT INTO locks (partition, entity, grant_number, dead_letter, sequences, locked_until_ms)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::boolean[], $5::bytea[], $6::bytea[])
ON CONFLICT (partition, entity, grant_number) DO UPDATE SET dead_letter = excluded.dead_letter,
    sequences = excluded.sequences, locked_until_ms = excluded.locked_until_ms

-- name: drop_locks
-- Delete message locks.
DELETE FROM locks WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM locks WHERE partition = $1 AND entity = a AND grant_number = b OFFSET 0) AS found))

-- name: read_delivery_counts
-- The delivery counts that are not 0.
SELECT entity, sequence, deliveries FROM delivery_counts WHERE partition = $1

-- name: put_delivery_counts
-- Write delivery counts.
INSERT INTO delivery_counts (partition, entity, sequence, deliveries)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])
ON CONFLICT (partition, entity, sequence) DO UPDATE SET deliveries = excluded.deliveries

-- name: drop_delivery_counts
-- Delete delivery counts.
DELETE FROM delivery_counts WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM delivery_counts WHERE partition = $1 AND entity = a AND sequence = b OFFSET 0) AS found))

-- name: read_dead_letters
-- All dead letters.
SELECT entity, sequence, position, reason, description, dead_lettered_ms FROM dead_letters WHERE partition = $1

-- name: put_dead_letters
-- Write dead letters.
INSERT INTO dead_letters (partition, entity, sequence, position, reason, description, dead_lettered_ms)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::bytea[], $6::bytea[], $7::bigint[])
ON CONFLICT (partition, entity, sequence) DO UPDATE SET position = excluded.position, reason = excluded.reason,
    description = excluded.description, dead_lettered_ms = excluded.dead_lettered_ms

-- name: drop_dead_letters
-- Delete dead letters.
DELETE FROM dead_letters WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM dead_letters WHERE partition = $1 AND entity = a AND sequence = b OFFSET 0) AS found))

-- name: read_deferred
-- The messages that are delivered by number only.
SELECT entity, sequence, grant_number FROM deferred WHERE partition = $1

-- name: put_deferred
-- Set messages aside, or put them in somebody's hand.
INSERT INTO deferred (partition, entity, sequence, grant_number)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])
ON CONFLICT (partition, entity, sequence) DO UPDATE SET grant_number = excluded.grant_number

-- name: drop_deferred
-- Set messages aside no more.
DELETE FROM deferred WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM deferred WHERE partition = $1 AND entity = a AND sequence = b OFFSET 0) AS found))

-- name: read_delays
-- The messages that were abandoned with a delay.
SELECT entity, sequence, until_ms FROM delays WHERE partition = $1

-- name: put_delays
-- Delay messages.
INSERT INTO delays (partition, entity, sequence, until_ms)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[])
ON CONFLICT (partition, entity, sequence) DO UPDATE SET until_ms = excluded.until_ms

-- name: drop_delays
-- Delay messages no more.
DELETE FROM delays WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM delays WHERE partition = $1 AND entity = a AND sequence = b OFFSET 0) AS found))

-- name: read_amendments
-- What was changed about messages.
SELECT entity, sequence, amendment FROM amendments WHERE partition = $1

-- name: put_amendments
-- Change something about messages.
INSERT INTO amendments (partition, entity, sequence, amendment)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[])
ON CONFLICT (partition, entity, sequence) DO UPDATE SET amendment = excluded.amendment

-- name: drop_amendments
-- Forget what was changed about messages.
DELETE FROM amendments WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM amendments WHERE partition = $1 AND entity = a AND sequence = b OFFSET 0) AS found))

-- name: read_jobs
-- The work on dead letters.
SELECT entity, number, job FROM jobs WHERE partition = $1

-- name: put_jobs
-- Write work on dead letters.
INSERT INTO jobs (partition, entity, number, job)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::text[])
ON CONFLICT (partition, entity, number) DO UPDATE SET job = excluded.job

-- name: drop_jobs
-- Forget work on dead letters.
DELETE FROM jobs WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM jobs WHERE partition = $1 AND entity = a AND number = b OFFSET 0) AS found))

-- name: read_arrivals
-- The last transfers from other partitions.
SELECT entity, source, number, result FROM arrivals WHERE partition = $1

-- name: put_arrivals
-- Write the last transfers from other partitions.
INSERT INTO arrivals (partition, entity, source, number, result)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[])
ON CONFLICT (partition, entity, source) DO UPDATE SET number = excluded.number, result = excluded.result

-- name: drop_arrivals
-- Forget the last transfers from other partitions.
DELETE FROM arrivals WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM arrivals WHERE partition = $1 AND entity = a AND source = b OFFSET 0) AS found))

-- name: read_duplicates
-- The message ids that are known.
SELECT entity, chunk, at_ms, keys FROM duplicates WHERE partition = $1

-- name: put_duplicates
-- Know message ids.
INSERT INTO duplicates (partition, entity, chunk, at_ms, keys)
SELECT $1, * FROM unnest($2::bigint[], $3::bigint[], $4::bigint[], $5::text[])
ON CONFLICT (partition, entity, chunk) DO UPDATE SET at_ms = excluded.at_ms, keys = excluded.keys

-- name: drop_duplicates
-- Forget message ids.
DELETE FROM duplicates WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM duplicates WHERE partition = $1 AND entity = a AND chunk = b OFFSET 0) AS found))

-- name: read_requests
-- The remembered calls.
SELECT client_id, counter, fingerprint, result FROM requests WHERE partition = $1

-- name: put_requests
-- Remember calls.
INSERT INTO requests (partition, client_id, counter, fingerprint, result)
SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[], $5::text[])
ON CONFLICT (partition, client_id, counter) DO UPDATE SET fingerprint = excluded.fingerprint, result = excluded.result

-- name: drop_requests
-- Forget calls.
DELETE FROM requests WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bytea[], $3::bigint[]) AS named (a, b),
        LATERAL (SELECT ctid FROM requests WHERE partition = $1 AND client_id = a AND counter = b OFFSET 0) AS found))

-- name: read_clients
-- The clients whose calls are remembered.
SELECT client_id, floor, last_seen_ms FROM clients WHERE partition = $1

-- name: put_clients
-- Remember clients.
INSERT INTO clients (partition, client_id, floor, last_seen_ms)
SELECT $1, * FROM unnest($2::bytea[], $3::bigint[], $4::bigint[])
ON CONFLICT (partition, client_id) DO UPDATE SET floor = excluded.floor, last_seen_ms = excluded.last_seen_ms

-- name: drop_clients
-- Forget clients.
DELETE FROM clients WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bytea[]) AS named (a),
        LATERAL (SELECT ctid FROM clients WHERE partition = $1 AND client_id = a OFFSET 0) AS found))

-- name: drop_entity_gone
-- Forget the holes of entities' chunks.
DELETE FROM gone WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM chunks, LATERAL (SELECT ctid FROM gone WHERE gone.partition = $1 AND gone.chunk = chunks.chunk OFFSET 0) AS found
    WHERE chunks.partition = $1 AND chunks.entity = ANY ($2::bigint[])))

-- name: drop_entity_moved
-- Forget the new numbers of entities' chunks.
DELETE FROM moved WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM chunks, LATERAL (SELECT ctid FROM moved WHERE moved.partition = $1 AND moved.chunk = chunks.chunk OFFSET 0) AS found
    WHERE chunks.partition = $1 AND chunks.entity = ANY ($2::bigint[])))

-- name: drop_entity_chunks
-- Delete entities' chunks.
DELETE FROM chunks WHERE partition = $1 AND entity = ANY ($2::bigint[])

-- name: drop_entity_deferred
-- Forget which messages of entities are set aside.
DELETE FROM deferred WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM deferred WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: drop_entity_duplicates
-- Forget the message ids that entities know.
DELETE FROM duplicates WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM duplicates WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: drop_entity_delays
-- End the delays of entities' messages.
DELETE FROM delays WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM delays WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: drop_entity_amendments
-- Forget what was changed about entities' messages.
DELETE FROM amendments WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM amendments WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: drop_entity_arrivals
-- Forget the last transfers of entities' messages.
DELETE FROM arrivals WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM arrivals WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: drop_entity_jobs
-- Forget the work on entities' dead letters.
DELETE FROM jobs WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM jobs WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: drop_entity_locks
-- Delete entities' message locks.
DELETE FROM locks WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM locks WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: drop_entity_delivery_counts
-- Delete entities' delivery counts.
DELETE FROM delivery_counts WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM delivery_counts WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: drop_entity_dead_letters
-- Delete entities' dead letters.
DELETE FROM dead_letters WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM dead_letters WHERE partition = $1 AND entity = a OFFSET 0) AS found))

-- name: drop_entity_definition
-- Delete entities' applied definitions.
DELETE FROM entities WHERE ctid = ANY (ARRAY(
    SELECT found.ctid FROM unnest($2::bigint[]) AS named (a),
        LATERAL (SELECT ctid FROM entities WHERE partition = $1 AND entity = a OFFSET 0) AS found))
