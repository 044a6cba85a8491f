-- Row 1 is the sequence number of the newest event. Whoever updates it holds the
-- row until its commit, so that events become visible in their order. Row 2 is
-- that of the newest event that is not kept any more.
CREATE TABLE counter (
	id INTEGER PRIMARY KEY,
	seq INTEGER NOT NULL
) STRICT;
INSERT INTO counter (id, seq) VALUES (1, 0), (2, 0);

-- Rooms whose hub we are (hub = ''), and those of which we follow another hub.
CREATE TABLE room (
	id AUTOKEY,
	uri TEXT NOT NULL UNIQUE,
	hub TEXT NOT NULL,
	group_id BLOB NOT NULL,
	epoch INTEGER NOT NULL,
	version INTEGER NOT NULL,      -- counts what changed the room's state
	last_ts INTEGER NOT NULL,      -- newest accepted timestamp, milliseconds
	head INTEGER NOT NULL,         -- seq of the newest event
	snapshot_seq INTEGER NOT NULL,
	snapshot_ts INTEGER NOT NULL,
	snapshot_len INTEGER NOT NULL,
	log_len INTEGER NOT NULL,      -- octets of handshakes since the snapshot
	log_commits INTEGER NOT NULL,
	created INTEGER NOT NULL,
	closed INTEGER NOT NULL,       -- when it was destroyed, or 0
	fixed_set BLOB                 -- of a room of fixed membership: who is in it
) STRICT;

CREATE TABLE room_snapshot (
	room INTEGER PRIMARY KEY,
	data BLOB NOT NULL
) STRICT;

CREATE TABLE event (
	seq INTEGER PRIMARY KEY,
	room INTEGER NOT NULL,
	kind INTEGER NOT NULL,
	ts INTEGER NOT NULL,
	epoch INTEGER NOT NULL,
	hash BLOB,                     -- of what was accepted, to know it again
	body BLOB NOT NULL,            -- one FanoutMessage
	partial BLOB,
	providers TEXT NOT NULL,       -- of a Welcome: the hosts it is for
	deaf TEXT NOT NULL,            -- hosts whose users may not receive it
	at INTEGER NOT NULL            -- when it was stored, milliseconds
) STRICT;
CREATE INDEX event_room ON event (room, seq);
CREATE UNIQUE INDEX event_hash ON event (room, hash);
CREATE INDEX event_at ON event (at);

-- The leaves of our rooms, also those that are gone.
CREATE TABLE member (
	room INTEGER NOT NULL,
	leaf INTEGER NOT NULL,
	since INTEGER NOT NULL,        -- epoch in which the leaf was there first
	client TEXT NOT NULL,
	user_uri TEXT NOT NULL,
	credential BLOB NOT NULL,      -- CredentialID
	type INTEGER NOT NULL,
	level INTEGER NOT NULL,
	issuer TEXT NOT NULL,
	not_after INTEGER NOT NULL,    -- seconds, or 0
	until INTEGER,                 -- epoch in which it was gone
	gone_at INTEGER,               -- accepted timestamp of that commit
	PRIMARY KEY (room, leaf, since)
) STRICT;
CREATE INDEX member_client ON member (client, until);
CREATE INDEX member_credential ON member (credential);

-- The credentials of leaves, to ask again whether they are believed.
CREATE TABLE held (
	credential BLOB PRIMARY KEY,   -- CredentialID
	host TEXT NOT NULL,
	suite INTEGER NOT NULL,
	key BLOB NOT NULL,
	type INTEGER NOT NULL,
	body BLOB NOT NULL
) STRICT;

-- What a client hears of a room: the events after from_seq, up to until_seq.
CREATE TABLE subscription (
	client TEXT NOT NULL,
	room INTEGER NOT NULL,
	from_seq INTEGER NOT NULL,
	until_seq INTEGER,
	muted_seq INTEGER,             -- no application messages after it
	PRIMARY KEY (client, room, from_seq)
) STRICT;
CREATE INDEX subscription_room ON subscription (room);

-- Events for one client.
CREATE TABLE direct (
	seq INTEGER NOT NULL,
	client TEXT NOT NULL,
	kind INTEGER NOT NULL,
	room INTEGER NOT NULL,         -- or 0
	event INTEGER NOT NULL,        -- seq of the event that has the payload, or 0
	payload BLOB,
	at INTEGER NOT NULL,
	PRIMARY KEY (client, seq)
) STRICT;
CREATE INDEX direct_at ON direct (at);

-- The providers that follow a room of ours, and how far they have come.
CREATE TABLE follower (
	room INTEGER NOT NULL,
	provider TEXT NOT NULL,
	sent INTEGER NOT NULL,         -- seq up to which all is delivered
	until_seq INTEGER,
	due INTEGER,                   -- when to deliver next, milliseconds; NULL if nothing waits
	lease INTEGER NOT NULL,        -- until when a worker has it
	attempts INTEGER NOT NULL,
	PRIMARY KEY (room, provider)
) STRICT;
CREATE INDEX follower_due ON follower (due);

CREATE TABLE device (
	client TEXT PRIMARY KEY,
	user_uri TEXT NOT NULL,
	tls_key BLOB NOT NULL UNIQUE,
	suite INTEGER NOT NULL,
	signature_key BLOB NOT NULL,
	credential_type INTEGER NOT NULL,
	credential BLOB NOT NULL,
	registered INTEGER NOT NULL
) STRICT;
CREATE INDEX device_user ON device (user_uri);

CREATE TABLE invitation (
	hash BLOB PRIMARY KEY,
	user_uri TEXT NOT NULL,
	expires INTEGER NOT NULL,
	client TEXT                    -- who used it
) STRICT;

CREATE TABLE key_package (
	ref BLOB PRIMARY KEY,
	client TEXT NOT NULL,
	suite INTEGER NOT NULL,
	last_resort INTEGER NOT NULL,
	not_after INTEGER NOT NULL,    -- seconds
	data BLOB NOT NULL,
	taken INTEGER,                 -- when it was handed out first, milliseconds
	requester TEXT,
	room TEXT
) STRICT;
CREATE INDEX key_package_free ON key_package (client, suite, taken);

-- Answers to keyMaterial, for the same request a little later.
CREATE TABLE key_answer (
	hash BLOB PRIMARY KEY,
	at INTEGER NOT NULL,
	response BLOB NOT NULL
) STRICT;

-- What joiners were told by groupInfo.
CREATE TABLE joining (
	room INTEGER NOT NULL,
	client TEXT NOT NULL,
	epoch INTEGER NOT NULL,
	refs BLOB NOT NULL,
	code BLOB,                     -- hash of the join code shown
	PRIMARY KEY (room, client)
) STRICT;

CREATE TABLE join_code (
	hash BLOB PRIMARY KEY,
	room INTEGER NOT NULL,
	role INTEGER NOT NULL,
	expires INTEGER NOT NULL,      -- milliseconds
	uses INTEGER NOT NULL
) STRICT;

-- Things that are seen once: HPKE keys of groupInfo, bodies of notify.
CREATE TABLE seen (
	hash BLOB PRIMARY KEY,
	at INTEGER NOT NULL
) STRICT;
CREATE INDEX seen_at ON seen (at);

CREATE TABLE abuse_report (
	id AUTOKEY,
	room TEXT NOT NULL,
	at INTEGER NOT NULL,
	provider TEXT NOT NULL,
	reporter TEXT NOT NULL,
	accused TEXT NOT NULL,
	note TEXT NOT NULL,
	body BLOB NOT NULL,
	verdicts BLOB NOT NULL
) STRICT;
