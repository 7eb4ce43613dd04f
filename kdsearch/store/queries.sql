-- name: forget_artifact
DELETE FROM kdsearch.artifact WHERE sha256 = :sha256;

-- name: record_artifact
INSERT INTO kdsearch.artifact (sha256, bytes) VALUES (:sha256, :bytes)
ON CONFLICT (sha256) DO NOTHING;
