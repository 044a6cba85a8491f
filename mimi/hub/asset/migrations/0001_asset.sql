-- Who keeps which asset. Several users may have uploaded the same octets.
CREATE TABLE asset (
	name    TEXT    NOT NULL, -- of the file: the SHA-256 of its octets
	owner   TEXT    NOT NULL,
	size    INTEGER NOT NULL,
	created INTEGER NOT NULL,
	expires INTEGER NOT NULL,
	PRIMARY KEY (name, owner)
) STRICT;
CREATE INDEX asset_by_owner ON asset (owner);
CREATE INDEX asset_expires ON asset (expires);

-- One row for each owner, which whoever uploads for it locks.
CREATE TABLE asset_owner (
	owner TEXT    NOT NULL PRIMARY KEY,
	size  INTEGER NOT NULL,
	count INTEGER NOT NULL
) STRICT;
