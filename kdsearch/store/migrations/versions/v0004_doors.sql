-- ---------------------------------------------------------------- what people ask for, and a worker does

CREATE TABLE kdsearch.request (
    id         bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    study_id   bigint NOT NULL REFERENCES kdsearch.study ON DELETE CASCADE,
    kind       text NOT NULL CHECK (kind IN ('export', 'pause', 'resume', 'enqueue')),
    arguments  jsonb NOT NULL CHECK (jsonb_typeof(arguments) = 'object'),
    state      text NOT NULL DEFAULT 'waiting' CHECK (state IN ('waiting', 'running', 'done', 'failed')),
    attempt    integer NOT NULL DEFAULT 0 CHECK (attempt >= 0),
    worker_id  text,
    expires_at timestamptz,
    progress   text NOT NULL DEFAULT '',
    result     jsonb,
    error      text,
    filed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
    ended_at   timestamptz,
    CONSTRAINT request_lease_while_running CHECK
        ((state = 'running') = (expires_at IS NOT NULL) AND (state <> 'running' OR worker_id IS NOT NULL)),
    CONSTRAINT request_end CHECK ((state IN ('done', 'failed')) = (ended_at IS NOT NULL)),
    CONSTRAINT failed_request_has_error CHECK ((state = 'failed') = (error IS NOT NULL)),
    CONSTRAINT done_request_has_result CHECK (state <> 'done' OR result IS NOT NULL)
);
CREATE INDEX request_by_study ON kdsearch.request (study_id, id);
-- A button pressed twice is one request.
CREATE UNIQUE INDEX request_once ON kdsearch.request (study_id, kind, arguments)
    WHERE state IN ('waiting', 'running');

-- The one write that a reader may make: it runs as the owner of the tables, and checks what it is given.
-- Returns the request's id; that of the open one where the same is asked for already.
CREATE FUNCTION kdsearch.file_request(of_study text, asked text, given jsonb) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$
DECLARE
    study bigint;
    found bigint;
    open_requests CONSTANT integer := 100;
BEGIN
    SELECT s.id INTO study FROM kdsearch.study s WHERE s.name = of_study FOR NO KEY UPDATE;
    IF study IS NULL THEN
        RAISE EXCEPTION 'there is no study %', quote_literal(of_study) USING ERRCODE = 'no_data_found';
    END IF;
    IF given IS NULL OR jsonb_typeof(given) <> 'object' OR octet_length(CAST(given AS text)) > 10000 THEN
        RAISE EXCEPTION 'the arguments of a request are a small object' USING ERRCODE = 'check_violation';
    END IF;
    SELECT r.id INTO found FROM kdsearch.request r
    WHERE r.study_id = study AND r.kind = asked AND r.arguments = given AND r.state IN ('waiting', 'running');
    IF found IS NOT NULL THEN
        RETURN found;
    END IF;
    IF (SELECT count(*) FROM kdsearch.request r
        WHERE r.study_id = study AND r.state IN ('waiting', 'running')) >= open_requests THEN
        RAISE EXCEPTION 'the study has % requests open already', open_requests
            USING ERRCODE = 'program_limit_exceeded';
    END IF;
    INSERT INTO kdsearch.request (study_id, kind, arguments) VALUES (study, asked, given) RETURNING id INTO found;
    RETURN found;
END
$$;
REVOKE ALL ON FUNCTION kdsearch.file_request(text, text, jsonb) FROM PUBLIC;

-- ---------------------------------------------------------------- what a worker works out for the pages

-- How much each parameter says about an objective, over so many complete trials.
CREATE TABLE kdsearch.importance (
    study_id    bigint NOT NULL REFERENCES kdsearch.study ON DELETE CASCADE,
    objective   text NOT NULL CHECK (objective IN ('quality', 'latency')),
    num_trials  integer NOT NULL CHECK (num_trials > 0),
    importances jsonb NOT NULL CHECK (jsonb_typeof(importances) = 'object'),
    at          timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (study_id, objective)
);

-- The validation pool for whoever looks at single texts: SHA-256 of gzipped JSON lines in the pool's order.
ALTER TABLE kdsearch.study ADD COLUMN validation_rows text;

-- ---------------------------------------------------------------- workers

-- Somebody asked this worker to put its trial away and leave.
ALTER TABLE kdsearch.worker ADD COLUMN draining boolean NOT NULL DEFAULT false;
