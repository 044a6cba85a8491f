-- The leaves of rooms of other hubs, as far as we can follow them: a room has a
-- row from the first Welcome on, whose tree shows them. member has those of our
-- own clients, in these rooms too.
CREATE TABLE followed (
	room INTEGER PRIMARY KEY,
	suite INTEGER NOT NULL,
	epoch INTEGER NOT NULL,        -- or -1: that of the next commit
	leaves BLOB NOT NULL           -- a bit for each leaf, set if it is not blank; leaf 0 is the lowest of the first octet
) STRICT;

CREATE INDEX device_signature_key ON device (signature_key);
