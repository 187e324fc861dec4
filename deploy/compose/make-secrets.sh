#!/bin/sh
# Make the secrets of docker-compose.yml, all random: `make secrets`. Those that are there are kept: the databases know them.
#
# The folder is for its owner alone. The files in it are not: containers run as users of their own, and each gets, at
# /run/secrets, only those files that docker-compose.yml names for it.
set -eu
folder=${1:-$(dirname "$0")/secrets}
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
keep() { [ -s "$folder/$1" ] || { cat >"$folder/.new" && chmod 444 "$folder/.new" && mv "$folder/.new" "$folder/$1"; }; }

umask 077
mkdir -p "$folder"
chmod 700 "$folder"
random | keep postgres_password
random | keep valkey_password
random | keep grafana_password
echo "flower:$(random)" | keep flower_auth
echo "$(random)$(random)" | keep facesieve_signing_key
echo "requirepass $(cat "$folder/valkey_password")" | keep valkey.conf
echo "redis://:$(cat "$folder/valkey_password")@valkey:6379/0" | keep facesieve_broker_url
echo "postgresql+psycopg://facesieve:$(cat "$folder/postgres_password")@postgres/facesieve" | keep facesieve_database_url
echo "secrets are in $folder; Flower's user and password: $folder/flower_auth"
