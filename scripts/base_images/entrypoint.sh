#!/bin/sh
# What the official image's entry point does with POSTGRES_USER, POSTGRES_PASSWORD and POSTGRES_DB, and no more.
set -eu
if [ "$(id -u)" = 0 ]; then
    mkdir -p "$PGDATA"
    chown -R postgres /var/lib/postgresql /var/run/postgresql
    exec setpriv --reuid postgres --regid postgres --init-groups "$0" "$@"
fi
chmod 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
    : "${POSTGRES_PASSWORD:?has to be set}"
    umask 077
    printf '%s\n' "$POSTGRES_PASSWORD" > /tmp/password
    initdb --pgdata "$PGDATA" --username "${POSTGRES_USER:=postgres}" --pwfile /tmp/password \
        --auth-local trust --auth-host scram-sha-256 --encoding UTF8 --locale C.UTF-8
    rm /tmp/password
    echo 'host all all all scram-sha-256' >> "$PGDATA/pg_hba.conf"
    # Until here nobody outside may connect, so a first server listens on its socket only.
    pg_ctl --pgdata "$PGDATA" --wait --options "-c listen_addresses='' -k /tmp" start
    if [ "${POSTGRES_DB:-$POSTGRES_USER}" != postgres ]; then
        createdb --host /tmp --username "$POSTGRES_USER" "${POSTGRES_DB:-$POSTGRES_USER}"
    fi
    pg_ctl --pgdata "$PGDATA" --wait --mode fast stop
fi
exec "$@" -c listen_addresses='*' -k /tmp
