-- Keys, their versions, what happened to them, and devices that returned a
-- wrong signature. Times are Unix microseconds.

CREATE TABLE keys (
    id         TEXT PRIMARY KEY,
    purpose    TEXT NOT NULL,
    algorithm  TEXT NOT NULL,
    labels     TEXT NOT NULL,            -- JSON object of strings
    unverified INTEGER NOT NULL DEFAULT 0 CHECK (unverified IN (0, 1)),
    created_at INTEGER NOT NULL
) STRICT;

CREATE TABLE versions (
    key_id       TEXT NOT NULL REFERENCES keys (id),
    number       INTEGER NOT NULL CHECK (number > 0),
    state        TEXT NOT NULL CHECK (state IN ('pending', 'active', 'verify-only', 'destroyed')),
    device       TEXT NOT NULL,
    object_id    TEXT NOT NULL UNIQUE,
    uri          TEXT,                   -- NULL while pending, and where nothing was ever made
    public       BLOB,                   -- SubjectPublicKeyInfo
    kid          TEXT UNIQUE,            -- JWK thumbprint; NULL without a public key
    evidence     TEXT,                   -- JSON
    destroying   INTEGER NOT NULL DEFAULT 0 CHECK (destroying IN (0, 1)),
    created_at   INTEGER NOT NULL,
    activated_at INTEGER,
    retired_at   INTEGER,
    destroyed_at INTEGER,
    PRIMARY KEY (key_id, number),
    UNIQUE (device, uri),
    CHECK (state NOT IN ('active', 'verify-only') OR uri IS NOT NULL)
) STRICT;

CREATE UNIQUE INDEX one_active_version ON versions (key_id) WHERE state = 'active';
CREATE UNIQUE INDEX one_pending_version ON versions (key_id) WHERE state = 'pending';

CREATE TABLE history (
    seq     AUTOKEY,
    at      INTEGER NOT NULL,
    key_id  TEXT,
    version INTEGER,
    event   TEXT NOT NULL,
    detail  TEXT NOT NULL
) STRICT;

CREATE INDEX history_by_key ON history (key_id, seq);

CREATE TABLE suspects (
    device TEXT PRIMARY KEY,
    key_id TEXT NOT NULL,
    reason TEXT NOT NULL,
    since  INTEGER NOT NULL
) STRICT;
