CREATE TABLE credential (
	id          TEXT PRIMARY KEY NOT NULL, -- 16 random octets in lower-case hexadecimal
	type        TEXT NOT NULL,
	kind        TEXT NOT NULL,    -- device, hub, or that of a CA's certificate
	issuer      TEXT NOT NULL,    -- iss, or the subject of the CA
	issuer_key  TEXT NOT NULL,    -- SHA-256 of its SubjectPublicKeyInfo, hexadecimal
	client      TEXT NOT NULL,
	user_uri    TEXT NOT NULL,
	subject     TEXT NOT NULL,    -- of what has no client: mimi://host, or a CA's name
	holder      TEXT NOT NULL,    -- JWK thumbprint of the key it is for
	not_before  INTEGER NOT NULL, -- seconds
	not_after   INTEGER NOT NULL,
	prepared    INTEGER NOT NULL, -- microseconds
	issued      INTEGER,          -- NULL while it may or may not have been signed
	serial      TEXT NOT NULL,    -- of a certificate
	list        TEXT NOT NULL,    -- URI of the status list, or ''
	idx         INTEGER NOT NULL, -- on the list, or -1
	attestation INTEGER NOT NULL,
	evidence    BLOB,
	digest      BLOB,             -- SHA-256 of the credential as it was handed out
	state       TEXT NOT NULL,    -- valid, suspended, revoked
	reason      INTEGER NOT NULL,
	changed     INTEGER NOT NULL  -- microseconds; 0 if never
) STRICT;
CREATE INDEX credential_order ON credential (prepared, id);
CREATE INDEX credential_client ON credential (client);
CREATE INDEX credential_user ON credential (user_uri);
CREATE INDEX credential_holder ON credential (holder);
CREATE UNIQUE INDEX credential_serial ON credential (issuer_key, serial) WHERE serial <> '';
-- Every change of a state, in the order of the commits.
CREATE TABLE credential_change (
	seq        INTEGER PRIMARY KEY NOT NULL,
	credential TEXT NOT NULL,
	state      TEXT NOT NULL,
	reason     INTEGER NOT NULL,
	at         INTEGER NOT NULL,  -- microseconds
	place      TEXT NOT NULL,     -- where it is published: 'ca ' and the issuer key, or the URI of a list, or ''
	published  INTEGER            -- microseconds; NULL until then
) STRICT;
CREATE INDEX credential_change_due ON credential_change (place, seq) WHERE published IS NULL;
CREATE INDEX credential_change_of ON credential_change (credential);
-- One row, which whoever changes a state locks, so that seq is the order of the commits.
CREATE TABLE credential_clock (id INTEGER PRIMARY KEY NOT NULL, seq INTEGER NOT NULL) STRICT;
INSERT INTO credential_clock (id, seq) VALUES (1, 0);
