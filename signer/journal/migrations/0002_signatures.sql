-- An index of signatures has its next row on any of its pages, and each page is
-- written for it. Instead, the signatures of 8192 entries at a time are sorted
-- when there are so many, and the few behind them are searched one by one.
DROP INDEX journal_entry_signature;

-- The signatures of a run of 8192 entries whose SHA-256 begins with the octet,
-- in order: 8 octets for each, the next 6 of the SHA-256 and 2 for its place in
-- the run, big-endian. Rows are never changed; each run has 256 of them.
CREATE TABLE journal_signature (
	octet      INTEGER NOT NULL,
	run        INTEGER NOT NULL, -- of the entries from run * 8192 on
	signatures BLOB    NOT NULL,
	PRIMARY KEY (octet, run)
) STRICT, WITHOUT ROWID;
