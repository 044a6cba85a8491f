CREATE TABLE status_list (
	id      AUTOKEY,
	uri     TEXT NOT NULL UNIQUE,
	bits    INTEGER NOT NULL,
	size    INTEGER NOT NULL,
	version INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE status_entry (
	list   INTEGER NOT NULL REFERENCES status_list (id),
	idx    INTEGER NOT NULL,
	status INTEGER NOT NULL DEFAULT 0,
	PRIMARY KEY (list, idx)
) STRICT, WITHOUT ROWID;
CREATE INDEX status_entry_set ON status_entry (list, idx, status) WHERE status <> 0;
CREATE TABLE status_publication (
	id      AUTOKEY,
	list    INTEGER NOT NULL REFERENCES status_list (id),
	version INTEGER NOT NULL,
	iat     INTEGER NOT NULL, -- seconds
	exp     INTEGER NOT NULL,
	jwt     BLOB NOT NULL,
	cwt     BLOB NOT NULL
) STRICT;
CREATE INDEX status_publication_iat ON status_publication (list, iat);
