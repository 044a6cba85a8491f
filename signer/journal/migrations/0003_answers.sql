-- What an idempotency key gives again is in the entry: its rows, which lie at
-- random, are written before the device works and not after. NULL without such a
-- key. result, signature and device of journal_idempotency are of older releases;
-- in rows that are written from now on they stay NULL.
ALTER TABLE journal_entry ADD COLUMN answer BLOB;
