-- Sessions of nodes behind one name: any of them finishes what another began.
CREATE TABLE enrol_session (
	id     TEXT PRIMARY KEY NOT NULL, -- SHA-256 of the session's id, hexadecimal
	code   TEXT NOT NULL UNIQUE,      -- hash of the code, which has one session
	sealed BLOB NOT NULL,             -- what was begun, for who has the id
	ends   INTEGER NOT NULL           -- microseconds
) STRICT;
CREATE INDEX enrol_session_ends ON enrol_session (ends);
