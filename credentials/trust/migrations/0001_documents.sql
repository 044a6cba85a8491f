-- What was fetched, as it came. It is parsed and verified anew when it is read.
CREATE TABLE trust_document (
    id         TEXT    NOT NULL PRIMARY KEY, -- kind and URI
    media_type TEXT    NOT NULL,
    etag       TEXT    NOT NULL,
    body       BLOB    NOT NULL,
    fetched    INTEGER NOT NULL, -- microseconds
    max_age    INTEGER NOT NULL  -- microseconds, as the server said; 0 if it did not
) STRICT, WITHOUT ROWID;

-- Credentials that are revoked for good.
CREATE TABLE trust_revoked (
    credential BLOB    NOT NULL PRIMARY KEY, -- SHA-256, see Evidence.ID
    issuer     TEXT    NOT NULL,             -- name of the entry
    detail     TEXT    NOT NULL,
    learned    INTEGER NOT NULL, -- microseconds
    forget     INTEGER NOT NULL  -- microseconds; when the credential has ended by itself
) STRICT, WITHOUT ROWID;
