-- The state of one client. Octets that hold secrets or plaintext are sealed
-- with the state's key. Times are milliseconds since the UNIX epoch.

CREATE TABLE client (
    one        INTEGER PRIMARY KEY CHECK (one = 1),
    client_uri TEXT NOT NULL,
    user_uri   TEXT NOT NULL,
    suite      INTEGER NOT NULL,
    cursor     INTEGER NOT NULL DEFAULT 0, -- of the newest event that was taken in
    registered INTEGER NOT NULL DEFAULT 0
) STRICT;

CREATE TABLE seal (
    one     INTEGER PRIMARY KEY CHECK (one = 1),
    wrapped BLOB NOT NULL,                 -- the state's key, encrypted to a key of the device; or its hash, if a file has it
    place   TEXT NOT NULL CHECK (place IN ('device', 'file'))
) STRICT;

CREATE TABLE mls_group (
    id     BLOB PRIMARY KEY,
    epoch  INTEGER NOT NULL,
    tree   BLOB NOT NULL,
    secret BLOB NOT NULL                   -- sealed
) STRICT;

CREATE TABLE key_package (
    ref         BLOB PRIMARY KEY,
    state       BLOB NOT NULL,             -- sealed
    not_after   INTEGER NOT NULL,          -- seconds
    last_resort INTEGER NOT NULL,
    uploaded    INTEGER NOT NULL DEFAULT 0
) STRICT;

-- Keys of the device that KeyPackages refer to. The row is there before the
-- key, so that no key is left behind without one.
CREATE TABLE device_key (
    name   TEXT PRIMARY KEY,
    public BLOB UNIQUE,                    -- NULL while it is made
    ref    BLOB,                           -- KeyPackageRef; NULL until there is one
    made   INTEGER NOT NULL
) STRICT;

-- Software leaf keys of the bound mode.
CREATE TABLE leaf_key (
    public     BLOB PRIMARY KEY,
    private    BLOB NOT NULL,              -- sealed PKCS #8
    credential BLOB NOT NULL,
    made       INTEGER NOT NULL,
    until      INTEGER NOT NULL
) STRICT;

CREATE TABLE room (
    uri      TEXT PRIMARY KEY,
    group_id BLOB NOT NULL,
    status   TEXT NOT NULL,
    request  BLOB,                         -- what is to be sent again, while the status is creating or joining
    detail   TEXT NOT NULL DEFAULT '',
    signed   BLOB,                         -- SHA-256 of the last Commit that a signing service signed, until its fate is known
    signed_epoch INTEGER NOT NULL DEFAULT 0,
    pending  INTEGER NOT NULL DEFAULT 0,   -- 1 while the fate of a commit of this client is not known
    since    INTEGER NOT NULL,             -- timestamp of the joining
    newest   INTEGER NOT NULL DEFAULT 0    -- accepted timestamp of the newest event that was taken in
) STRICT;

CREATE TABLE message (
    n          AUTOKEY,
    room       TEXT NOT NULL,
    id         BLOB NOT NULL,
    accepted   INTEGER NOT NULL,
    sender     TEXT NOT NULL,              -- user URI
    client_uri TEXT NOT NULL,
    group_id   BLOB NOT NULL,
    epoch      INTEGER NOT NULL,
    leaf       INTEGER NOT NULL,
    level      INTEGER NOT NULL,
    issuer     TEXT NOT NULL,
    data       BLOB NOT NULL,              -- sealed application_data, exactly as it came
    frank      BLOB,
    franked    TEXT NOT NULL,              -- empty if the frank verifies, else why not
    quarantine TEXT NOT NULL DEFAULT '',   -- why the sender's credential is in doubt
    kind       TEXT NOT NULL,
    UNIQUE (room, id)
) STRICT;
CREATE INDEX message_order ON message (room, accepted);

CREATE TABLE outbox (
    n          AUTOKEY,
    room       TEXT NOT NULL,
    id         BLOB NOT NULL,
    data       BLOB NOT NULL,              -- sealed application_data
    ciphertext BLOB NOT NULL,              -- MLSMessage; sent again as it is until its fate is known
    hash       BLOB NOT NULL,              -- SHA-256 of the ciphertext
    epoch      INTEGER NOT NULL,
    made       INTEGER NOT NULL,
    UNIQUE (room, id)
) STRICT;

-- What others report of our messages, and what we still owe them.
CREATE TABLE status (
    room   TEXT NOT NULL,
    id     BLOB NOT NULL,
    user_uri TEXT NOT NULL,
    status INTEGER NOT NULL,
    at     INTEGER NOT NULL,
    PRIMARY KEY (room, id, user_uri)
) STRICT;

-- The key first seen for a client whose identity nobody has proven, and the
-- keys that a person has compared.
CREATE TABLE pin (
    client_uri  TEXT PRIMARY KEY,
    fingerprint BLOB NOT NULL,
    verified    INTEGER NOT NULL DEFAULT 0,
    at          INTEGER NOT NULL
) STRICT;

-- What came and could not be taken in.
CREATE TABLE refused (
    n      AUTOKEY,
    room   TEXT NOT NULL,
    seq    INTEGER NOT NULL UNIQUE,
    at     INTEGER NOT NULL,
    what   TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;

-- Leaves that commits of the last epochs changed, for late messages: the leaf
-- as it was up to and in the epoch.
CREATE TABLE past_leaf (
    group_id      BLOB NOT NULL,
    epoch         INTEGER NOT NULL,
    leaf          INTEGER NOT NULL,
    type          INTEGER NOT NULL,
    credential    BLOB NOT NULL,
    signature_key BLOB NOT NULL,
    PRIMARY KEY (group_id, leaf, epoch)
) STRICT;
