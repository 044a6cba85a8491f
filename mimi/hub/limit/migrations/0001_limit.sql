-- How many KeyPackages were claimed in a window. subject says of whom or by
-- whom; since
-- is when the window began, in microseconds.
CREATE TABLE limit_claim (
	subject TEXT    NOT NULL,
	since   INTEGER NOT NULL,
	count   INTEGER NOT NULL,
	PRIMARY KEY (subject)
) STRICT;
CREATE INDEX limit_claim_since ON limit_claim (since);
