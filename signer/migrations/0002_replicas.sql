-- Further objects that hold the key of a version, on other devices. A change of
-- them counts up the version's revision, so that a process with the version
-- open notices.

ALTER TABLE versions ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;

CREATE TABLE replicas (
    key_id   TEXT NOT NULL,
    version  INTEGER NOT NULL,
    device   TEXT NOT NULL,
    uri      TEXT NOT NULL,
    evidence TEXT,                       -- JSON: what the device says of its object
    proof    TEXT NOT NULL,              -- JSON: how it showed that it holds the key
    added_at INTEGER NOT NULL,
    PRIMARY KEY (key_id, version, device),
    FOREIGN KEY (key_id, version) REFERENCES versions (key_id, number),
    UNIQUE (device, uri)
) STRICT;
