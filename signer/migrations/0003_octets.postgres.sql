-- Pages go by the octets of ids, which is not the order of the primary key's
-- index in a database of another language.
CREATE INDEX keys_id_octets ON keys (id COLLATE "C");
