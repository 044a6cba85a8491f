-- Whose word it is: the URI of a user of ours, or the domain of another provider.
ALTER TABLE consent_queue ADD COLUMN author TEXT NOT NULL DEFAULT '';
CREATE INDEX consent_queue_author ON consent_queue (author);
