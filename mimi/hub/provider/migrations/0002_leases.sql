-- The epoch in which the last client that came to a room was there first: no
-- message of an earlier one is taken. 0 for rooms that were stored without.
ALTER TABLE room ADD COLUMN newest INTEGER NOT NULL DEFAULT 0;

-- The room on whose participants this one depends, or ''.
ALTER TABLE room ADD COLUMN parent TEXT NOT NULL DEFAULT '';
CREATE INDEX room_parent ON room (parent) WHERE parent <> '';

-- Names the franking key that the room has (SHA-256); NULL if that is not known.
ALTER TABLE room ADD COLUMN franking BLOB;

-- When a credential was found to be suspended, milliseconds, or 0.
ALTER TABLE held ADD COLUMN suspended INTEGER NOT NULL DEFAULT 0;

-- The node whose worker has the lease.
ALTER TABLE follower ADD COLUMN holder TEXT NOT NULL DEFAULT '';

-- The nodes of the provider. Each counts its beats; one that stops counting has
-- died, and the others take over what it delivered.
CREATE TABLE node (
	id TEXT PRIMARY KEY,
	beat INTEGER NOT NULL
) STRICT;
