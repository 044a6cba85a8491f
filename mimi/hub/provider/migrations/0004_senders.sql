-- Entries of external_senders of a provider whose last participant has left the
-- room, to be listed again when one comes back (an external_senders extension).
CREATE TABLE sender (
	room INTEGER NOT NULL,
	provider TEXT NOT NULL,
	entries BLOB NOT NULL,
	PRIMARY KEY (room, provider)
) STRICT;
