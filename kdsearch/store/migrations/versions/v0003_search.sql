-- ---------------------------------------------------------------- studies and workers

ALTER TABLE kdsearch.study
    DROP CONSTRAINT study_state_check,
    ADD CONSTRAINT study_state_check CHECK (state IN ('open', 'paused', 'done', 'failed')),
    ADD COLUMN budget_epochs integer CHECK (budget_epochs > 0),
    ADD COLUMN budget_gpu_hours double precision CHECK (budget_gpu_hours > 0),
    ADD COLUMN gpu_seconds double precision NOT NULL DEFAULT 0;

-- Up to when the time in which this worker's GPU was busy is counted.
ALTER TABLE kdsearch.worker ADD COLUMN gpu_at timestamptz;
ALTER TABLE kdsearch.preparation ADD COLUMN taken_at timestamptz;

-- ---------------------------------------------------------------- repeats: 0 is the trial itself

ALTER TABLE kdsearch.epoch DROP CONSTRAINT epoch_study_id_number_fkey, DROP CONSTRAINT epoch_pkey;
ALTER TABLE kdsearch.test_read DROP CONSTRAINT test_read_study_id_number_fkey;

ALTER TABLE kdsearch.trial
    DROP CONSTRAINT trial_study_id_number_key,
    DROP CONSTRAINT trial_attempt_check,
    ALTER COLUMN optuna_trial_id DROP NOT NULL,
    ADD COLUMN repeat integer NOT NULL DEFAULT 0 CHECK (repeat >= 0),
    ADD COLUMN accumulate integer NOT NULL DEFAULT 1 CHECK (accumulate >= 1),
    ADD COLUMN previous_checkpoint text,
    ADD COLUMN epochs_run integer NOT NULL DEFAULT 0 CHECK (epochs_run >= 0),
    -- Waiting because its lease ran out: whoever held it may have it back until somebody takes it.
    ADD COLUMN swept boolean NOT NULL DEFAULT false,
    -- Whether the last attempt may still deliver: it was not ended by its own holder, or goes on.
    ADD COLUMN accepting boolean NOT NULL GENERATED ALWAYS AS (
        state IN ('running', 'waiting')
        OR (state = 'failed' AND coalesce(failure ->> 'kind' IN ('attempts', 'hang'), false))) STORED,
    ADD UNIQUE (study_id, number, repeat),
    ADD CONSTRAINT trial_attempt_check CHECK (attempt >= 0),
    ADD CONSTRAINT never_leased CHECK (attempt > 0 OR (worker_id = '' AND state IN ('waiting', 'stopped'))),
    ADD CONSTRAINT running_has_worker CHECK (state <> 'running' OR (attempt > 0 AND worker_id <> '')),
    ADD CONSTRAINT repeat_is_not_optunas CHECK ((repeat = 0) = (optuna_trial_id IS NOT NULL)),
    ADD CONSTRAINT repeat_is_not_told CHECK (repeat = 0 OR NOT told),
    ADD CONSTRAINT repeat_is_not_paused CHECK (repeat = 0 OR state <> 'paused'),
    ADD CONSTRAINT swept_waits CHECK (NOT swept OR state = 'waiting');
CREATE UNIQUE INDEX one_training_per_seed ON kdsearch.trial (study_id, number, (config ->> 'seed'));
CREATE INDEX trial_running ON kdsearch.trial (expires_at) WHERE state = 'running';

ALTER TABLE kdsearch.epoch
    ADD COLUMN repeat integer NOT NULL DEFAULT 0,
    ADD PRIMARY KEY (study_id, number, repeat, epoch),
    ADD FOREIGN KEY (study_id, number, repeat)
        REFERENCES kdsearch.trial (study_id, number, repeat) ON DELETE CASCADE;

ALTER TABLE kdsearch.test_read
    ADD COLUMN repeat integer NOT NULL DEFAULT 0 CHECK (repeat = 0),
    ADD FOREIGN KEY (study_id, number, repeat)
        REFERENCES kdsearch.trial (study_id, number, repeat) ON DELETE CASCADE;

UPDATE kdsearch.trial t SET epochs_run = greatest(
    coalesce(CAST(t.result ->> 'epochs_run' AS integer), 0),
    coalesce((SELECT max(e.epoch) FROM kdsearch.epoch e
              WHERE e.study_id = t.study_id AND e.number = t.number), 0));

-- ---------------------------------------------------------------- attempts: one row per lease

CREATE TABLE kdsearch.attempt (
    study_id   bigint NOT NULL,
    number     integer NOT NULL,
    repeat     integer NOT NULL,
    attempt    integer NOT NULL CHECK (attempt > 0),
    worker_id  text NOT NULL CHECK (worker_id <> ''),
    started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    ended      text CHECK (ended IN
        ('finished', 'given back', 'paused', 'lost', 'hang', 'crash', 'out_of_memory', 'exception')),
    traceback  text NOT NULL DEFAULT '',
    PRIMARY KEY (study_id, number, repeat, attempt),
    FOREIGN KEY (study_id, number, repeat)
        REFERENCES kdsearch.trial (study_id, number, repeat) ON DELETE CASCADE,
    CONSTRAINT end_has_a_time CHECK ((ended IS NULL) = (ended_at IS NULL))
);
CREATE INDEX attempt_by_worker ON kdsearch.attempt (worker_id, ended_at);

-- Of trials from before attempts were kept the last one is known.
INSERT INTO kdsearch.attempt (study_id, number, repeat, attempt, worker_id, started_at, ended_at, ended, traceback)
SELECT study_id, number, repeat, attempt, worker_id, started_at,
    CASE WHEN state <> 'running' THEN coalesce(finished_at, clock_timestamp()) END,
    CASE
        WHEN state = 'running' THEN NULL
        WHEN state IN ('complete', 'rejected') THEN 'finished'
        WHEN state = 'paused' THEN 'paused'
        WHEN failure ->> 'kind' IN ('exception', 'out_of_memory', 'hang') THEN failure ->> 'kind'
        WHEN deaths > 0 THEN 'lost'
        ELSE 'given back' END,
    coalesce(failure ->> 'traceback', '')
FROM kdsearch.trial WHERE attempt > 0 AND worker_id <> '';

-- ---------------------------------------------------------------- decisions and standings

CREATE TABLE kdsearch.decision (
    id       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_id bigint NOT NULL,
    number   integer NOT NULL,
    repeat   integer NOT NULL,
    attempt  integer NOT NULL CHECK (attempt >= 0),
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    action   text NOT NULL CHECK (action IN ('continue', 'pause', 'promote', 'reject', 'retry', 'stop')),
    rule     text NOT NULL,
    reason   text NOT NULL,
    epoch    integer,
    inputs   jsonb NOT NULL,
    FOREIGN KEY (study_id, number, repeat)
        REFERENCES kdsearch.trial (study_id, number, repeat) ON DELETE CASCADE
);
-- Said twice because the first answer was lost: one decision.
CREATE UNIQUE INDEX decision_once ON kdsearch.decision
    (study_id, number, repeat, attempt, action, rule, (coalesce(epoch, -1)));

CREATE TABLE kdsearch.standing (
    study_id bigint NOT NULL,
    number   integer NOT NULL,
    repeat   integer NOT NULL DEFAULT 0 CHECK (repeat = 0),
    quality  double precision NOT NULL,
    low      double precision NOT NULL,
    high     double precision NOT NULL,
    on_front double precision NOT NULL CHECK (on_front BETWEEN 0 AND 1),
    seeds    jsonb NOT NULL,
    at       timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (study_id, number),
    FOREIGN KEY (study_id, number, repeat)
        REFERENCES kdsearch.trial (study_id, number, repeat) ON DELETE CASCADE,
    CONSTRAINT low_is_low CHECK (low <= high)
);

-- ---------------------------------------------------------------- the dead

-- A server that was away could not be told by anybody that he lives: after a start it waits a while.
-- `ALTER DATABASE ... SET kdsearch.outage_grace_s = 5` changes how long.
CREATE FUNCTION kdsearch.has_expired(expires_at timestamptz) RETURNS boolean
LANGUAGE sql VOLATILE AS $$
    SELECT expires_at = '-infinity'  -- known to be dead
        OR (expires_at < clock_timestamp() AND clock_timestamp() >= pg_postmaster_start_time() + make_interval(
            secs => CAST(coalesce(nullif(current_setting('kdsearch.outage_grace_s', true), ''), '30')
                AS double precision)))
$$;

-- One death of a running trial, whose row the caller has locked: it waits again, or has failed.
CREATE FUNCTION kdsearch.count_death(dead bigint, how text, trace text, max_deaths integer) RETURNS void
LANGUAGE plpgsql AS $$
DECLARE
    t kdsearch.trial;
BEGIN
    SELECT * INTO STRICT t FROM kdsearch.trial WHERE id = dead;
    UPDATE kdsearch.attempt a SET ended = how, ended_at = clock_timestamp(), traceback = trace
    WHERE a.study_id = t.study_id AND a.number = t.number AND a.repeat = t.repeat AND a.attempt = t.attempt
        AND a.ended IS NULL;
    IF t.deaths + 1 < max_deaths THEN
        UPDATE kdsearch.trial
        SET state = 'waiting', deaths = deaths + 1, expires_at = NULL, swept = (how = 'lost')
        WHERE id = dead;
        RETURN;
    END IF;
    UPDATE kdsearch.trial
    SET state = 'failed', deaths = deaths + 1, expires_at = NULL, finished_at = clock_timestamp(),
        failure = (
            SELECT jsonb_build_object(
                'kind', CASE WHEN how = 'hang' THEN 'hang' ELSE 'attempts' END,
                'message', format('%s workers ended or hung in the middle of this trial: %s', t.deaths + 1,
                    coalesce(string_agg(a.worker_id, ', ' ORDER BY a.attempt), t.worker_id)),
                'traceback', coalesce(
                    (array_agg(a.traceback ORDER BY a.attempt DESC) FILTER (WHERE a.traceback <> ''))[1], ''))
            FROM kdsearch.attempt a
            WHERE a.study_id = t.study_id AND a.number = t.number AND a.repeat = t.repeat
                AND a.ended IN ('lost', 'hang', 'crash'))
    WHERE id = dead;
END
$$;

-- Takes the trials of dead workers back, of one study or (NULL) of all; how many there were.
CREATE FUNCTION kdsearch.sweep(of_study bigint, max_deaths integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    dead bigint;
    swept integer := 0;
BEGIN
    FOR dead IN
        SELECT t.id FROM kdsearch.trial t
        WHERE t.state = 'running' AND (of_study IS NULL OR t.study_id = of_study)
            AND kdsearch.has_expired(t.expires_at)
        ORDER BY t.id
        FOR UPDATE SKIP LOCKED
    LOOP
        PERFORM kdsearch.count_death(dead, 'lost', '', max_deaths);
        swept := swept + 1;
    END LOOP;
    RETURN swept;
END
$$;

-- The same at once for what one worker holds: whoever saw it end need not wait for its leases.
CREATE FUNCTION kdsearch.bury(dead_worker text, how text, trace text, max_deaths integer) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    dead bigint;
    buried integer := 0;
BEGIN
    FOR dead IN
        SELECT t.id FROM kdsearch.trial t
        WHERE t.state = 'running' AND t.worker_id = dead_worker
        ORDER BY t.id
        FOR UPDATE
    LOOP
        PERFORM kdsearch.count_death(dead, how, trace, max_deaths);
        buried := buried + 1;
    END LOOP;
    RETURN buried;
END
$$;
