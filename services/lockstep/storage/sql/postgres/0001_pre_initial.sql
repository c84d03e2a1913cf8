-- The tables of one shard, in a schema of their own. Texts that users give are bytes of UTF-8: PostgreSQL's texts
-- cannot hold U+0000. Text is what we write ourselves as JSON, which escapes it.
--
-- Rows that are written again and again (progress, counters, sessions, states) are never updated: each write is a row
-- of its own, under the next number of its partition, and the one before is deleted by its number. Otherwise somebody's
-- old snapshot, a dump for example, would leave all versions of a row under one key, and each write would read them all.

-- What this shard is, and in the first shard what the cluster is; one row.
CREATE TABLE lockstep_store (
    id bigint PRIMARY KEY CHECK (id = 0),
    version bigint NOT NULL,
    cluster_id uuid NOT NULL,
    shard bigint NOT NULL,
    shards bigint NOT NULL,
    partitions bigint,
    generation bigint NOT NULL
);

-- Who may write. Only `claim_partition` updates a row; commits lock it.
CREATE TABLE partitions (
    partition bigint PRIMARY KEY,
    generation bigint NOT NULL,
    revision bigint NOT NULL,
    reopened bigint NOT NULL
);

-- How far a partition has counted; one row for each.
CREATE TABLE progress (
    partition bigint NOT NULL,
    written bigint NOT NULL,
    last_time_ms bigint NOT NULL,
    last_chunk bigint NOT NULL,
    last_grant bigint NOT NULL,
    last_revision bigint NOT NULL,
    PRIMARY KEY (partition, written)
);

CREATE TABLE catalogue (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    revision bigint NOT NULL,
    definition text NOT NULL,
    PRIMARY KEY (partition, entity)
);

CREATE TABLE entities (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    revision bigint NOT NULL,
    definition text NOT NULL,
    PRIMARY KEY (partition, entity)
);

CREATE TABLE counters (
    partition bigint NOT NULL,
    written bigint NOT NULL,
    entity bigint NOT NULL,
    last_sequence bigint NOT NULL,
    last_dead_letter bigint NOT NULL,
    PRIMARY KEY (partition, written)
);

-- The messages of one send. Bodies lie apart from what is needed at start-up, and are not compressed.
CREATE TABLE chunks (
    partition bigint NOT NULL,
    chunk bigint NOT NULL,
    entity bigint NOT NULL,
    first_sequence bigint NOT NULL,
    enqueued_ms bigint NOT NULL,
    sizes bytea NOT NULL,
    sessions text NOT NULL,
    ttls bytea NOT NULL,
    due_ms bytea NOT NULL,
    checksum bytea NOT NULL,
    bodies bytea NOT NULL,
    PRIMARY KEY (partition, chunk)
);
ALTER TABLE chunks ALTER COLUMN bodies SET STORAGE EXTERNAL;
-- Not by partition: then a query by key could take this index as well, and look at all chunks of the partition.
CREATE INDEX chunks_entity ON chunks (entity);

CREATE TABLE gone (
    partition bigint NOT NULL,
    chunk bigint NOT NULL,
    first_place bigint NOT NULL,
    last_place bigint NOT NULL,
    PRIMARY KEY (partition, chunk, first_place)
);

CREATE TABLE moved (
    partition bigint NOT NULL,
    chunk bigint NOT NULL,
    first_sequence bigint NOT NULL,
    first_place bigint NOT NULL,
    last_place bigint NOT NULL,
    enqueued_ms bigint NOT NULL,
    session_id bytea,
    PRIMARY KEY (partition, chunk, first_sequence)
);

CREATE TABLE sessions (
    partition bigint NOT NULL,
    written bigint NOT NULL,
    entity bigint NOT NULL,
    session_id bytea NOT NULL,
    grant_number bigint NOT NULL,
    holder bytea NOT NULL,
    locked_until_ms bigint NOT NULL,
    granted_ms bigint NOT NULL,
    cursor bigint NOT NULL,
    returned bytea NOT NULL,
    turn bigint NOT NULL,
    state_version bigint NOT NULL,
    state_set_ms bigint NOT NULL,
    released_ms bigint NOT NULL,
    address bytea NOT NULL,
    renewals bigint NOT NULL,
    last_loss bytea NOT NULL,
    PRIMARY KEY (partition, written)
);

CREATE TABLE states (
    partition bigint NOT NULL,
    written bigint NOT NULL,
    entity bigint NOT NULL,
    session_id bytea NOT NULL,
    size bigint NOT NULL,
    value bytea NOT NULL,
    PRIMARY KEY (partition, written)
);
ALTER TABLE states ALTER COLUMN value SET STORAGE EXTERNAL;

CREATE TABLE locks (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    grant_number bigint NOT NULL,
    dead_letter boolean NOT NULL,
    sequences bytea NOT NULL,
    locked_until_ms bytea NOT NULL,
    PRIMARY KEY (partition, entity, grant_number)
);

CREATE TABLE delivery_counts (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    sequence bigint NOT NULL,
    deliveries bigint NOT NULL,
    PRIMARY KEY (partition, entity, sequence)
);

CREATE TABLE dead_letters (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    sequence bigint NOT NULL,
    position bigint NOT NULL,
    reason bytea NOT NULL,
    description bytea NOT NULL,
    dead_lettered_ms bigint NOT NULL,
    PRIMARY KEY (partition, entity, sequence)
);

CREATE TABLE deferred (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    sequence bigint NOT NULL,
    grant_number bigint NOT NULL,
    PRIMARY KEY (partition, entity, sequence)
);

CREATE TABLE delays (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    sequence bigint NOT NULL,
    until_ms bigint NOT NULL,
    PRIMARY KEY (partition, entity, sequence)
);

CREATE TABLE amendments (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    sequence bigint NOT NULL,
    amendment text NOT NULL,
    PRIMARY KEY (partition, entity, sequence)
);

CREATE TABLE jobs (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    number bigint NOT NULL,
    job text NOT NULL,
    PRIMARY KEY (partition, entity, number)
);

CREATE TABLE duplicates (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    chunk bigint NOT NULL,
    at_ms bigint NOT NULL,
    keys text NOT NULL,
    PRIMARY KEY (partition, entity, chunk)
);

CREATE TABLE requests (
    partition bigint NOT NULL,
    client_id bytea NOT NULL,
    counter bigint NOT NULL,
    fingerprint bigint NOT NULL,
    result text NOT NULL,
    PRIMARY KEY (partition, client_id, counter)
);

CREATE TABLE clients (
    partition bigint NOT NULL,
    client_id bytea NOT NULL,
    floor bigint NOT NULL,
    last_seen_ms bigint NOT NULL,
    PRIMARY KEY (partition, client_id)
);

-- Rows come and go at the rate of messages: they are cleaned up by their number, not by their share of a table.
DO $$
DECLARE
    name text;
BEGIN
    FOREACH name IN ARRAY ARRAY['progress', 'counters', 'chunks', 'gone', 'moved', 'sessions', 'states', 'locks',
        'delivery_counts', 'dead_letters', 'deferred', 'delays', 'amendments', 'jobs', 'duplicates', 'requests', 'clients']
    LOOP
        EXECUTE format('ALTER TABLE %I SET (autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000,'
            ' toast.autovacuum_vacuum_scale_factor = 0.01, toast.autovacuum_vacuum_threshold = 5000)', name);
    END LOOP;
    -- Rows that change in place: with room on the page a new version needs no new index entries.
    FOREACH name IN ARRAY ARRAY['gone', 'locks', 'delivery_counts', 'deferred', 'jobs', 'clients']
    LOOP
        EXECUTE format('ALTER TABLE %I SET (fillfactor = 80)', name);
    END LOOP;
END
$$;

-- Stop the transaction: LK001 carries the stored epoch.
CREATE FUNCTION refuse_owner(stored partitions) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION 'another owner has the partition' USING
        ERRCODE = 'LK001',
        DETAIL = concat_ws(',', coalesce(stored.generation, 0), coalesce(stored.revision, 0), coalesce(stored.reopened, 0));
END
$$;

-- Go on only as the owner. After a read: epochs rise, so who is the owner now was it then.
CREATE FUNCTION check_owner(of_partition bigint, own_generation bigint, own_revision bigint, own_reopened bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    stored partitions;
    own partitions := (of_partition, own_generation, own_revision, own_reopened);
BEGIN
    SELECT * INTO stored FROM partitions WHERE partition = of_partition;
    IF stored IS DISTINCT FROM own THEN
        PERFORM refuse_owner(stored);
    END IF;
END
$$;

-- Let the end of this transaction wait for the disk, and for the standbys that the server was told to wait for.
CREATE FUNCTION wait_for_disk() RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    IF current_setting('synchronous_commit') NOT IN ('on', 'remote_apply') THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;

-- Fence every lower epoch; the partition stays locked until the transaction ends.
CREATE FUNCTION claim_partition(of_partition bigint, new_generation bigint, new_revision bigint, new_reopened bigint)
RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    stored partitions;
BEGIN
    PERFORM wait_for_disk();
    INSERT INTO partitions (partition, generation, revision, reopened) VALUES (of_partition, 0, 0, 0)
    ON CONFLICT DO NOTHING;
    SELECT * INTO stored FROM partitions WHERE partition = of_partition FOR UPDATE;
    IF (stored.generation, stored.revision, stored.reopened) > (new_generation, new_revision, new_reopened) THEN
        PERFORM refuse_owner(stored);
    END IF;
    UPDATE partitions SET generation = new_generation, revision = new_revision, reopened = new_reopened
    WHERE partition = of_partition;
END
$$;

-- Begin a commit: lock the partition until the transaction ends, go on only as its owner, and count further.
CREATE FUNCTION count_further(
    of_partition bigint, own_generation bigint, own_revision bigint, own_reopened bigint,
    replaced bigint, new_written bigint, new_time_ms bigint, new_chunk bigint, new_grant bigint, new_revision bigint
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM wait_for_disk();
    PERFORM 1 FROM partitions WHERE partition = of_partition FOR UPDATE;
    PERFORM check_owner(of_partition, own_generation, own_revision, own_reopened);
    DELETE FROM progress WHERE partition = of_partition AND written = replaced;
    INSERT INTO progress (partition, written, last_time_ms, last_chunk, last_grant, last_revision)
    VALUES (of_partition, new_written, new_time_ms, new_chunk, new_grant, new_revision);
END
$$;
