-- The last transfer of dead letters that came from each other partition, for each queue they came from.
CREATE TABLE arrivals (
    partition bigint NOT NULL,
    entity bigint NOT NULL,
    source bigint NOT NULL,
    number bigint NOT NULL,
    result text NOT NULL,
    PRIMARY KEY (partition, entity, source)
);

-- Few rows, each written again with every transfer: cleaned up by their number, with room on the page.
ALTER TABLE arrivals SET (fillfactor = 80, autovacuum_vacuum_scale_factor = 0.01, autovacuum_vacuum_threshold = 5000);
