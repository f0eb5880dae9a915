-- The layout of the embedded store, version 2 (PRAGMA user_version). Every statement may run again.
--
-- A message is a row of `message`, and it is in exactly one place: waiting, held or delayed. Moving it writes
-- the small row of the place and never the message itself. What was refused waits in the queue `<queue>.dead`.
-- Ids grow with time, so the order of ids is the order of sending; a message that goes to the end of its queue
-- (requeued, refused) is written again and gets a new id.
-- Moments that are compared between processes (seen_at, read_at) are seconds of the system's monotonic clock;
-- moments that users give or see (due, refused_at, expires_at) are unix seconds.

CREATE TABLE IF NOT EXISTS message (
    id          INTEGER PRIMARY KEY,
    queue       TEXT    NOT NULL,
    priority    INTEGER NOT NULL,
    exchange    TEXT    NOT NULL,
    routing_key TEXT    NOT NULL,
    failures    INTEGER NOT NULL DEFAULT 0,
    redelivered INTEGER NOT NULL DEFAULT 0,
    lost        INTEGER NOT NULL DEFAULT 0,  -- its worker died after it had started
    reason      TEXT,                        -- why it was refused, and when
    refused_at  REAL,
    envelope    BLOB    NOT NULL             -- MessagePack; last, so that the columns before it are read without it
);

CREATE TABLE IF NOT EXISTS waiting (
    queue    TEXT    NOT NULL,
    priority INTEGER NOT NULL,
    id       INTEGER NOT NULL,
    PRIMARY KEY (queue, priority, id)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS held (
    id      INTEGER PRIMARY KEY,
    owner   INTEGER NOT NULL,
    started INTEGER NOT NULL DEFAULT 0
);

CREATE TABLE IF NOT EXISTS delayed (
    due REAL    NOT NULL,
    id  INTEGER NOT NULL,
    PRIMARY KEY (due, id)
) WITHOUT ROWID;

-- Receivers. What is held by an owner that is not in this table has lost its worker.
CREATE TABLE IF NOT EXISTS worker (
    owner   INTEGER PRIMARY KEY,
    node    TEXT NOT NULL,
    host    TEXT NOT NULL,     -- where the process number means something
    pid     INTEGER NOT NULL,
    birth   INTEGER NOT NULL,  -- when the process began, because numbers are used again
    seen_at REAL NOT NULL
);

CREATE TABLE IF NOT EXISTS exchange (
    name TEXT PRIMARY KEY,
    type TEXT NOT NULL
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS binding (
    exchange    TEXT NOT NULL,
    routing_key TEXT NOT NULL,
    arguments   TEXT NOT NULL,  -- JSON
    queue       TEXT NOT NULL,
    PRIMARY KEY (exchange, routing_key, arguments, queue)
) WITHOUT ROWID;

-- Queues that vanish, with what is in them, when nobody has read them for `expires` seconds.
CREATE TABLE IF NOT EXISTS expiring (
    queue   TEXT PRIMARY KEY,
    expires REAL NOT NULL,
    read_at REAL NOT NULL
) WITHOUT ROWID;

-- A random number, new with each change of exchange and binding: whoever has read them knows when to read again.
CREATE TABLE IF NOT EXISTS topology (
    generation INTEGER NOT NULL
);
INSERT INTO topology SELECT 0 WHERE NOT EXISTS (SELECT 1 FROM topology);

-- A value that is written again is a new row with a greater version, and versions are never used twice: whoever has
-- seen everything up to one finds what is new behind it.
CREATE TABLE IF NOT EXISTS result (
    version    INTEGER PRIMARY KEY AUTOINCREMENT,
    key        TEXT    NOT NULL UNIQUE,
    state      TEXT    NOT NULL,
    expires_at REAL,
    payload    BLOB    NOT NULL
);
CREATE INDEX IF NOT EXISTS result_expiry ON result (expires_at) WHERE expires_at IS NOT NULL;

-- Chords that count their members (celery.brokers.sqlite.chords).
CREATE TABLE IF NOT EXISTS chord (
    id         INTEGER PRIMARY KEY,
    group_id   TEXT    NOT NULL UNIQUE,
    size       INTEGER,                      -- NULL: it has not begun
    extra      INTEGER NOT NULL DEFAULT 0,   -- members that joined later
    counted    INTEGER NOT NULL DEFAULT 0,   -- how many rows of chord_part it has
    token      TEXT    NOT NULL DEFAULT '',  -- of the latest claim
    claim_ends REAL    NOT NULL DEFAULT 0,   -- monotonic clock
    closed     INTEGER NOT NULL DEFAULT 0,   -- a mark: the parts are gone
    expires_at REAL
);
CREATE INDEX IF NOT EXISTS chord_expiry ON chord (expires_at) WHERE expires_at IS NOT NULL;

CREATE TABLE IF NOT EXISTS chord_part (
    chord    INTEGER NOT NULL,
    position INTEGER NOT NULL,  -- in the header; behind all others for a part without one
    task_id  TEXT    NOT NULL,
    payload  BLOB    NOT NULL,
    PRIMARY KEY (chord, position, task_id)
) WITHOUT ROWID;

-- Chords whose members are being sent, and until when their producers' word is good (monotonic clock).
CREATE TABLE IF NOT EXISTS chord_sender (
    group_id   TEXT PRIMARY KEY,
    body       BLOB NOT NULL,
    lease_ends REAL NOT NULL
) WITHOUT ROWID;
