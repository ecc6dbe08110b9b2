#!/bin/bash
# Runs once, when the Postgres container makes its cluster: the database, its owner, who migrates it, and the service's login, which
# can add facts and cannot change or remove them. The owner cannot make roles, so those of the migrations are made here; of auditors' logins the
# owner disposes (chancery migrate --auditor-login).
set -euo pipefail

psql --no-psqlrc --set ON_ERROR_STOP=1 --username "$POSTGRES_USER" --dbname postgres \
	--set owner_password="$(cat /run/secrets/database_owner_password)" \
	--set service_password="$(cat /run/secrets/database_service_password)" <<'SQL'
CREATE ROLE chancery_auditor NOLOGIN;
CREATE ROLE chancery_service NOLOGIN IN ROLE chancery_auditor;
CREATE ROLE chancery LOGIN PASSWORD :'owner_password' IN ROLE chancery_service;
GRANT chancery_auditor TO chancery WITH ADMIN OPTION;
CREATE ROLE chancery_app LOGIN PASSWORD :'service_password' IN ROLE chancery_service;
CREATE DATABASE chancery OWNER chancery;
REVOKE ALL ON DATABASE chancery FROM PUBLIC;
GRANT CONNECT ON DATABASE chancery TO chancery_service;
SQL
