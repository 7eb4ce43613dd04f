-- Every statement that kdsearch runs on its own tables. A write names its guard in the WHERE:
-- `attempt` is the fencing token of a lease, `worker_id` its holder.

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
    artifacts_url, budget_trials, budget_hours, budget_failed)
VALUES (
    :name, :optuna_name, :spec_text, CAST(:spec_json AS jsonb), :spec_sha256, :dataset_sha256,
    :data_fingerprint, :artifacts_url, :budget_trials, :budget_hours, :budget_failed)
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

-- name: set_prepared
UPDATE kdsearch.study SET prepared = :prepared WHERE id = :study_id;

-- name: set_budget
-- A study that had spent its budget is open again when the budget changes.
UPDATE kdsearch.study
SET state = CASE
        WHEN state = 'done' AND (budget_trials, budget_hours, budget_failed)
            IS DISTINCT FROM (:trials, CAST(:hours AS double precision), :failed) THEN 'open'
        ELSE state END,
    budget_trials = :trials, budget_hours = :hours, budget_failed = :failed
WHERE id = :study_id;

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

-- name: budget_state
SELECT s.budget_trials AS max_trials, s.budget_failed AS max_failed,
    coalesce(s.active_seconds >= s.budget_hours * 3600, false) AS out_of_time,
    count(t.id) AS num_trials,
    count(t.id) FILTER (WHERE t.state = 'failed') AS num_failed,
    count(t.id) FILTER (WHERE t.state IN ('waiting', 'running')) AS num_open
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
WITH dead AS (
    SELECT id FROM kdsearch.trial
    WHERE study_id = :study_id AND state = 'running' AND expires_at < clock_timestamp()
    FOR UPDATE SKIP LOCKED)
UPDATE kdsearch.trial t
SET deaths = t.deaths + 1,
    expires_at = NULL,
    state = CASE WHEN t.deaths + 1 < :max_deaths THEN 'waiting' ELSE 'failed' END,
    finished_at = CASE WHEN t.deaths + 1 < :max_deaths THEN NULL ELSE clock_timestamp() END,
    failure = CASE WHEN t.deaths + 1 < :max_deaths THEN NULL ELSE jsonb_build_object(
        'kind', 'attempts', 'traceback', '', 'message',
        format('%s workers ended in the middle of this trial, the last one was %s', t.deaths + 1, t.worker_id))
        END
FROM dead WHERE t.id = dead.id;

-- name: take_waiting
WITH next AS (
    SELECT id FROM kdsearch.trial
    WHERE study_id = :study_id AND state = 'waiting' AND (measured OR :can_measure)
    ORDER BY number LIMIT 1
    FOR UPDATE SKIP LOCKED)
UPDATE kdsearch.trial t
SET state = 'running', attempt = t.attempt + 1, worker_id = :worker_id,
    expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision))
FROM next WHERE t.id = next.id
RETURNING t.study_id, t.number, t.optuna_trial_id, t.attempt, t.worker_id, t.config, t.checkpoint, t.latency;

-- name: stop_unmeasured
UPDATE kdsearch.trial SET state = 'stopped', finished_at = clock_timestamp()
WHERE study_id = :study_id AND state = 'waiting' AND NOT measured;

-- name: count_trials
SELECT count(*) FROM kdsearch.trial WHERE study_id = :study_id;

-- name: known_numbers
SELECT number FROM kdsearch.trial WHERE study_id = :study_id;

-- name: insert_running
INSERT INTO kdsearch.trial (
    study_id, number, optuna_trial_id, config, config_key, architecture_key, student, scheme, origin,
    state, attempt, worker_id, expires_at)
VALUES (
    :study_id, :number, :optuna_trial_id, CAST(:config AS jsonb), :config_key, :architecture_key,
    :student, :scheme, :origin, 'running', 1, :worker_id,
    clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision)));

-- name: renew
UPDATE kdsearch.trial
SET expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision))
WHERE study_id = :study_id AND number = :number AND attempt = :attempt AND worker_id = :worker_id
    AND state = 'running';

-- name: give_back
UPDATE kdsearch.trial SET state = 'waiting', expires_at = NULL
WHERE study_id = :study_id AND number = :number AND attempt = :attempt AND worker_id = :worker_id
    AND state IN ('running', 'waiting');

-- name: record_latency
UPDATE kdsearch.trial SET measured = true, latency = CAST(:latency AS jsonb)
WHERE study_id = :study_id AND number = :number AND attempt = :attempt AND worker_id = :worker_id
    AND state = 'running';

-- name: record_checkpoint
UPDATE kdsearch.trial SET checkpoint = :checkpoint
WHERE study_id = :study_id AND number = :number AND attempt = :attempt AND worker_id = :worker_id
    AND state = 'running';

-- name: record_epoch
-- Guarded by record_checkpoint in the same transaction.
INSERT INTO kdsearch.epoch (
    study_id, number, epoch, stage, rows_seen, losses, scores, quality, seconds)
VALUES (
    :study_id, :number, :epoch, :stage, :rows_seen, CAST(:losses AS jsonb), CAST(:scores AS jsonb),
    :quality, :seconds)
ON CONFLICT (study_id, number, epoch) DO UPDATE
SET stage = excluded.stage, rows_seen = excluded.rows_seen, losses = excluded.losses,
    scores = excluded.scores, quality = excluded.quality, seconds = excluded.seconds, at = excluded.at;

-- name: finish
UPDATE kdsearch.trial
SET state = :state, expires_at = NULL, finished_at = clock_timestamp(),
    result = CAST(:result AS jsonb), scores = CAST(:scores AS jsonb), quality = :quality,
    constraints = CAST(:constraints AS jsonb), failure = CAST(:failure AS jsonb)
WHERE study_id = :study_id AND number = :number AND attempt = :attempt AND worker_id = :worker_id
    AND state = 'running';

-- name: is_finished_so
SELECT EXISTS (
    SELECT 1 FROM kdsearch.trial
    WHERE study_id = :study_id AND number = :number AND attempt = :attempt AND worker_id = :worker_id
        AND state = :state
        AND result IS NOT DISTINCT FROM CAST(:result AS jsonb)
        AND scores IS NOT DISTINCT FROM CAST(:scores AS jsonb)
        AND constraints IS NOT DISTINCT FROM CAST(:constraints AS jsonb)
        AND failure IS NOT DISTINCT FROM CAST(:failure AS jsonb));

-- name: untold
SELECT number, optuna_trial_id, state, quality, latency, constraints
FROM kdsearch.trial
WHERE study_id = :study_id AND finished_at IS NOT NULL AND NOT told
ORDER BY number;

-- name: mark_told
UPDATE kdsearch.trial SET told = true
WHERE study_id = :study_id AND number = :number AND finished_at IS NOT NULL;

-- ================================================================ preparation

-- name: fail_dead_preparation
WITH failed AS (
    UPDATE kdsearch.preparation
    SET state = 'failed', expires_at = NULL, deaths = deaths + 1,
        error = format('%s workers ended while they prepared the teacher, the last one was %s',
            deaths + 1, worker_id)
    WHERE study_id = :study_id AND state = 'running' AND expires_at < clock_timestamp()
        AND deaths + 1 >= :max_deaths
    RETURNING study_id, error)
UPDATE kdsearch.study s SET state = 'failed', error = failed.error FROM failed WHERE s.id = failed.study_id;

-- name: take_preparation
UPDATE kdsearch.preparation
SET deaths = deaths + CASE WHEN state = 'running' THEN 1 ELSE 0 END,
    state = 'running', attempt = attempt + 1, worker_id = :worker_id,
    expires_at = clock_timestamp() + make_interval(secs => CAST(:ttl_s AS double precision))
WHERE study_id = :study_id
    AND (state = 'waiting' OR (state = 'running' AND expires_at < clock_timestamp()))
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

-- ================================================================ workers

-- name: register_worker
INSERT INTO kdsearch.worker (id, study_id, host, pid, device, profile_key, state)
VALUES (:id, :study_id, :host, :pid, :device, :profile_key, 'active')
ON CONFLICT (id) DO UPDATE SET state = 'active', seen_at = clock_timestamp();

-- name: worker_seen
UPDATE kdsearch.worker SET seen_at = clock_timestamp() WHERE id = :id;

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

-- ================================================================ what the lists and the dashboard read

-- name: list_studies
SELECT s.*, coalesce(c.counts, '{}') AS counts
FROM kdsearch.study s
LEFT JOIN (
    SELECT study_id, jsonb_object_agg(state, num) AS counts
    FROM (SELECT study_id, state, count(*) AS num FROM kdsearch.trial GROUP BY study_id, state) by_state
    GROUP BY study_id) c ON c.study_id = s.id
WHERE CAST(:name AS text) IS NULL OR s.name = :name
ORDER BY s.created_at DESC, s.id DESC;

-- name: list_trials
SELECT t.number, t.state, t.origin, t.config, t.scores, t.latency, t.constraints, t.attempt, t.worker_id, t.result,
    t.failure, t.created_at, t.started_at, t.finished_at, s.spec_json #>> '{objectives,latency}' AS latency_name
FROM kdsearch.trial t JOIN kdsearch.study s ON s.id = t.study_id
WHERE t.study_id = :study_id
    AND (CAST(:state AS text) IS NULL OR t.state = :state)
    AND (CAST(:number AS integer) IS NULL OR t.number = :number)
ORDER BY t.number;

-- name: list_epochs
SELECT epoch, stage, rows_seen, losses, scores, seconds, at
FROM kdsearch.epoch WHERE study_id = :study_id AND number = :number
ORDER BY epoch;

-- name: list_workers
SELECT id, host, pid, device, profile_key, state, started_at, seen_at
FROM kdsearch.worker WHERE study_id = :study_id
ORDER BY started_at, id;

-- name: preparation
SELECT p.state, p.attempt, p.worker_id, p.progress, p.checkpoint, p.error, s.prepared
FROM kdsearch.preparation p JOIN kdsearch.study s ON s.id = p.study_id
WHERE p.study_id = :study_id;
