-- Ratchet trees of rooms: whole at one commit, and at later ones what has
-- changed since the one before (mls.PatchTree). Snapshots and Welcomes refer to
-- them.
CREATE TABLE room_tree (
	room INTEGER NOT NULL,
	seq INTEGER NOT NULL,          -- of the event that began the tree's epoch
	base INTEGER NOT NULL,         -- seq of the whole tree that it goes back to: its own if it is whole
	epoch INTEGER NOT NULL,
	data BLOB NOT NULL,
	PRIMARY KEY (room, seq)
) STRICT;

-- Of a Welcome: seq of the tree that goes with it, or 0 if the body has it.
ALTER TABLE event ADD COLUMN tree INTEGER NOT NULL DEFAULT 0;
CREATE INDEX event_tree ON event (room, tree) WHERE tree <> 0;

-- seq of the snapshot's tree, or 0 if data has it, as before this table.
ALTER TABLE room_snapshot ADD COLUMN tree INTEGER NOT NULL DEFAULT 0;
