-- Who may do what: the owner makes tables, workers read and write them, the dashboard reads and asks.
-- {worker}, {dashboard} and {database} stand for names, quoted. Every part takes everything away before it
-- grants, in one transaction, so that what an earlier version granted and this one does not is gone.

-- name: everybody
-- What Postgres gives to every role by itself: functions, temporary tables, until version 14 tables in `public`.
REVOKE CREATE ON SCHEMA public FROM PUBLIC;
REVOKE TEMPORARY ON DATABASE {database} FROM PUBLIC;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA kdsearch FROM PUBLIC;
ALTER DEFAULT PRIVILEGES REVOKE EXECUTE ON FUNCTIONS FROM PUBLIC;

-- name: nothing
REVOKE ALL ON DATABASE {database} FROM {role};
REVOKE ALL ON SCHEMA kdsearch, public FROM {role};
REVOKE ALL ON ALL TABLES IN SCHEMA kdsearch FROM {role};
REVOKE ALL ON ALL SEQUENCES IN SCHEMA kdsearch FROM {role};
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA kdsearch FROM {role};
REVOKE ALL ON TABLE {tables} FROM {role};
REVOKE ALL ON SEQUENCE {sequences} FROM {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA kdsearch REVOKE ALL ON TABLES FROM {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA kdsearch REVOKE ALL ON FUNCTIONS FROM {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON SEQUENCES FROM {role};

-- name: worker
-- Rows, never tables. The last statements hold for what the owner makes later: ours and Optuna's migrations.
GRANT CONNECT ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA kdsearch, public TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA kdsearch TO {role};
GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA kdsearch TO {role};
GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE {tables} TO {role};
GRANT USAGE ON SEQUENCE {sequences} TO {role};
REVOKE INSERT, UPDATE, DELETE ON TABLE kdsearch.alembic_version_kdsearch, {versions} FROM {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA kdsearch GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA kdsearch GRANT EXECUTE ON FUNCTIONS TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT USAGE ON SEQUENCES TO {role};

-- name: dashboard
-- What the pages read, and the one function by which they ask. Its transactions are read-only besides, except
-- where the program says otherwise in order to ask.
GRANT CONNECT ON DATABASE {database} TO {role};
GRANT USAGE ON SCHEMA kdsearch TO {role};
GRANT SELECT ON TABLE
    kdsearch.alembic_version_kdsearch, kdsearch.study, kdsearch.trial, kdsearch.epoch, kdsearch.attempt,
    kdsearch.decision, kdsearch.standing, kdsearch.preparation, kdsearch.worker, kdsearch.test_read,
    kdsearch.importance, kdsearch.request, kdsearch.artifact TO {role};
GRANT EXECUTE ON FUNCTION kdsearch.file_request(text, text, jsonb) TO {role};
ALTER DEFAULT PRIVILEGES IN SCHEMA kdsearch GRANT SELECT ON TABLES TO {role};
ALTER ROLE {role} IN DATABASE {database} SET default_transaction_read_only = on;
