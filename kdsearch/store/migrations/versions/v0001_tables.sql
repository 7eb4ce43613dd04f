-- All times are the database's own (clock_timestamp), so that no client's clock or time zone matters.

CREATE TABLE kdsearch.study (
    id             bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    name           text NOT NULL UNIQUE CHECK (name <> ''),
    optuna_name    text NOT NULL UNIQUE,
    spec_text      text NOT NULL,
    spec_json      jsonb NOT NULL,
    spec_sha256    text NOT NULL,
    dataset_sha256 text NOT NULL,
    data_fingerprint text NOT NULL,
    artifacts_url  text NOT NULL,
    state          text NOT NULL DEFAULT 'open' CHECK (state IN ('open', 'done', 'failed')),
    error          text,
    prepared       text,
    teacher        jsonb,
    budget_trials  integer NOT NULL CHECK (budget_trials > 0),
    budget_hours   double precision CHECK (budget_hours > 0),
    budget_failed  integer NOT NULL CHECK (budget_failed >= 0),
    active_seconds double precision NOT NULL DEFAULT 0,
    last_active    timestamptz,
    created_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE kdsearch.trial (
    id               bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_id         bigint NOT NULL REFERENCES kdsearch.study ON DELETE CASCADE,
    number           integer NOT NULL CHECK (number >= 0),
    optuna_trial_id  bigint NOT NULL,
    config           jsonb NOT NULL,
    config_key       text NOT NULL,
    architecture_key text NOT NULL,
    student          text NOT NULL,
    scheme           text NOT NULL,
    state            text NOT NULL CHECK (state IN
        ('waiting', 'running', 'paused', 'complete', 'stopped', 'rejected', 'failed')),
    attempt          integer NOT NULL CHECK (attempt > 0),
    deaths           integer NOT NULL DEFAULT 0 CHECK (deaths >= 0),
    worker_id        text NOT NULL,
    expires_at       timestamptz,
    measured         boolean NOT NULL DEFAULT false,
    latency          jsonb,
    checkpoint       text,
    result           jsonb,
    scores           jsonb,
    quality          double precision,
    constraints      jsonb,
    failure          jsonb,
    told             boolean NOT NULL DEFAULT false,
    created_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    started_at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    finished_at      timestamptz,
    UNIQUE (study_id, number),
    UNIQUE (study_id, optuna_trial_id),
    CONSTRAINT lease_while_running CHECK ((state = 'running') = (expires_at IS NOT NULL)),
    CONSTRAINT end_when_finished CHECK
        ((state IN ('complete', 'stopped', 'rejected', 'failed')) = (finished_at IS NOT NULL)),
    CONSTRAINT complete_has_result CHECK
        (state <> 'complete' OR (result IS NOT NULL AND scores IS NOT NULL AND quality IS NOT NULL)),
    CONSTRAINT failed_has_failure CHECK ((state = 'failed') = (failure IS NOT NULL)),
    CONSTRAINT measured_has_latency CHECK (measured = (latency IS NOT NULL)),
    CONSTRAINT told_when_finished CHECK (NOT told OR finished_at IS NOT NULL)
);
CREATE INDEX trial_by_state ON kdsearch.trial (study_id, state, number);
CREATE INDEX trial_untold ON kdsearch.trial (study_id, number) WHERE finished_at IS NOT NULL AND NOT told;

CREATE TABLE kdsearch.epoch (
    study_id  bigint NOT NULL,
    number    integer NOT NULL,
    epoch     integer NOT NULL CHECK (epoch > 0),
    stage     text NOT NULL,
    rows_seen bigint NOT NULL CHECK (rows_seen >= 0),
    losses    jsonb NOT NULL,
    scores    jsonb,
    quality   double precision,
    seconds   double precision NOT NULL,
    at        timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (study_id, number, epoch),
    FOREIGN KEY (study_id, number) REFERENCES kdsearch.trial (study_id, number) ON DELETE CASCADE
);

CREATE TABLE kdsearch.preparation (
    study_id   bigint PRIMARY KEY REFERENCES kdsearch.study ON DELETE CASCADE,
    state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    attempt    integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    deaths     integer NOT NULL DEFAULT 0 CHECK (deaths >= 0),
    worker_id  text,
    expires_at timestamptz,
    progress   text NOT NULL DEFAULT '',
    checkpoint text,
    error      text,
    CONSTRAINT preparation_lease_while_running CHECK
        ((state = 'running') = (expires_at IS NOT NULL) AND (state <> 'running' OR worker_id IS NOT NULL)),
    CONSTRAINT failed_preparation_has_error CHECK ((state = 'failed') = (error IS NOT NULL))
);

CREATE TABLE kdsearch.cache_entry (
    kind       text NOT NULL,
    key        text NOT NULL,
    sha256     text NOT NULL,
    meta       jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (kind, key, sha256)
);

CREATE TABLE kdsearch.worker (
    id          text PRIMARY KEY CHECK (id <> ''),
    study_id    bigint NOT NULL REFERENCES kdsearch.study ON DELETE CASCADE,
    host        text NOT NULL,
    pid         integer NOT NULL,
    device      text NOT NULL,
    profile_key text,
    state       text NOT NULL,
    started_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    seen_at     timestamptz NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX worker_by_study ON kdsearch.worker (study_id, started_at);

CREATE TABLE kdsearch.artifact (
    sha256     text PRIMARY KEY CHECK (sha256 ~ '^[0-9a-f]{64}$'),
    bytes      bigint NOT NULL CHECK (bytes >= 0),
    created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE kdsearch.test_read (
    study_id bigint NOT NULL,
    number   integer NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    metrics  jsonb NOT NULL,
    PRIMARY KEY (study_id, number),
    FOREIGN KEY (study_id, number) REFERENCES kdsearch.trial (study_id, number) ON DELETE CASCADE
);
