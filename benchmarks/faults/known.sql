-- What is compared with a study that nobody disturbed, and what is awaited while a case runs.

-- name: results
SELECT number, config_key, quality, result ->> 'artifact', result ->> 'validation_logits',
    result ->> 'best_epoch', scores
FROM kdsearch.trial WHERE state = 'complete' ORDER BY number;

-- name: curves
SELECT number, epoch, rows_seen, quality, scores, losses
FROM kdsearch.epoch ORDER BY number, epoch;

-- name: let_go
SELECT finished_at IS NOT NULL OR attempt > %(attempt)s OR state <> 'running'
FROM kdsearch.trial WHERE number = %(number)s;

-- name: ends
SELECT number, array_agg(ended ORDER BY attempt), array_agg(worker_id ORDER BY attempt)
FROM kdsearch.attempt GROUP BY number ORDER BY number;
