CREATE TABLE enrol_invitation (
	hash       TEXT PRIMARY KEY NOT NULL, -- SHA-256 of the code, hexadecimal
	client     TEXT NOT NULL,
	user_uri   TEXT NOT NULL,
	type       TEXT NOT NULL,    -- of the credential
	lifetime   INTEGER NOT NULL, -- of the credential, seconds
	least      INTEGER NOT NULL, -- attestation level that is asked for
	expires    INTEGER NOT NULL, -- microseconds
	used       INTEGER NOT NULL, -- microseconds; 0 if the code is good
	credential TEXT NOT NULL     -- id of what was issued, or ''
) STRICT;
CREATE INDEX enrol_invitation_expires ON enrol_invitation (expires);
