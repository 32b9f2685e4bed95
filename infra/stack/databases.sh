#!/bin/sh
# Databases of the stack, each with a user who owns it and can connect to no other. May be repeated.
# PostgreSQL's image runs this when its volume is empty; `make stack` runs it at each start.
set -eu
database() {  # name, its user's password
  PASSWORD=$2 psql --quiet --no-psqlrc --set ON_ERROR_STOP=1 --set "name=$1" \
    --username "$POSTGRES_USER" --dbname postgres <<'SQL'
\getenv password PASSWORD
SELECT format('CREATE ROLE %I LOGIN', :'name') WHERE NOT EXISTS (SELECT FROM pg_roles WHERE rolname = :'name') \gexec
ALTER ROLE :"name" PASSWORD :'password';
SELECT format('CREATE DATABASE %I OWNER %I', :'name', :'name')
  WHERE NOT EXISTS (SELECT FROM pg_database WHERE datname = :'name') \gexec
REVOKE CONNECT ON DATABASE :"name" FROM PUBLIC;
SQL
}
database mlflow "$MLFLOW_PASSWORD"
database prefect "$PREFECT_PASSWORD"
database catalogue "$CATALOGUE_PASSWORD"
