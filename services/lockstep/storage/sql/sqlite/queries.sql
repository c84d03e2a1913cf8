-- Every query of the SQLite store. {rows} becomes one group of parameters for each row, and a
-- condition in braces is repeated for each row: SQLite finds several rows by a key of two columns in no other way
-- without a scan of the table.

-- name: create_partition
-- Enter the one row that says who owns the partition and how far it has counted.
INSERT INTO partition (id, number, generation, revision, reopened, last_time_ms, last_chunk, last_grant, last_revision)
VALUES (0, ?, 0, 0, 0, 0, 0, 0, 0)

-- name: read_partition
-- Read who owns the partition and how far it has counted.
SELECT number, generation, revision, reopened, last_time_ms, last_chunk, last_grant, last_revision FROM partition WHERE id = 0

-- name: claim_partition
-- Fence every lower epoch.
UPDATE partition SET generation = ?, revision = ?, reopened = ? WHERE id = 0

-- name: count_further
-- Count further, but only as the owner.
UPDATE partition SET last_time_ms = max(last_time_ms, ?), last_chunk = max(last_chunk, ?), last_grant = max(last_grant, ?),
    last_revision = max(last_revision, ?)
WHERE id = 0 AND generation = ? AND revision = ? AND reopened = ?

-- name: read_catalogue
-- All definitions, deleted ones included.
SELECT entity, revision, definition FROM catalogue

-- name: put_catalogue
-- Write definitions.
INSERT OR REPLACE INTO catalogue (entity, revision, definition) VALUES {rows}

-- name: drop_catalogue
-- Forget deleted definitions.
DELETE FROM catalogue WHERE entity IN (VALUES {rows})

-- name: read_entities
-- The definitions that this partition has applied.
SELECT entity, revision, definition FROM entities

-- name: put_entities
-- Write applied definitions.
INSERT OR REPLACE INTO entities (entity, revision, definition) VALUES {rows}

-- name: read_counters
-- How far each entity has counted.
SELECT entity, last_sequence, last_dead_letter FROM counters

-- name: put_counters
-- Write how far entities have counted.
INSERT OR REPLACE INTO counters (entity, last_sequence, last_dead_letter) VALUES {rows}

-- name: read_chunks
-- What is known of all chunks, without their bodies, in the order they were sent.
SELECT chunk, entity, first_sequence, enqueued_ms, sizes, sessions, ttls, due_ms FROM chunks ORDER BY chunk

-- name: put_chunks
-- Write chunks.
INSERT INTO chunks (chunk, entity, first_sequence, enqueued_ms, sizes, sessions, ttls, due_ms, checksum, bodies) VALUES {rows}

-- name: load_chunks
-- The bodies of some chunks.
SELECT chunk, sizes, checksum, bodies FROM chunks WHERE chunk IN (VALUES {rows})

-- name: drop_chunks
-- Delete chunks.
DELETE FROM chunks WHERE chunk IN (VALUES {rows})

-- name: read_gone
-- Which messages of chunks are stored no more.
SELECT chunk, first_place, last_place FROM gone

-- name: put_gone
-- Take messages out of chunks.
INSERT OR REPLACE INTO gone (chunk, first_place, last_place) VALUES {rows}

-- name: read_moved
-- Which messages of chunks have new numbers.
SELECT chunk, first_sequence, first_place, last_place, enqueued_ms, session_id FROM moved

-- name: put_moved
-- Give messages of chunks new numbers.
INSERT OR REPLACE INTO moved (chunk, first_sequence, first_place, last_place, enqueued_ms, session_id) VALUES {rows}

-- name: drop_moved_of_chunks
-- Forget the new numbers of chunks that go.
DELETE FROM moved WHERE chunk IN (VALUES {rows})

-- name: drop_gone_of_chunks
-- Forget the holes of chunks that go.
DELETE FROM gone WHERE chunk IN (VALUES {rows})

-- name: read_sessions
-- All sessions that are held, were held, or have a state.
SELECT entity, session_id, grant_number, holder, locked_until_ms, granted_ms, cursor, returned, turn, state_version,
    state_set_ms, released_ms, address, renewals, last_loss FROM sessions

-- name: put_sessions
-- Write sessions.
INSERT OR REPLACE INTO sessions (entity, session_id, grant_number, holder, locked_until_ms, granted_ms, cursor, returned, turn, state_version,
    state_set_ms, released_ms, address, renewals, last_loss) VALUES {rows}

-- name: drop_sessions
-- Delete sessions.
DELETE FROM sessions WHERE {entity = ? AND session_id = ?}

-- name: read_states
-- Which sessions have a state, without the states.
SELECT entity, session_id, size, NULL FROM states

-- name: put_states
-- Write session states.
INSERT OR REPLACE INTO states (entity, session_id, size, value) VALUES {rows}

-- name: load_states
-- Some session states.
SELECT entity, session_id, value FROM states WHERE {entity = ? AND session_id = ?}

-- name: drop_states
-- Delete session states.
DELETE FROM states WHERE {entity = ? AND session_id = ?}

-- name: read_locks
-- The messages that receives have locked.
SELECT entity, grant_number, dead_letter, sequences, locked_until_ms FROM locks

-- name: put_locks
-- Write message locks.
INSERT OR REPLACE INTO locks (entity, grant_number, dead_letter, sequences, locked_until_ms) VALUES {rows}

-- name: drop_locks
-- Delete message locks.
DELETE FROM locks WHERE {entity = ? AND grant_number = ?}

-- name: read_delivery_counts
-- The delivery counts that are not 0.
SELECT entity, sequence, deliveries FROM delivery_counts

-- name: put_delivery_counts
-- Write delivery counts.
INSERT OR REPLACE INTO delivery_counts (entity, sequence, deliveries) VALUES {rows}

-- name: drop_delivery_counts
-- Delete delivery counts.
DELETE FROM delivery_counts WHERE {entity = ? AND sequence = ?}

-- name: read_dead_letters
-- All dead letters.
SELECT entity, sequence, position, reason, description, dead_lettered_ms FROM dead_letters

-- name: put_dead_letters
-- Write dead letters.
INSERT OR REPLACE INTO dead_letters (entity, sequence, position, reason, description, dead_lettered_ms) VALUES {rows}

-- name: drop_dead_letters
-- Delete dead letters.
DELETE FROM dead_letters WHERE {entity = ? AND sequence = ?}

-- name: read_deferred
-- The messages that are delivered by number only.
SELECT entity, sequence, grant_number FROM deferred

-- name: put_deferred
-- Set messages aside, or put them in somebody's hand.
INSERT OR REPLACE INTO deferred (entity, sequence, grant_number) VALUES {rows}

-- name: drop_deferred
-- Set messages aside no more.
DELETE FROM deferred WHERE {entity = ? AND sequence = ?}

-- name: read_delays
-- The messages that were abandoned with a delay.
SELECT entity, sequence, until_ms FROM delays

-- name: put_delays
-- Delay messages.
INSERT OR REPLACE INTO delays (entity, sequence, until_ms) VALUES {rows}

-- name: drop_delays
-- Delay messages no more.
DELETE FROM delays WHERE {entity = ? AND sequence = ?}

-- name: read_amendments
-- What was changed about messages.
SELECT entity, sequence, amendment FROM amendments

-- name: put_amendments
-- Change something about messages.
INSERT OR REPLACE INTO amendments (entity, sequence, amendment) VALUES {rows}

-- name: drop_amendments
-- Forget what was changed about messages.
DELETE FROM amendments WHERE {entity = ? AND sequence = ?}

-- name: read_jobs
-- The work on dead letters.
SELECT entity, number, job FROM jobs

-- name: put_jobs
-- Write work on dead letters.
INSERT OR REPLACE INTO jobs (entity, number, job) VALUES {rows}

-- name: drop_jobs
-- Forget work on dead letters.
DELETE FROM jobs WHERE {entity = ? AND number = ?}

-- name: read_arrivals
-- The last transfers from other partitions.
SELECT entity, source, number, result FROM arrivals

-- name: put_arrivals
-- Write the last transfers from other partitions.
INSERT OR REPLACE INTO arrivals (entity, source, number, result) VALUES {rows}

-- name: drop_arrivals
-- Forget the last transfers from other partitions.
DELETE FROM arrivals WHERE {entity = ? AND source = ?}

-- name: read_duplicates
-- The message ids that are known.
SELECT entity, chunk, at_ms, keys FROM duplicates

-- name: put_duplicates
-- Know message ids.
INSERT OR REPLACE INTO duplicates (entity, chunk, at_ms, keys) VALUES {rows}

-- name: drop_duplicates
-- Forget message ids.
DELETE FROM duplicates WHERE {entity = ? AND chunk = ?}

-- name: read_requests
-- The remembered calls.
SELECT client_id, counter, fingerprint, result FROM requests

-- name: put_requests
-- Remember calls.
INSERT OR REPLACE INTO requests (client_id, counter, fingerprint, result) VALUES {rows}

-- name: drop_requests
-- Forget calls.
DELETE FROM requests WHERE {client_id = ? AND counter = ?}

-- name: read_clients
-- The clients whose calls are remembered.
SELECT client_id, floor, last_seen_ms FROM clients

-- name: put_clients
-- Remember clients.
INSERT OR REPLACE INTO clients (client_id, floor, last_seen_ms) VALUES {rows}

-- name: drop_clients
-- Forget clients.
DELETE FROM clients WHERE client_id IN (VALUES {rows})

-- name: drop_entity_gone
-- Forget the holes of an entity's chunks.
DELETE FROM gone WHERE chunk IN (SELECT chunk FROM chunks WHERE entity = ?)

-- name: drop_entity_moved
-- Forget the new numbers of an entity's chunks.
DELETE FROM moved WHERE chunk IN (SELECT chunk FROM chunks WHERE entity = ?)

-- name: drop_entity_chunks
-- Delete an entity's chunks.
DELETE FROM chunks WHERE entity = ?

-- name: drop_entity_deferred
-- Forget which messages of an entity are set aside.
DELETE FROM deferred WHERE entity = ?

-- name: drop_entity_duplicates
-- Forget the message ids that an entity knows.
DELETE FROM duplicates WHERE entity = ?

-- name: drop_entity_delays
-- End the delays of an entity's messages.
DELETE FROM delays WHERE entity = ?

-- name: drop_entity_amendments
-- Forget what was changed about an entity's messages.
DELETE FROM amendments WHERE entity = ?

-- name: drop_entity_arrivals
-- Forget the last transfers of an entity's messages.
DELETE FROM arrivals WHERE entity = ?

-- name: drop_entity_jobs
-- Forget the work on an entity's dead letters.
DELETE FROM jobs WHERE entity = ?

-- name: drop_entity_sessions
-- Delete an entity's sessions.
DELETE FROM sessions WHERE entity = ?

-- name: drop_entity_states
-- Delete an entity's session states.
DELETE FROM states WHERE entity = ?

-- name: drop_entity_locks
-- Delete an entity's message locks.
DELETE FROM locks WHERE entity = ?

-- name: drop_entity_delivery_counts
-- Delete an entity's delivery counts.
DELETE FROM delivery_counts WHERE entity = ?

-- name: drop_entity_dead_letters
-- Delete an entity's dead letters.
DELETE FROM dead_letters WHERE entity = ?

-- name: drop_entity_counters
-- Delete an entity's counters.
DELETE FROM counters WHERE entity = ?

-- name: drop_entity_definition
-- Delete an entity's applied definition.
DELETE FROM entities WHERE entity = ?
