-- The tables of one partition.

-- Who may write, and how far the partition has counted; one row.
CREATE TABLE partition (
    id INTEGER PRIMARY KEY CHECK (id = 0),
    number INTEGER NOT NULL,
    generation INTEGER NOT NULL,
    revision INTEGER NOT NULL,
    reopened INTEGER NOT NULL,
    last_time_ms INTEGER NOT NULL,
    last_chunk INTEGER NOT NULL,
    last_grant INTEGER NOT NULL,
    last_revision INTEGER NOT NULL
);

CREATE TABLE catalogue (
    entity INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    definition TEXT NOT NULL
);

CREATE TABLE entities (
    entity INTEGER PRIMARY KEY,
    revision INTEGER NOT NULL,
    definition TEXT NOT NULL
);

CREATE TABLE counters (
    entity INTEGER PRIMARY KEY,
    last_sequence INTEGER NOT NULL,
    last_dead_letter INTEGER NOT NULL
);

-- The messages of one send. What is needed at start-up stands before the bodies, which are large.
CREATE TABLE chunks (
    chunk INTEGER PRIMARY KEY,
    entity INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    enqueued_ms INTEGER NOT NULL,
    sizes BLOB NOT NULL,
    sessions TEXT NOT NULL,
    ttls BLOB NOT NULL,
    due_ms BLOB NOT NULL,
    checksum BLOB NOT NULL,
    bodies BLOB NOT NULL
);
CREATE INDEX chunks_entity ON chunks (entity);

CREATE TABLE gone (
    chunk INTEGER NOT NULL,
    first_place INTEGER NOT NULL,
    last_place INTEGER NOT NULL,
    PRIMARY KEY (chunk, first_place)
) WITHOUT ROWID;

CREATE TABLE moved (
    chunk INTEGER NOT NULL,
    first_sequence INTEGER NOT NULL,
    first_place INTEGER NOT NULL,
    last_place INTEGER NOT NULL,
    enqueued_ms INTEGER NOT NULL,
    session_id TEXT,
    PRIMARY KEY (chunk, first_sequence)
) WITHOUT ROWID;

CREATE TABLE sessions (
    entity INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    grant_number INTEGER NOT NULL,
    holder TEXT NOT NULL,
    locked_until_ms INTEGER NOT NULL,
    granted_ms INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    returned BLOB NOT NULL,
    turn INTEGER NOT NULL,
    state_version INTEGER NOT NULL,
    state_set_ms INTEGER NOT NULL,
    released_ms INTEGER NOT NULL,
    address TEXT NOT NULL,
    renewals INTEGER NOT NULL,
    last_loss TEXT NOT NULL,
    PRIMARY KEY (entity, session_id)
) WITHOUT ROWID;

CREATE TABLE states (
    entity INTEGER NOT NULL,
    session_id TEXT NOT NULL,
    size INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY (entity, session_id)
);

CREATE TABLE locks (
    entity INTEGER NOT NULL,
    grant_number INTEGER NOT NULL,
    dead_letter INTEGER NOT NULL,
    sequences BLOB NOT NULL,
    locked_until_ms BLOB NOT NULL,
    PRIMARY KEY (entity, grant_number)
) WITHOUT ROWID;

CREATE TABLE delivery_counts (
    entity INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    deliveries INTEGER NOT NULL,
    PRIMARY KEY (entity, sequence)
) WITHOUT ROWID;

CREATE TABLE dead_letters (
    entity INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    position INTEGER NOT NULL,
    reason TEXT NOT NULL,
    description TEXT NOT NULL,
    dead_lettered_ms INTEGER NOT NULL,
    PRIMARY KEY (entity, sequence)
) WITHOUT ROWID;

CREATE TABLE deferred (
    entity INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    grant_number INTEGER NOT NULL,
    PRIMARY KEY (entity, sequence)
) WITHOUT ROWID;

CREATE TABLE delays (
    entity INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    until_ms INTEGER NOT NULL,
    PRIMARY KEY (entity, sequence)
) WITHOUT ROWID;

CREATE TABLE amendments (
    entity INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    amendment TEXT NOT NULL,
    PRIMARY KEY (entity, sequence)
) WITHOUT ROWID;

CREATE TABLE jobs (
    entity INTEGER NOT NULL,
    number INTEGER NOT NULL,
    job TEXT NOT NULL,
    PRIMARY KEY (entity, number)
) WITHOUT ROWID;

CREATE TABLE duplicates (
    entity INTEGER NOT NULL,
    chunk INTEGER NOT NULL,
    at_ms INTEGER NOT NULL,
    keys TEXT NOT NULL,
    PRIMARY KEY (entity, chunk)
) WITHOUT ROWID;

CREATE TABLE requests (
    client_id TEXT NOT NULL,
    counter INTEGER NOT NULL,
    fingerprint INTEGER NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (client_id, counter)
) WITHOUT ROWID;

CREATE TABLE clients (
    client_id TEXT PRIMARY KEY,
    floor INTEGER NOT NULL,
    last_seen_ms INTEGER NOT NULL
) WITHOUT ROWID;
