-- A full and a delta CRL that are issued together have one number.
CREATE TABLE crl_list (
	issuer      BLOB NOT NULL,
	number      INTEGER NOT NULL,
	base        INTEGER NOT NULL, -- of a delta; 0 for a full CRL
	this_update INTEGER NOT NULL, -- seconds
	next_update INTEGER NOT NULL,
	der         BLOB,             -- NULL while unfinished, empty once superseded
	PRIMARY KEY (issuer, number, base)
) STRICT;
INSERT INTO crl_list (issuer, number, base, this_update, next_update, der)
	SELECT issuer, number, coalesce(base, 0), this_update, next_update, der FROM crl;
-- The row that whoever changes a revocation or takes a number locks.
CREATE TABLE crl_issuer (
	issuer      BLOB PRIMARY KEY NOT NULL,
	number      INTEGER NOT NULL, -- the last that was taken
	this_update INTEGER NOT NULL
) STRICT;
INSERT INTO crl_issuer (issuer, number, this_update) SELECT issuer, max(number), max(this_update) FROM crl GROUP BY issuer;
DROP TABLE crl;
