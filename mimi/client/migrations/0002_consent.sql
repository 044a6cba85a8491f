-- What the user was asked and told of consents, as it came. The provider has
-- what stands; this is for telling a person.
CREATE TABLE consent_event (
    n         AUTOKEY,
    seq       INTEGER NOT NULL UNIQUE, -- of the event
    at        INTEGER NOT NULL,
    operation INTEGER NOT NULL,
    requester TEXT NOT NULL,
    target    TEXT NOT NULL,
    room      TEXT NOT NULL            -- empty for any room
) STRICT;
