CREATE TABLE IF NOT EXISTS certificate (
	issuer     BLOB NOT NULL,    -- SHA-256 of the issuer's SubjectPublicKeyInfo
	serial     TEXT NOT NULL,    -- lower-case hexadecimal
	kind       TEXT NOT NULL,
	names      TEXT NOT NULL,    -- JSON array
	key        BLOB NOT NULL,    -- SHA-256 of the certified SubjectPublicKeyInfo
	tbs        BLOB NOT NULL,    -- SHA-256 of the TBSCertificate
	not_before INTEGER NOT NULL, -- seconds
	not_after  INTEGER NOT NULL,
	prepared   INTEGER NOT NULL, -- microseconds, as all other times
	der        BLOB,             -- NULL while unfinished
	issued     INTEGER,
	revoked    INTEGER,
	reason     INTEGER,
	changed    INTEGER NOT NULL DEFAULT 0, -- number of the issuer's last CRL when the revocation last changed
	PRIMARY KEY (issuer, serial)
) STRICT;
CREATE INDEX IF NOT EXISTS certificate_revoked ON certificate (issuer, changed) WHERE revoked IS NOT NULL OR changed > 0;
CREATE INDEX IF NOT EXISTS certificate_unfinished ON certificate (issuer) WHERE der IS NULL;
CREATE TABLE IF NOT EXISTS crl (
	issuer      BLOB NOT NULL,
	number      INTEGER NOT NULL,
	base        INTEGER,          -- NULL for a full CRL
	this_update INTEGER NOT NULL,
	next_update INTEGER NOT NULL,
	der         BLOB,             -- NULL while unfinished
	PRIMARY KEY (issuer, number)
) STRICT;
