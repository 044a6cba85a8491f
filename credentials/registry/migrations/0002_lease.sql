-- Who is signing for a place just now.
CREATE TABLE credential_lease (
	place  TEXT PRIMARY KEY NOT NULL, -- as in credential_change
	holder TEXT NOT NULL,             -- a publisher, by a random name
	until  INTEGER NOT NULL           -- microseconds
) STRICT;
