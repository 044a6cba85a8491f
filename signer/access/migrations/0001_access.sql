-- Who may call. Times are Unix microseconds.
CREATE TABLE access_caller (
	tenant     TEXT    NOT NULL,
	name       TEXT    NOT NULL,
	role       TEXT    NOT NULL,
	grants     TEXT    NOT NULL, -- JSON
	state      TEXT    NOT NULL CHECK (state IN ('invited', 'active', 'revoked')),
	reason     TEXT    NOT NULL, -- of the revocation
	created_at INTEGER NOT NULL,
	not_after  INTEGER,          -- of the newest certificate
	PRIMARY KEY (tenant, name)
) STRICT;

-- One-time tokens. Of the secret there is only the SHA-256. key_hash is that of
-- the public key which the token went to; NULL while it is unused.
CREATE TABLE access_invitation (
	id          TEXT    NOT NULL PRIMARY KEY,
	secret_hash BLOB    NOT NULL,
	tenant      TEXT    NOT NULL,
	name        TEXT    NOT NULL,
	expires_at  INTEGER NOT NULL,
	key_hash    BLOB
) STRICT;
CREATE INDEX access_invitation_caller ON access_invitation (tenant, name);

-- Certificates that were issued: one that is not here is nobody's.
CREATE TABLE access_certificate (
	serial    TEXT    NOT NULL PRIMARY KEY,
	tenant    TEXT    NOT NULL,
	name      TEXT    NOT NULL,
	issued_at INTEGER NOT NULL,
	not_after INTEGER NOT NULL,
	revoked   INTEGER NOT NULL CHECK (revoked IN (0, 1))
) STRICT;
CREATE INDEX access_certificate_caller ON access_certificate (tenant, name);

-- The CA's own certificates, newest last.
CREATE TABLE access_authority (
	key_hash    BLOB    NOT NULL PRIMARY KEY,
	certificate BLOB    NOT NULL,
	not_after   INTEGER NOT NULL
) STRICT;
