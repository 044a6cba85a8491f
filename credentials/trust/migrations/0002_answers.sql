-- Which of two is newer is decided by what their issuer wrote into them (see
-- order in order.go), whoever fetched which. NULL says that it is not known.
ALTER TABLE trust_document ADD COLUMN issue BLOB;

-- The newest answer about what was ever suspended: one certificate, or one entry
-- of a status list.
CREATE TABLE trust_answer (
    subject   BLOB    NOT NULL PRIMARY KEY, -- SHA-256
    issue     BLOB    NOT NULL,             -- order of the document that said so
    suspended INTEGER NOT NULL,             -- 1, or 0 if it has returned
    detail    TEXT    NOT NULL,
    forget    INTEGER NOT NULL              -- microseconds; when the credential has ended by itself
) STRICT, WITHOUT ROWID;
