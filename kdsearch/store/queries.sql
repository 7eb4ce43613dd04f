-- Every statement that kdsearch runs on its own tables. A write names its guard in the WHERE:
-- `attempt` is the fencing token of a lease, `worker_id` its holder. A lease that ran out is lost only
-- when somebody else takes the trial: until then `accepting` holds, and what comes late is welcome.

-- ================================================================ artifacts and caches

-- name: forget_artifact
DELETE FROM kdsearch.artifact WHERE sha256 = :sha256;

-- name: record_artifact
INSERT INTO kdsearch.artifact (sha256, bytes) VALUES (:sha256, :bytes)
ON CONFLICT (sha256) DO NOTHING;

-- name: find_cached
SELECT sha256, meta FROM kdsearch.cache_entry
WHERE kind = :kind AND key = :key
ORDER BY created_at, sha256;

-- name: add_cached
INSERT INTO kdsearch.cache_entry (kind, key, sha256, meta)
VALUES (:kind, :key, :sha256, CAST(:meta AS jsonb))
ON CONFLICT (kind, key, sha256) DO NOTHING;

-- ================================================================ studies

-- name: insert_study
INSERT INTO kdsearch.study (
    name, optuna_name, spec_text, spec_json, spec_sha256, dataset_sha256, data_fingerprint,
    artifacts_url, budget_trials, budget_epochs, budget_hours, budget_gpu_hours, budget_failed)
VALUES (
    :name, :optuna_name, :spec_text, CAST(:spec_json AS jsonb), :spec_sha256, :dataset_sha256,
    :data_fingerprint, :artifacts_url, :budget_trials, :budget_epochs, :budget_hours, :budget_gpu_hours,
    :budget_failed)
ON CONFLICT DO NOTHING
RETURNING id;

-- name: insert_preparation
INSERT INTO kdsearch.preparation (study_id) VALUES (:study_id);

-- name: study_record
SELECT id, name, optuna_name, spec_text, spec_json, spec_sha256, dataset_sha256, data_fingerprint,
    artifacts_url, state, error, prepared, created_at
FROM kdsearch.study WHERE name = :name;

-- name: study_names
SELECT name FROM kdsearch.study ORDER BY name;

-- name: set_study_state
UPDATE kdsearch.study SET state = :state, error = :error WHERE id = :study_id;

-- name: set_teacher
UPDATE kdsearch.study SET teacher = CAST(:teacher AS jsonb) WHERE id = :study_id;

-- name: set_validation_rows
UPDATE kdsearch.study SET validation_rows = :validation_rows WHERE id = :study_id;

-- name: set_prepared
UPDATE kdsearch.study SET prepared = :prepared WHERE id = :study_id;

-- name: set_budget
-- A study that had spent its budget is open again when the budget changes.
UPDATE kdsearch.study
SET state = CASE
        WHEN state = 'done'
            AND (budget_trials, budget_epochs, budget_hours, budget_gpu_hours, budget_failed)
            IS DISTINCT FROM (:trials, CAST(:epochs AS integer), CAST(:hours AS double precision),
                CAST(:gpu_hours AS double precision), :failed) THEN 'open'
        ELSE state END,
    budget_trials = :trials, budget_epochs = :epochs, budget_hours = :hours,
    budget_gpu_hours = :gpu_hours, budget_failed = :failed
WHERE id = :study_id;

-- name: move_study
UPDATE kdsearch.study SET state = :after WHERE id = :study_id AND state = :before;

-- name: wake_study
-- Something is to be done in a study that was done.
UPDATE kdsearch.study SET state = 'open', error = NULL WHERE id = :study_id AND state = 'done';

-- name: budget_limits
SELECT budget_trials AS trials, budget_epochs AS epochs, budget_hours AS hours,
    budget_gpu_hours AS gpu_hours, budget_failed AS failed
FROM kdsearch.study WHERE id = :study_id;

-- name: extend_budget
UPDATE kdsearch.study
SET budget_trials = budget_trials + :trials, budget_epochs = budget_epochs + CAST(:epochs AS integer),
    budget_hours = budget_hours + CAST(:hours AS double precision),
    budget_gpu_hours = budget_gpu_hours + CAST(:gpu_hours AS double precision),
    budget_failed = budget_failed + :failed
WHERE id = :study_id;

-- name: stop_study
-- Its budget is cut to the trials that it has, so that nothing new begins should it be opened for one of them.
UPDATE kdsearch.study s
SET state = 'done', error = :why, budget_trials = greatest(1, (
    SELECT count(*) FROM kdsearch.trial t WHERE t.study_id = s.id AND t.repeat = 0))
WHERE s.id = :study_id AND s.state <> 'done';

-- name: stop_trials
-- Whoever has one of them finds its lease lost at its next beat.
WITH stopped AS (
    UPDATE kdsearch.trial
    SET state = 'stopped', swept = false, expires_at = NULL, finished_at = clock_timestamp()
    WHERE study_id = :study_id AND state IN ('waiting', 'running', 'paused')
    RETURNING study_id, number, repeat, attempt, epochs_run),
ended AS (
    UPDATE kdsearch.attempt a SET ended = 'given back', ended_at = clock_timestamp()
    FROM stopped s
    WHERE (a.study_id, a.number, a.repeat, a.attempt) = (s.study_id, s.number, s.repeat, s.attempt)
        AND a.ended IS NULL),
said AS (
    INSERT INTO kdsearch.decision (study_id, number, repeat, attempt, action, rule, reason, epoch, inputs)
    SELECT study_id, number, repeat, attempt, 'stop', 'closed', :why, nullif(epochs_run, 0), '{}' FROM stopped
    ON CONFLICT DO NOTHING)
SELECT number FROM stopped WHERE repeat = 0 ORDER BY number;

-- name: stop_preparation
UPDATE kdsearch.preparation SET state = 'waiting', expires_at = NULL
WHERE study_id = :study_id AND state = 'running';

-- name: delete_study
DELETE FROM kdsearch.study WHERE id = :study_id;

-- name: digests_of_study
-- Every text that looks like the name of an artifact in what is on record of a study, or of all others.
SELECT DISTINCT found[1] FROM (
    SELECT CAST(to_jsonb(s) - 'spec_text' AS text) AS said FROM kdsearch.study s
    WHERE (s.id = :study_id) <> CAST(:others AS boolean)
    UNION ALL
    SELECT CAST(to_jsonb(t) - 'config' AS text) FROM kdsearch.trial t
    WHERE (t.study_id = :study_id) <> CAST(:others AS boolean)
    UNION ALL
    SELECT CAST(to_jsonb(p) AS text) FROM kdsearch.preparation p
    WHERE (p.study_id = :study_id) <> CAST(:others AS boolean)
    UNION ALL
    SELECT CAST(r.result AS text) FROM kdsearch.request r
    WHERE (r.study_id = :study_id) <> CAST(:others AS boolean)) everything,
    LATERAL regexp_matches(said, '[0-9a-f]{64}', 'g') found;

-- name: known_artifacts
SELECT sha256, bytes FROM kdsearch.artifact
WHERE sha256 IN (SELECT jsonb_array_elements_text(CAST(:digests AS jsonb)));

-- name: cached_digests
SELECT DISTINCT sha256 FROM kdsearch.cache_entry;

-- name: forget_cached
DELETE FROM kdsearch.cache_entry WHERE sha256 = :sha256;

-- name: reopen_study
UPDATE kdsearch.study SET state = 'open', error = NULL WHERE id = :study_id;

-- name: reopen_preparation
UPDATE kdsearch.preparation SET state = 'waiting', error = NULL, deaths = 0
WHERE study_id = :study_id AND state = 'failed';

-- name: touch_active
-- Wall-clock time in which somebody worked: a longer silence counts as one minute.
UPDATE kdsearch.study
SET active_seconds = active_seconds
        + least(coalesce(extract(epoch FROM clock_timestamp() - last_active), 0), 60),
    last_active = clock_timestamp()
WHERE id = :study_id;

-- name: touch_gpu
-- The time since the last touch in which this worker held a lease; a longer silence counts as one minute.
WITH me AS (
    SELECT id, study_id, gpu_at, clock_timestamp() AS now
    FROM kdsearch.worker WHERE id = :worker_id FOR UPDATE),
held AS (
    SELECT a.started_at AS since, coalesce(a.ended_at, me.now) AS until
    FROM me JOIN kdsearch.attempt a ON a.worker_id = me.id
    WHERE a.ended_at IS NULL OR me.gpu_at IS NULL OR a.ended_at > me.gpu_at
    UNION ALL
    SELECT p.taken_at, me.now
    FROM me JOIN kdsearch.preparation p ON p.study_id = me.study_id AND p.worker_id = me.id
    WHERE p.state = 'running' AND p.taken_at IS NOT NULL),
busy AS (
    SELECT coalesce(sum(greatest(extract(epoch FROM
        held.until - greatest(held.since, coalesce(me.gpu_at, held.since))), 0)), 0) AS seconds
    FROM held CROSS JOIN me),
touched AS (
    UPDATE kdsearch.worker w SET gpu_at = me.now FROM me WHERE w.id = me.id)
UPDATE kdsearch.study s SET gpu_seconds = s.gpu_seconds + least(busy.seconds, 60)
FROM me, busy WHERE s.id = me.study_id;

-- name: budget_state
SELECT s.budget_trials AS max_trials, s.budget_failed AS max_failed, s.budget_epochs AS max_epochs,
    coalesce(s.active_seconds >= s.budget_hours * 3600, false)
        OR coalesce(s.gpu_seconds >= s.budget_gpu_hours * 3600, false) AS out_of_time,
    count(t.id) FILTER (WHERE t.repeat = 0) AS num_trials,
    count(t.id) FILTER (WHERE t.repeat = 0 AND t.state = 'failed') AS num_failed,
    count(t.id) FILTER (WHERE t.repeat = 0 AND t.state IN ('waiting', 'running')) AS num_open,
    count(t.id) FILTER (WHERE t.repeat > 0 AND t.state IN ('waiting', 'running')) AS num_open_repeats,
    count(t.id) FILTER (WHERE t.state = 'paused') AS num_paused,
    coalesce(sum(CASE
        WHEN t.state IN ('waiting', 'running')
            THEN greatest(CAST(t.config ->> 'epochs' AS integer), t.epochs_run)
        ELSE t.epochs_run END) FILTER (WHERE t.repeat = 0), 0) AS epochs_reserved
FROM kdsearch.study s LEFT JOIN kdsearch.trial t ON t.study_id = s.id
WHERE s.id = :study_id
GROUP BY s.id;

-- name: awaits_measuring
SELECT EXISTS (
    SELECT 1 FROM kdsearch.trial WHERE study_id = :study_id AND state = 'waiting' AND NOT measured);

-- ================================================================ leases

-- name: study_turn_patience
SELECT set_config('lock_timeout', '240s', true), set_config('statement_timeout', '240s', true),
    set_config('idle_in_transaction_session_timeout', '240s', true);

-- name: study_turn
SELECT pg_advisory_xact_lock(hashtextextended('kdsearch.study', :study_id));

-- name: sweep
SELECT kdsearch.sweep(CAST(:study_id AS bigint), :max_deaths);

-- name: take_waiting
WITH next AS (
    SELECT t.id FROM kdsearch.trial t JOIN kdsearch.study s ON s.id = t.study_id
    WHERE t.study_id = :study_id AND t.state = 'waiting' AND (t.measured OR :can_measure)
        AND s.state <> 'paused'
    ORDER BY t.repeat > 0, t.number, t.repeat LIMIT 1
    FOR UPDATE OF t SKIP LOCKED),
taken AS (
    UPDATE kdsearch.trial t
    SET state = 'running', attempt = t.attempt + 1, worker_id = :worker_id, swept = false,
        started_at = CASE WHEN t.attempt = 0 THEN clock_timestamp() ELSE t.started_at END,
        expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision))
    FROM next WHERE t.id = next.id
    RETURNING t.*),
logged AS (
    INSERT INTO kdsearch.attempt (study_id, number, repeat, attempt, worker_id)
    SELECT study_id, number, repeat, attempt, worker_id FROM taken)
SELECT study_id, number, repeat, optuna_trial_id, attempt, worker_id, config, checkpoint,
    previous_checkpoint, accumulate, latency, origin
FROM taken;

-- name: stop_unmeasured
WITH stopped AS (
    UPDATE kdsearch.trial SET state = 'stopped', swept = false, finished_at = clock_timestamp()
    WHERE study_id = :study_id AND state = 'waiting' AND NOT measured
    RETURNING study_id, number, repeat, attempt)
INSERT INTO kdsearch.decision (study_id, number, repeat, attempt, action, rule, reason, inputs)
SELECT study_id, number, repeat, attempt, 'stop', 'budget',
    'the hours were spent while it waited for a machine that measures its latency', '{}'
FROM stopped
ON CONFLICT DO NOTHING;

-- name: count_trials
SELECT count(*) FROM kdsearch.trial WHERE study_id = :study_id AND repeat = 0;

-- name: known_numbers
SELECT number FROM kdsearch.trial WHERE study_id = :study_id AND repeat = 0;

-- name: insert_running
WITH made AS (
    INSERT INTO kdsearch.trial (
        study_id, number, optuna_trial_id, config, config_key, architecture_key, student, scheme, origin,
        state, attempt, worker_id, expires_at)
    VALUES (
        :study_id, :number, :optuna_trial_id, CAST(:config AS jsonb), :config_key, :architecture_key,
        :student, :scheme, :origin, 'running', 1, :worker_id,
        clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision)))
    RETURNING study_id, number, repeat, attempt, worker_id)
INSERT INTO kdsearch.attempt (study_id, number, repeat, attempt, worker_id)
SELECT study_id, number, repeat, attempt, worker_id FROM made;

-- name: insert_ready
INSERT INTO kdsearch.trial (
    study_id, number, optuna_trial_id, config, config_key, architecture_key, student, scheme, origin,
    state, attempt, worker_id)
VALUES (
    :study_id, :number, :optuna_trial_id, CAST(:config AS jsonb), :config_key, :architecture_key,
    :student, :scheme, :origin, 'waiting', 0, '');

-- name: config_of
SELECT config FROM kdsearch.trial
WHERE study_id = :study_id AND number = :number AND repeat = 0 AND state = 'complete';

-- name: insert_repeat
-- A seed that was trained already, by the trial itself or by a repeat, is not trained again.
INSERT INTO kdsearch.trial (
    study_id, number, repeat, config, config_key, architecture_key, student, scheme, origin,
    measured, latency, state, attempt, worker_id)
SELECT t.study_id, t.number,
    (SELECT max(r.repeat) + 1 FROM kdsearch.trial r WHERE r.study_id = t.study_id AND r.number = t.number),
    CAST(:config AS jsonb), :config_key, t.architecture_key, t.student, t.scheme, t.origin,
    t.measured, t.latency, 'waiting', 0, ''
FROM kdsearch.trial t
WHERE t.study_id = :study_id AND t.number = :number AND t.repeat = 0
ON CONFLICT (study_id, number, (config ->> 'seed')) DO NOTHING;

-- name: retry_failed
-- Whoever had it may deliver no more. What broke begins anew, what was lost goes on from its checkpoint.
UPDATE kdsearch.trial
SET state = 'waiting', failure = NULL, finished_at = NULL, told = false, deaths = 0, accumulate = 1,
    worker_id = '',
    checkpoint = CASE WHEN failure ->> 'kind' IN ('attempts', 'hang') THEN checkpoint END,
    previous_checkpoint = CASE WHEN failure ->> 'kind' IN ('attempts', 'hang') THEN previous_checkpoint END
WHERE study_id = :study_id AND number = :number AND repeat = 0 AND state = 'failed';

-- name: revive_repeat
UPDATE kdsearch.trial
SET state = 'waiting', failure = NULL, finished_at = NULL, deaths = 0, accumulate = 1, worker_id = '',
    checkpoint = NULL, previous_checkpoint = NULL
WHERE study_id = :study_id AND number = :number AND repeat > 0 AND config ->> 'seed' = CAST(:seed AS text)
    AND state IN ('stopped', 'failed');

-- name: trial_state
SELECT state FROM kdsearch.trial WHERE study_id = :study_id AND number = :number AND repeat = 0;

-- name: renew
-- One that ran out and was swept is had back while nobody has taken it: its holder was not dead.
UPDATE kdsearch.trial
SET state = 'running', deaths = deaths - CAST(swept AS integer), swept = false,
    expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision))
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND (state = 'running' OR swept);

-- name: reopen_attempt
-- Guarded by renew in the same transaction.
UPDATE kdsearch.attempt SET ended = NULL, ended_at = NULL
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND ended = 'lost';

-- name: end_attempt
-- Guarded in the same transaction. 'lost' and the like were guesses: what the holder says is better.
UPDATE kdsearch.attempt
SET ended = :ended, ended_at = clock_timestamp(),
    traceback = coalesce(nullif(:traceback, ''), traceback)
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id;

-- name: has_ended_so
SELECT EXISTS (
    SELECT 1 FROM kdsearch.attempt
    WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
        AND worker_id = :worker_id AND ended = :ended);

-- name: give_back
UPDATE kdsearch.trial
SET state = 'waiting', expires_at = NULL, deaths = deaths - CAST(swept AS integer), swept = false
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND (state = 'running' OR swept);

-- name: pause
UPDATE kdsearch.trial
SET state = 'paused', expires_at = NULL, deaths = deaths - CAST(swept AS integer), swept = false
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND state IN ('running', 'waiting');

-- name: retry_smaller
UPDATE kdsearch.trial
SET state = 'waiting', expires_at = NULL, deaths = deaths - CAST(swept AS integer), swept = false,
    accumulate = :accumulate
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND (state = 'running' OR swept);

-- name: promote
-- Whoever paused it holds it no more: its attempt may not deliver again.
UPDATE kdsearch.trial SET state = 'waiting', worker_id = ''
WHERE study_id = :study_id AND number = :number AND repeat = 0 AND state = 'paused';

-- name: running_id
SELECT id FROM kdsearch.trial
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND state = 'running'
FOR UPDATE;

-- name: explain_death
-- A sweep has counted it already and knew no reason; its holder does.
UPDATE kdsearch.trial
SET swept = false,
    failure = failure || jsonb_build_object('traceback', CAST(:traceback AS text))  -- none where it waits
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND (swept OR (state = 'failed' AND failure ->> 'kind' = 'attempts'));

-- name: count_death
SELECT kdsearch.count_death(:id, :how, :trace, :max_deaths);

-- name: bury
SELECT kdsearch.bury(:worker_id, :how, :trace, :max_deaths);

-- name: paused_for_time
SELECT t.number FROM kdsearch.trial t JOIN kdsearch.decision d
    ON (d.study_id, d.number, d.repeat, d.attempt) = (t.study_id, t.number, t.repeat, t.attempt)
WHERE t.study_id = :study_id AND t.state = 'paused' AND d.action = 'pause' AND d.rule = 'budget'
ORDER BY t.number;

-- name: close_study
WITH closed AS (
    UPDATE kdsearch.trial SET state = 'stopped', finished_at = clock_timestamp()
    WHERE study_id = :study_id AND state = 'paused'
    RETURNING study_id, number, repeat, attempt, epochs_run),
said AS (
    INSERT INTO kdsearch.decision (study_id, number, repeat, attempt, action, rule, reason, epoch, inputs)
    SELECT study_id, number, repeat, attempt, 'stop', 'closed',
        'the study ended while it was paused', epochs_run, '{}'
    FROM closed
    ON CONFLICT DO NOTHING)
SELECT number FROM closed ORDER BY number;

-- name: left_checkpoints
SELECT checkpoint FROM kdsearch.trial
WHERE study_id = :study_id AND state IN ('stopped', 'failed') AND checkpoint IS NOT NULL
UNION
SELECT previous_checkpoint FROM kdsearch.trial
WHERE study_id = :study_id AND state IN ('stopped', 'failed') AND previous_checkpoint IS NOT NULL;

-- name: forget_checkpoints
UPDATE kdsearch.trial SET checkpoint = NULL, previous_checkpoint = NULL
WHERE study_id = :study_id AND state IN ('stopped', 'failed')
    AND (checkpoint IS NOT NULL OR previous_checkpoint IS NOT NULL);

-- ================================================================ what the holder writes

-- name: record_latency
UPDATE kdsearch.trial SET measured = true, latency = CAST(:latency AS jsonb)
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND accepting;

-- name: record_checkpoint
UPDATE kdsearch.trial
SET previous_checkpoint = CASE
        WHEN checkpoint = :checkpoint THEN previous_checkpoint
        ELSE coalesce(CAST(:previous AS text), checkpoint) END,
    checkpoint = :checkpoint, epochs_run = greatest(epochs_run, :epochs_run)
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND accepting;

-- name: record_epoch
-- Guarded by record_checkpoint in the same transaction.
INSERT INTO kdsearch.epoch (
    study_id, number, repeat, epoch, stage, rows_seen, losses, scores, quality, seconds)
VALUES (
    :study_id, :number, :repeat, :epoch, :stage, :rows_seen, CAST(:losses AS jsonb),
    CAST(:scores AS jsonb), :quality, :seconds)
ON CONFLICT (study_id, number, repeat, epoch) DO UPDATE
SET stage = excluded.stage, rows_seen = excluded.rows_seen, losses = excluded.losses,
    scores = excluded.scores, quality = excluded.quality, seconds = excluded.seconds, at = excluded.at;

-- name: hold
-- For a write to another table: nobody takes the trial before the transaction ends.
SELECT count(*) FROM (
    SELECT 1 FROM kdsearch.trial
    WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
        AND worker_id = :worker_id AND accepting
    FOR UPDATE) held;

-- name: insert_decision
INSERT INTO kdsearch.decision (
    study_id, number, repeat, attempt, action, rule, reason, epoch, inputs)
SELECT study_id, number, repeat, attempt, :action, :rule, :reason, :epoch, CAST(:inputs AS jsonb)
FROM kdsearch.trial
WHERE study_id = :study_id AND number = :number AND repeat = :repeat
ON CONFLICT DO NOTHING;

-- name: finish
-- What failed because its workers were taken for dead may still be completed, but not fail again. An attempt
-- that was taken for lost and yet delivers is no death.
UPDATE kdsearch.trial t
SET state = :state, expires_at = NULL, finished_at = clock_timestamp(), swept = false, told = false,
    deaths = deaths - (
        SELECT CAST(count(*) AS integer) FROM kdsearch.attempt a
        WHERE a.study_id = t.study_id AND a.number = t.number AND a.repeat = t.repeat
            AND a.attempt = t.attempt AND a.ended IN ('lost', 'hang', 'crash')),
    result = CAST(:result AS jsonb), scores = CAST(:scores AS jsonb), quality = :quality,
    constraints = CAST(:constraints AS jsonb), failure = CAST(:failure AS jsonb),
    epochs_run = greatest(epochs_run, :epochs_run)
WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
    AND worker_id = :worker_id
    AND accepting AND NOT (state = 'failed' AND :state = 'failed');

-- name: is_finished_so
SELECT EXISTS (
    SELECT 1 FROM kdsearch.trial
    WHERE study_id = :study_id AND number = :number AND repeat = :repeat AND attempt = :attempt
        AND worker_id = :worker_id AND state = :state
        AND result IS NOT DISTINCT FROM CAST(:result AS jsonb)
        AND scores IS NOT DISTINCT FROM CAST(:scores AS jsonb)
        AND constraints IS NOT DISTINCT FROM CAST(:constraints AS jsonb)
        AND failure IS NOT DISTINCT FROM CAST(:failure AS jsonb));

-- name: untold
SELECT number, optuna_trial_id, state, quality, latency, constraints
FROM kdsearch.trial
WHERE study_id = :study_id AND repeat = 0 AND finished_at IS NOT NULL AND NOT told
ORDER BY number;

-- name: mark_told
UPDATE kdsearch.trial SET told = true
WHERE study_id = :study_id AND number = :number AND repeat = 0 AND finished_at IS NOT NULL;

-- ================================================================ preparation

-- name: fail_dead_preparation
WITH failed AS (
    UPDATE kdsearch.preparation
    SET state = 'failed', expires_at = NULL, deaths = deaths + 1,
        error = format('%s workers ended while they prepared the teacher, the last one was %s',
            deaths + 1, worker_id)
    WHERE study_id = :study_id AND state = 'running' AND kdsearch.has_expired(expires_at)
        AND deaths + 1 >= :max_deaths
    RETURNING study_id, error)
UPDATE kdsearch.study s SET state = 'failed', error = failed.error FROM failed WHERE s.id = failed.study_id;

-- name: take_preparation
UPDATE kdsearch.preparation
SET deaths = deaths + CASE WHEN state = 'running' THEN 1 ELSE 0 END,
    state = 'running', attempt = attempt + 1, worker_id = :worker_id, taken_at = clock_timestamp(),
    expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision))
WHERE study_id = :study_id
    AND (state = 'waiting' OR (state = 'running' AND kdsearch.has_expired(expires_at)))
RETURNING study_id, attempt, worker_id, checkpoint;

-- name: renew_preparation
UPDATE kdsearch.preparation
SET expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision))
WHERE study_id = :study_id AND attempt = :attempt AND worker_id = :worker_id AND state = 'running';

-- name: preparation_progress
UPDATE kdsearch.preparation SET progress = :progress, checkpoint = coalesce(:checkpoint, checkpoint)
WHERE study_id = :study_id AND attempt = :attempt AND worker_id = :worker_id AND state = 'running';

-- name: finish_preparation
UPDATE kdsearch.preparation SET state = 'done', expires_at = NULL
WHERE study_id = :study_id AND attempt = :attempt AND worker_id = :worker_id AND state IN ('running', 'done');

-- name: fail_preparation
UPDATE kdsearch.preparation SET state = 'failed', expires_at = NULL, error = :error
WHERE study_id = :study_id AND attempt = :attempt AND worker_id = :worker_id
    AND state IN ('running', 'failed');

-- name: give_back_preparation
UPDATE kdsearch.preparation SET state = 'waiting', expires_at = NULL
WHERE study_id = :study_id AND attempt = :attempt AND worker_id = :worker_id
    AND state IN ('running', 'waiting');

-- name: bury_preparation
-- Its holder is known to be dead: the next look finds the lease run out, also right after a start.
UPDATE kdsearch.preparation SET expires_at = '-infinity'
WHERE worker_id = :worker_id AND state = 'running';

-- ================================================================ workers

-- name: register_worker
INSERT INTO kdsearch.worker (id, study_id, host, pid, device, profile_key, state)
VALUES (:id, :study_id, :host, :pid, :device, :profile_key, 'active')
ON CONFLICT (id) DO UPDATE SET state = 'active', seen_at = clock_timestamp();

-- name: worker_seen
UPDATE kdsearch.worker SET seen_at = clock_timestamp() WHERE id = :id RETURNING draining;

-- name: drain_worker
UPDATE kdsearch.worker SET draining = true WHERE id = :id AND state = 'active';

-- name: worker_state
SELECT state FROM kdsearch.worker WHERE id = :id;

-- name: worker_ids
SELECT id FROM kdsearch.worker WHERE state = 'active' ORDER BY started_at DESC LIMIT 1000;

-- name: retire_worker
UPDATE kdsearch.worker SET state = 'retired', seen_at = clock_timestamp() WHERE id = :id;

-- ================================================================ the test split, once per trial

-- name: find_test_read
SELECT metrics FROM kdsearch.test_read WHERE study_id = :study_id AND number = :number;

-- name: record_test_read
INSERT INTO kdsearch.test_read (study_id, number, metrics)
VALUES (:study_id, :number, CAST(:metrics AS jsonb))
ON CONFLICT (study_id, number) DO NOTHING;

-- name: count_test_reads
SELECT count(*) FROM kdsearch.test_read WHERE study_id = :study_id;

-- ================================================================ how sure the front is

-- name: standings_turn
-- Several workers come to the end of a study at once, and none sees what another has not committed.
SELECT id FROM kdsearch.study WHERE id = :study_id FOR NO KEY UPDATE;

-- name: forget_standings
DELETE FROM kdsearch.standing WHERE study_id = :study_id;

-- name: insert_standing
INSERT INTO kdsearch.standing (study_id, number, quality, low, high, on_front, seeds)
VALUES (:study_id, :number, :quality, :low, :high, :on_front, CAST(:seeds AS jsonb));

-- ================================================================ what the lists and the dashboard read

-- name: list_studies
SELECT s.*, coalesce(c.counts, '{}') AS counts, coalesce(c.epochs_run, 0) AS epochs_run
FROM kdsearch.study s
LEFT JOIN (
    SELECT study_id, jsonb_object_agg(state, num) AS counts, CAST(sum(epochs) AS bigint) AS epochs_run
    FROM (
        SELECT study_id, state, count(*) AS num, sum(epochs_run) AS epochs
        FROM kdsearch.trial WHERE repeat = 0 GROUP BY study_id, state) by_state
    GROUP BY study_id) c ON c.study_id = s.id
WHERE CAST(:name AS text) IS NULL OR s.name = :name
ORDER BY s.created_at DESC, s.id DESC;

-- name: list_trials
-- Of one trial all there is; in a list neither the quantiles of its latency nor its confusion matrix.
SELECT t.number, t.state, t.origin, t.config, t.scores, t.constraints, t.attempt, t.worker_id,
    CASE WHEN CAST(:number AS integer) IS NULL THEN t.latency - 'quantiles_ms' ELSE t.latency END AS latency,
    CASE WHEN CAST(:number AS integer) IS NULL THEN t.result - 'confusion' ELSE t.result END AS result,
    t.epochs_run, t.deaths, t.accumulate, t.failure, t.created_at, t.started_at, t.finished_at, s.spec_json #>> '{objectives,latency}' AS latency_name
FROM kdsearch.trial t JOIN kdsearch.study s ON s.id = t.study_id
WHERE t.study_id = :study_id AND t.repeat = 0
    AND (CAST(:state AS text) IS NULL OR t.state = :state)
    AND (CAST(:number AS integer) IS NULL OR t.number = :number)
ORDER BY t.number;

-- name: list_epochs
SELECT epoch, stage, rows_seen, losses, scores, seconds, at
FROM kdsearch.epoch WHERE study_id = :study_id AND number = :number AND repeat = 0
ORDER BY epoch;

-- name: history
-- Settled: no statement of this file changes the row or its epochs any more, and it is not of this
-- transaction, which may be undone.
SELECT t.number, t.config, t.state, CAST(t.latency ->> :latency_name AS double precision) AS latency_ms,
    t.quality, e.epochs, e.qualities,
    t.state IN ('complete', 'stopped', 'rejected', 'failed') AND NOT t.accepting
        AND t.xmin IS DISTINCT FROM CAST(pg_current_xact_id_if_assigned() AS xid) AS settled
FROM kdsearch.trial t LEFT JOIN LATERAL (
    SELECT array_agg(epoch ORDER BY epoch) AS epochs, array_agg(quality ORDER BY epoch) AS qualities
    FROM kdsearch.epoch
    WHERE study_id = t.study_id AND number = t.number AND repeat = 0 AND quality IS NOT NULL) e
    ON :with_epochs
WHERE t.study_id = :study_id AND t.repeat = 0
    AND (t.number > :beyond OR t.number = ANY(CAST(:pending AS integer[])))
ORDER BY t.number;

-- name: list_attempts
SELECT repeat, attempt, worker_id AS worker, started_at, ended_at, ended, traceback
FROM kdsearch.attempt WHERE study_id = :study_id AND number = :number
ORDER BY repeat, attempt;

-- name: list_decisions
SELECT repeat, attempt, at, action, rule, reason, epoch, inputs
FROM kdsearch.decision WHERE study_id = :study_id AND number = :number
ORDER BY id;

-- name: list_repeats
SELECT number, repeat, config, state, scores, result, failure, worker_id AS worker, attempt, epochs_run
FROM kdsearch.trial WHERE study_id = :study_id AND repeat > 0
ORDER BY number, repeat;

-- name: list_standings
SELECT number, quality, low, high, on_front, seeds
FROM kdsearch.standing WHERE study_id = :study_id
ORDER BY number;

-- name: list_workers
SELECT id, host, pid, device, profile_key, state, started_at, seen_at, draining
FROM kdsearch.worker WHERE study_id = :study_id
ORDER BY started_at, id;

-- name: preparation
SELECT p.state, p.attempt, p.worker_id, p.progress, p.checkpoint, p.error, s.prepared
FROM kdsearch.preparation p JOIN kdsearch.study s ON s.id = p.study_id
WHERE p.study_id = :study_id;

-- ---------------------------------------------------------------- the dashboard's own

-- name: pulse
-- One row in a few milliseconds, however many trials there are.
SELECT s.id AS study_id, s.state, s.error, s.budget_trials, clock_timestamp() AS now, coalesce(t.counts, '{}') AS counts,
    coalesce(t.marks, '') AS marks,
    (SELECT count(*) FROM kdsearch.standing WHERE study_id = s.id) AS num_standings,
    (SELECT count(*) FROM kdsearch.worker w WHERE w.study_id = s.id AND w.state = 'active'
        AND w.seen_at > clock_timestamp() - make_interval(secs => CAST(:alive_s AS double precision))) AS num_alive
FROM kdsearch.study s
LEFT JOIN (
    SELECT jsonb_object_agg(state, num) AS counts, string_agg(mark, ' ' ORDER BY mark) AS marks
    FROM (
        SELECT state, count(*) AS num,
            concat_ws('/', state, count(*), sum(epochs_run), sum(attempt), count(latency), max(finished_at)) AS mark
        FROM kdsearch.trial WHERE repeat = 0 AND study_id = (SELECT id FROM kdsearch.study WHERE name = :name)
        GROUP BY state) by_state) t ON true
WHERE s.name = :name;

-- name: best_trials
-- Of each study the feasible trial to deploy: the best mean over several seeds where there is one.
SELECT DISTINCT ON (t.study_id) t.study_id, t.number, t.student, t.scheme,
    coalesce(m.quality, t.quality) AS quality,
    CAST(t.latency ->> (s.spec_json #>> '{objectives,latency}') AS double precision) AS latency_ms
FROM kdsearch.trial t JOIN kdsearch.study s ON s.id = t.study_id
LEFT JOIN kdsearch.standing m
    ON m.study_id = t.study_id AND m.number = t.number AND jsonb_array_length(m.seeds) > 1
WHERE t.repeat = 0 AND t.state = 'complete' AND t.constraints IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM jsonb_each_text(t.constraints) WHERE NOT CAST(value AS double precision) <= 0)
ORDER BY t.study_id, m.number IS NOT NULL DESC, coalesce(m.quality, t.quality) DESC, latency_ms, t.number;

-- name: trial_columns
-- As little of each trial as a chart of all of them needs.
SELECT t.number, t.state, t.origin, t.student, t.scheme, t.quality,
    CAST(t.scores ->> 'accuracy' AS double precision) AS accuracy,
    CAST(t.scores ->> 'macro_f1' AS double precision) AS macro_f1,
    (SELECT min(CAST(value AS double precision)) FROM jsonb_each_text(t.scores -> 'recall')) AS recall,
    CAST(t.scores ->> 'coverage' AS double precision) AS coverage,
    CAST(t.scores ->> 'agreement' AS double precision) AS agreement,
    CAST(t.latency ->> 'p50_ms' AS double precision) AS p50_ms,
    CAST(t.latency ->> 'p90_ms' AS double precision) AS p90_ms,
    CAST(t.latency ->> 'p99_ms' AS double precision) AS p99_ms,
    CAST(t.latency ->> 'mean_ms' AS double precision) AS mean_ms,
    CAST(t.latency ->> 'size_mb' AS double precision) AS size_mb,
    CAST(t.latency ->> 'num_params' AS double precision) AS num_params,
    coalesce(CAST(t.latency ->> 'noisy' AS boolean), false) AS noisy,
    t.constraints IS NOT NULL AND NOT EXISTS (
        SELECT 1 FROM jsonb_each_text(t.constraints) WHERE NOT CAST(value AS double precision) <= 0) AS feasible,
    t.epochs_run, CAST(t.result ->> 'train_seconds' AS double precision) AS train_seconds, t.finished_at,
    CASE WHEN t.state IN ('running', 'paused') THEN (
        SELECT max(e.quality) FROM kdsearch.epoch e
        WHERE e.study_id = t.study_id AND e.number = t.number AND e.repeat = 0) END AS so_far
FROM kdsearch.trial t
WHERE t.study_id = :study_id AND t.repeat = 0
ORDER BY t.number;

-- ================================================================ what goes on

-- name: change
SELECT s.state, count(t.id) FILTER (WHERE t.repeat = 0) AS num_trials,
    count(t.finished_at) FILTER (WHERE t.repeat = 0) AS num_finished,
    concat_ws(' ', s.state, s.budget_trials, count(t.id), count(t.finished_at), sum(t.attempt), sum(t.epochs_run),
        max(t.finished_at), count(*) FILTER (WHERE t.state = 'paused'),
        (SELECT count(*) + count(r.ended_at) FROM kdsearch.request r WHERE r.study_id = s.id)) AS token
FROM kdsearch.study s LEFT JOIN kdsearch.trial t ON t.study_id = s.id
WHERE s.id = :study_id
GROUP BY s.id;

-- name: list_running
SELECT t.number, t.repeat, t.attempt, t.worker_id AS worker, t.student, t.scheme, a.started_at, t.epochs_run,
    CAST(t.config ->> 'epochs' AS integer) AS epochs,
    CASE WHEN e.seconds IS NOT NULL THEN greatest(0,
        e.seconds * (CAST(t.config ->> 'epochs' AS integer) - t.epochs_run)
        - extract(epoch FROM clock_timestamp() - greatest(e.at, a.started_at))) END AS seconds_left
FROM kdsearch.trial t
JOIN kdsearch.attempt a ON (a.study_id, a.number, a.repeat, a.attempt) = (t.study_id, t.number, t.repeat, t.attempt)
LEFT JOIN LATERAL (
    SELECT avg(seconds) AS seconds, max(at) AS at FROM kdsearch.epoch
    WHERE study_id = t.study_id AND number = t.number AND repeat = t.repeat) e ON true
WHERE t.study_id = :study_id AND t.state = 'running'
ORDER BY t.number, t.repeat;

-- name: list_troubles
SELECT a.number, a.repeat, a.attempt, a.worker_id AS worker, a.started_at, a.ended_at, a.ended, a.traceback,
    t.state, CASE WHEN a.attempt = t.attempt THEN coalesce(t.failure ->> 'message', '') ELSE '' END AS message
FROM kdsearch.attempt a JOIN kdsearch.trial t
    ON (t.study_id, t.number, t.repeat) = (a.study_id, a.number, a.repeat)
WHERE a.study_id = :study_id AND a.ended IN ('lost', 'hang', 'crash', 'out_of_memory', 'exception')
ORDER BY a.ended_at DESC, a.number LIMIT :most;

-- name: list_importances
SELECT objective, num_trials, importances, at FROM kdsearch.importance WHERE study_id = :study_id
ORDER BY objective DESC;

-- name: set_importance
INSERT INTO kdsearch.importance (study_id, objective, num_trials, importances)
VALUES (:study_id, :objective, :num_trials, CAST(:importances AS jsonb))
ON CONFLICT (study_id, objective) DO UPDATE
SET num_trials = excluded.num_trials, importances = excluded.importances, at = clock_timestamp()
WHERE kdsearch.importance.num_trials <= excluded.num_trials;

-- name: list_params
SELECT number, config FROM kdsearch.trial
WHERE study_id = :study_id AND repeat = 0 AND state = 'complete'
ORDER BY number;

-- name: artifact_bytes
SELECT sha256, bytes FROM kdsearch.artifact
WHERE sha256 = ANY(ARRAY(SELECT jsonb_array_elements_text(CAST(:digests AS jsonb))));

-- ================================================================ what people ask for

-- name: file_request
SELECT kdsearch.file_request(:study, :kind, CAST(:arguments AS jsonb));

-- name: list_requests
SELECT id, kind, arguments, state, worker_id, progress, result, error, filed_at, ended_at
FROM kdsearch.request WHERE study_id = :study_id
ORDER BY id DESC;

-- name: fail_dead_requests
UPDATE kdsearch.request
SET state = 'failed', expires_at = NULL, ended_at = clock_timestamp(),
    error = format('%s workers ended while they carried it out, the last one was %s', attempt, worker_id)
WHERE study_id = :study_id AND state = 'running' AND kdsearch.has_expired(expires_at)
    AND attempt >= :max_attempts;

-- name: take_request
UPDATE kdsearch.request
SET state = 'running', attempt = attempt + 1, worker_id = :worker_id, progress = '',
    expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision))
WHERE id = (
    SELECT id FROM kdsearch.request
    WHERE study_id = :study_id
        AND (state = 'waiting' OR (state = 'running' AND kdsearch.has_expired(expires_at)))
    ORDER BY id LIMIT 1
    FOR UPDATE SKIP LOCKED)
RETURNING id, study_id, attempt, worker_id, kind, arguments;

-- name: renew_request
UPDATE kdsearch.request
SET expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision))
WHERE id = :id AND attempt = :attempt AND worker_id = :worker_id AND state = 'running';

-- name: request_progress
UPDATE kdsearch.request SET progress = :progress
WHERE id = :id AND attempt = :attempt AND worker_id = :worker_id AND state = 'running';

-- name: finish_request
UPDATE kdsearch.request
SET state = 'done', expires_at = NULL, result = CAST(:result AS jsonb),
    ended_at = coalesce(ended_at, clock_timestamp())
WHERE id = :id AND attempt = :attempt AND worker_id = :worker_id AND state IN ('running', 'done');

-- name: fail_request
UPDATE kdsearch.request
SET state = 'failed', expires_at = NULL, error = :error, ended_at = coalesce(ended_at, clock_timestamp())
WHERE id = :id AND attempt = :attempt AND worker_id = :worker_id AND state IN ('running', 'failed');

-- name: give_back_request
UPDATE kdsearch.request SET state = 'waiting', expires_at = NULL, attempt = attempt - 1
WHERE id = :id AND attempt = :attempt AND worker_id = :worker_id AND state = 'running';

-- ================================================================ roles

-- name: role_found
-- Whether it can do more than a role of ours may: then it is somebody else's, or nobody's to log in with.
SELECT r.rolsuper OR r.rolcreaterole OR r.rolcreatedb OR r.rolreplication OR r.rolbypassrls
    OR r.rolname = current_user
    OR EXISTS (SELECT 1 FROM pg_auth_members m WHERE m.member = r.oid)
    OR EXISTS (SELECT 1 FROM pg_class c WHERE c.relowner = r.oid)
    OR EXISTS (SELECT 1 FROM pg_namespace n WHERE n.nspowner = r.oid)
FROM pg_roles r WHERE r.rolname = :name;

-- name: optuna_relations
-- Optuna's tables and the sequences of their columns, quoted, and which of them say its version.
SELECT c.relkind = 'S' AS is_sequence, c.relname IN ('alembic_version', 'version_info') AS is_version,
    format('public.%I', c.relname) AS name
FROM pg_class c
WHERE c.relnamespace = CAST('public' AS regnamespace) AND (
    (c.relkind = 'r' AND CAST(:tables AS jsonb) ? CAST(c.relname AS text))
    OR (c.relkind = 'S' AND EXISTS (
        SELECT 1 FROM pg_depend d JOIN pg_class t ON t.oid = d.refobjid
        WHERE d.objid = c.oid AND d.deptype = 'a' AND t.relnamespace = c.relnamespace
            AND CAST(:tables AS jsonb) ? CAST(t.relname AS text))))
ORDER BY c.relname;

-- name: database_name
SELECT quote_ident(current_database());

-- name: write_this_time
-- The dashboard's role is read-only unless a transaction begins with this.
SET TRANSACTION READ WRITE;
