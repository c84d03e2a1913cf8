-- The last transfer of dead letters that came from each other partition, for each queue they came from.
CREATE TABLE arrivals (
    entity INTEGER NOT NULL,
    source INTEGER NOT NULL,
    number INTEGER NOT NULL,
    result TEXT NOT NULL,
    PRIMARY KEY (entity, source)
) WITHOUT ROWID;
