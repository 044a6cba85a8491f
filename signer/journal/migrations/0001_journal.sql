-- journal_head is one row: whoever locks it writes next.
CREATE TABLE journal_head (
	id           INTEGER NOT NULL PRIMARY KEY CHECK (id = 1),
	reservations INTEGER NOT NULL, -- how many there are; they are numbered from 1
	entries      INTEGER NOT NULL, -- how many there are; they are numbered from 0
	chain        BLOB    NOT NULL, -- of the newest entry
	settled      INTEGER NOT NULL  -- every reservation up to this one has an entry
) STRICT;

-- What is going to be signed. Rows are never changed.
CREATE TABLE journal_reservation (
	number INTEGER NOT NULL PRIMARY KEY,
	intent BLOB    NOT NULL -- JSON
) STRICT;

-- What became of it. Rows are never changed. position is the index in the
-- transparency log.
CREATE TABLE journal_entry (
	position    INTEGER NOT NULL PRIMARY KEY,
	reservation INTEGER NOT NULL UNIQUE,
	signature   BLOB,             -- SHA-256
	outcome     BLOB    NOT NULL, -- JSON
	chain       BLOB    NOT NULL
) STRICT;
CREATE INDEX journal_entry_signature ON journal_entry (signature);

-- How far each guarded thing has come.
CREATE TABLE journal_guard (
	scope         BLOB    NOT NULL PRIMARY KEY,
	kind          TEXT    NOT NULL,
	name          TEXT    NOT NULL,
	number        BLOB    NOT NULL,
	content       BLOB, -- NULL where there may be several, or the one was rejected
	owner         INTEGER NOT NULL, -- the one reservation that this rests on; 0 for several
	prior_number  BLOB, -- before owner; NULL if there was nothing
	prior_content BLOB
) STRICT;

CREATE TABLE journal_idempotency (
	tenant      TEXT    NOT NULL,
	caller      TEXT    NOT NULL,
	idem        TEXT    NOT NULL,
	bound       BLOB    NOT NULL, -- digest of the request that it was used for
	reservation INTEGER NOT NULL,
	result      TEXT, -- NULL while it is under way
	signature   BLOB, -- octets
	device      TEXT,
	PRIMARY KEY (tenant, caller, idem)
) STRICT;
