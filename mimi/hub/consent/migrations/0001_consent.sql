-- What our users have said: the last word of each scope. room is empty for any
-- room.
CREATE TABLE consent_word (
	target    TEXT    NOT NULL,
	requester TEXT    NOT NULL,
	room      TEXT    NOT NULL,
	granted   INTEGER NOT NULL, -- 0 or 1
	at        INTEGER NOT NULL,
	PRIMARY KEY (target, requester, room)
) STRICT;

-- What users of others have said to ours.
CREATE TABLE consent_told (
	requester TEXT    NOT NULL,
	target    TEXT    NOT NULL,
	room      TEXT    NOT NULL,
	granted   INTEGER NOT NULL,
	at        INTEGER NOT NULL,
	PRIMARY KEY (requester, target, room)
) STRICT;

-- Requests that wait for an answer: those that our users got (sent 0) and
-- those that they made (sent 1). One between two of our users stands twice.
CREATE TABLE consent_request (
	sent      INTEGER NOT NULL,
	target    TEXT    NOT NULL,
	requester TEXT    NOT NULL,
	room      TEXT    NOT NULL,
	provider  TEXT    NOT NULL, -- of the requester
	at        INTEGER NOT NULL,
	PRIMARY KEY (sent, target, requester, room)
) STRICT;
CREATE INDEX consent_request_provider ON consent_request (sent, target, provider);
CREATE INDEX consent_request_requester ON consent_request (sent, requester);
CREATE INDEX consent_request_age ON consent_request (at);

-- What must still be told: to another provider (destination is its domain) or
-- to a user of ours (destination is the URI). Those of one destination go in
-- the order of id. due is also the end of the lease of who is sending.
CREATE TABLE consent_queue (
	id          AUTOKEY,
	destination TEXT    NOT NULL,
	entry       BLOB    NOT NULL, -- ConsentEntry
	attempts    INTEGER NOT NULL,
	created     INTEGER NOT NULL,
	due         INTEGER NOT NULL
) STRICT;
CREATE INDEX consent_queue_destination ON consent_queue (destination, id);
CREATE INDEX consent_queue_due ON consent_queue (due);
