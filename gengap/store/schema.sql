-- The ledger of a store. Rows are added, never changed; the files of a run lie in runs/<key>/.

CREATE TABLE IF NOT EXISTS meta (
    name  TEXT PRIMARY KEY,
    value TEXT NOT NULL
);

CREATE TABLE IF NOT EXISTS problems (
    fingerprint TEXT PRIMARY KEY,
    facts       TEXT NOT NULL          -- JSON: names, sizes, number of weights
);

CREATE TABLE IF NOT EXISTS runs (
    key         TEXT PRIMARY KEY,      -- hash of problem and recipe
    problem     TEXT NOT NULL,         -- fingerprint
    recipe      TEXT NOT NULL,         -- JSON, every field
    outcome     TEXT NOT NULL,         -- finished, diverged, failed
    step        INTEGER NOT NULL,      -- updates made, or the update that diverged
    reason      TEXT NOT NULL,
    cost        TEXT NOT NULL,         -- JSON: seconds, steps, samples
    environment TEXT NOT NULL,         -- JSON: machine and versions
    created     TEXT NOT NULL          -- UTC, ISO 8601
);

CREATE TABLE IF NOT EXISTS history (
    run   TEXT NOT NULL REFERENCES runs (key),
    step  INTEGER NOT NULL,
    point TEXT NOT NULL,               -- JSON: losses, accuracies, lr, samples, seconds
    PRIMARY KEY (run, step)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS measures (
    subject  TEXT NOT NULL,            -- key of a run, or two keys joined by "+"
    name     TEXT NOT NULL,            -- sharpness, distance, interpolation
    settings TEXT NOT NULL,            -- canonical JSON of what decides the value
    record   TEXT NOT NULL,            -- JSON
    created  TEXT NOT NULL,
    PRIMARY KEY (subject, name, settings)
) WITHOUT ROWID;
