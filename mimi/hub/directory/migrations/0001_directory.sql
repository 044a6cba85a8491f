CREATE TABLE directory_user (
	id  AUTOKEY,
	uri TEXT NOT NULL UNIQUE
) STRICT;

-- Profiles as their users gave them.
CREATE TABLE directory_field (
	user_id     INTEGER NOT NULL,
	position    INTEGER NOT NULL,
	source      INTEGER NOT NULL,
	name        TEXT    NOT NULL,
	value       TEXT    NOT NULL,
	searchable  INTEGER NOT NULL,
	disclosable INTEGER NOT NULL,
	PRIMARY KEY (user_id, position)
) STRICT;

-- What may be found. A value that its user does not let be searched is not
-- here, so that a search for it is one for nothing.
CREATE TABLE directory_term (
	id      AUTOKEY,
	user_id INTEGER NOT NULL,
	source  INTEGER NOT NULL,
	name    TEXT    NOT NULL,
	value   TEXT    NOT NULL,
	folded  TEXT    NOT NULL -- the value without case
) STRICT;
CREATE INDEX directory_term_value ON directory_term (source, name, value, user_id);
CREATE INDEX directory_term_user ON directory_term (user_id);

-- Every three runes in a row of a folded value.
CREATE TABLE directory_gram (
	gram    TEXT    NOT NULL,
	term_id INTEGER NOT NULL,
	PRIMARY KEY (gram, term_id)
) STRICT;
CREATE INDEX directory_gram_term ON directory_gram (term_id);
