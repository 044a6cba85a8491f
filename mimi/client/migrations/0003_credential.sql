-- SHA-256 of the credential that the provider was last told, and 1 while a room
-- may still have another credential or leaf key.
ALTER TABLE client ADD COLUMN credential BLOB;
ALTER TABLE client ADD COLUMN moving INTEGER NOT NULL DEFAULT 0;
