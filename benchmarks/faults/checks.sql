-- What must never be on record once a study has come through its faults: each query gives what is wrong.

-- name: a_budget_overspent_or_not_spent
SELECT s.budget_trials, count(t.id) AS trials
FROM kdsearch.study s LEFT JOIN kdsearch.trial t ON t.study_id = s.id AND t.repeat = 0
GROUP BY s.id HAVING count(t.id) <> s.budget_trials;

-- name: Optuna_knows_more_or_fewer_trials
SELECT count(DISTINCT o.trial_id) AS optunas, count(DISTINCT t.id) AS ours
FROM trials o FULL JOIN kdsearch.trial t ON t.optuna_trial_id = o.trial_id
HAVING count(DISTINCT o.trial_id) <> count(DISTINCT t.id) OR count(*) <> count(DISTINCT t.id);

-- name: a_number_left_out
SELECT number FROM (SELECT number, row_number() OVER (ORDER BY number) - 1 AS nth FROM kdsearch.trial) numbered
WHERE number <> nth;

-- name: a_study_that_is_not_done
SELECT state FROM kdsearch.study WHERE state <> 'done';

-- name: a_result_lost
SELECT number, state, failure FROM kdsearch.trial WHERE state <> 'complete' AND number <> %(failed)s;

-- name: a_failure_that_is_not_what_struck
SELECT number, state, failure FROM kdsearch.trial
WHERE number = %(failed)s AND (state <> 'failed' OR failure ->> 'kind' <> 'exception'
    OR failure ->> 'message' NOT LIKE 'Fault:%%');

-- name: a_lease_left
SELECT number, state, worker_id FROM kdsearch.trial WHERE state = 'running' OR expires_at IS NOT NULL OR swept
UNION ALL
SELECT -1, state, worker_id FROM kdsearch.preparation WHERE state = 'running' OR expires_at IS NOT NULL;

-- name: an_attempt_without_an_end
SELECT number, attempt, worker_id FROM kdsearch.attempt WHERE ended IS NULL;

-- name: an_attempt_that_is_not_on_record
SELECT t.number, t.attempt, count(a.attempt) FROM kdsearch.trial t
LEFT JOIN kdsearch.attempt a USING (study_id, number, repeat)
GROUP BY t.id HAVING count(a.attempt) <> t.attempt OR max(a.attempt) <> t.attempt;

-- name: a_trial_ended_more_or_less_than_once
SELECT t.number, array_agg(a.ended ORDER BY a.attempt) FROM kdsearch.trial t
JOIN kdsearch.attempt a USING (study_id, number, repeat)
GROUP BY t.id HAVING count(*) FILTER (WHERE a.ended IN ('finished', 'exception')) <> 1
    OR count(*) FILTER (WHERE a.ended IN ('finished', 'exception') AND a.attempt = t.attempt) <> 1;

-- name: deaths_counted_wrong
SELECT t.number, t.deaths, array_agg(a.ended ORDER BY a.attempt) FROM kdsearch.trial t
JOIN kdsearch.attempt a USING (study_id, number, repeat)
GROUP BY t.id HAVING count(*) FILTER (WHERE a.ended IN ('lost', 'hang', 'crash')) <> t.deaths;

-- name: epochs_counted_wrong
SELECT t.number, t.epochs_run, array_agg(e.epoch ORDER BY e.epoch) FROM kdsearch.trial t
LEFT JOIN kdsearch.epoch e USING (study_id, number, repeat)
GROUP BY t.id
HAVING count(e.epoch) <> t.epochs_run OR coalesce(max(e.epoch), 0) <> t.epochs_run
    OR (t.state = 'complete' AND t.epochs_run <> CAST(t.config ->> 'epochs' AS integer))
    OR t.epochs_run > CAST(t.config ->> 'epochs' AS integer);

-- name: a_row_seen_twice
SELECT number, epoch, rows_seen FROM kdsearch.epoch WHERE rows_seen <> 160 * epoch;

-- name: Optuna_was_not_told_or_told_otherwise
SELECT t.number, t.state, o.state, t.told, t.quality, t.latency ->> 'p90_ms',
    array_agg(v.value ORDER BY v.objective)
FROM kdsearch.trial t
LEFT JOIN trials o ON o.trial_id = t.optuna_trial_id
LEFT JOIN trial_values v ON v.trial_id = o.trial_id
GROUP BY t.id, o.trial_id
HAVING NOT t.told OR o.number IS DISTINCT FROM t.number
    OR (t.state = 'complete' AND (o.state <> 'COMPLETE' OR array_agg(v.value ORDER BY v.objective)
        <> ARRAY[t.quality, CAST(t.latency ->> 'p90_ms' AS double precision)]))
    OR (t.state = 'failed' AND (o.state <> 'FAIL' OR count(v.value) > 0));

-- name: an_artifact_that_is_not_on_record
SELECT t.number, named.sha256 FROM kdsearch.trial t
CROSS JOIN LATERAL (VALUES (t.result ->> 'artifact'), (t.result ->> 'validation_logits')) named (sha256)
LEFT JOIN kdsearch.artifact a USING (sha256)
WHERE named.sha256 IS NOT NULL AND a.sha256 IS NULL;
