#!/bin/bash
# Runs once, when the Postgres container makes its cluster: the database, its owner, who migrates it, and the service's login, which
# can add facts and cannot change or remove them.
set -euo pipefail

psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
	--set owner_password="$(cat /run/secrets/database_owner_password)" \
	--set service_password="$(cat /run/secrets/database_service_password)" <<'SQL'
CREATE ROLE chancery_service NOLOGIN;
CREATE ROLE chancery LOGIN PASSWORD :'owner_password' IN ROLE chancery_service;
CREATE ROLE chancery_app LOGIN PASSWORD :'service_password' IN ROLE chancery_service;
CREATE DATABASE chancery OWNER chancery;
REVOKE ALL ON DATABASE chancery FROM PUBLIC;
GRANT CONNECT ON DATABASE chancery TO chancery_service;
SQL
