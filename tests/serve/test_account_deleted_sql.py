"""The triggers for Supabase on a real PostgreSQL, with stand-ins for what only a project has."""

import json
import os
import shutil
import subprocess
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nanoswap.serve.erasure import HOOK_PATH, AccountDeleted
from nanoswap.serve.webhook import WebhookKey

SQL = (Path(__file__).parents[2] / "deploy" / "supabase" / "account_deleted.sql").read_text()
SECRET = "v1,whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
PROJECT = """
create schema auth; create schema vault; create schema net; create schema extensions;
create table auth.users (id uuid primary key, email text, encrypted_password text,
  deleted_at timestamptz, banned_until timestamptz);
create table vault.decrypted_secrets (name text, decrypted_secret text);
insert into vault.decrypted_secrets values
  ('nanoswap_webhook_secret', '%s'), ('nanoswap_url', 'https://swap.example');
create table net.sent (url text, body text, headers jsonb);
create function net.http_post(url text, body jsonb default '{}', params jsonb default '{}', headers jsonb default '{}',
  timeout_milliseconds int default 5000) returns bigint language sql
  as $$ insert into net.sent values (url, body::text, headers); select 1::bigint $$;
create role stranger;
grant usage on schema auth to stranger; grant delete, select on auth.users to stranger;
"""
Ask = Callable[[str], str]


@pytest.fixture(scope="module")
def ask() -> Iterator[Ask]:
    """Runs SQL on a database with the triggers, on a server of this module's own."""
    found = shutil.which("postgres")
    if found is None:
        pytest.skip("no PostgreSQL on PATH: apt-get install postgresql, or brew install postgresql")
    programs = Path(found).resolve().parent
    # PostgreSQL refuses to run as root.
    who = {"user": "nobody", "group": "nogroup"} if os.getuid() == 0 else {}
    folder = Path(tempfile.mkdtemp(prefix="ns-pg-"))
    try:
        if who:
            shutil.chown(folder, "nobody", "nogroup")
        data = folder / "data"
        quiet = {"check": True, "capture_output": True, "cwd": folder}
        subprocess.run([programs / "initdb", "-U", "owner", "-A", "trust", "-N", "-D", data], **quiet, **who)  # type: ignore[call-overload]
        command = [programs / "postgres", "-D", data, "-k", folder, "-c", "listen_addresses=", "-F"]
        server = subprocess.Popen(command, cwd=folder, stderr=subprocess.DEVNULL, **who)  # type: ignore[call-overload]

        def run(sql: str) -> str:
            words = [
                "psql",
                "-h",
                str(folder),
                "-U",
                "owner",
                "-d",
                "postgres",
                "-qAt",
                "-v",
                "ON_ERROR_STOP=1",
                "-f",
                "-",
            ]
            done = subprocess.run(words, input=sql, capture_output=True, text=True, env={"PATH": os.environ["PATH"]})
            assert done.returncode == 0, done.stderr
            return done.stdout.strip()

        try:
            for _ in range(200):
                if subprocess.run([programs / "pg_isready", "-q", "-h", folder]).returncode == 0:
                    break
                time.sleep(0.05)
            run(PROJECT % SECRET)
            # pg_net is the project's; the stand-in above takes its place.
            run(SQL.replace("create extension if not exists pg_net;\n", ""))
            yield run
        finally:
            server.terminate()
            server.wait(20)
    finally:
        shutil.rmtree(folder)


def sent(ask: Ask) -> list[dict[str, object]]:
    rows = ask(
        "select json_build_object('url', url, 'body', body, 'headers', headers) from net.sent; delete from net.sent;"
    )
    return [json.loads(row) for row in rows.splitlines()]


def insert(sub: uuid.UUID) -> str:
    return f"insert into auth.users values ('{sub}', 'canary@x.example', 'canary hash');"


@pytest.mark.parametrize(
    "delete",
    [
        "delete from auth.users where id = '{}'",
        "update auth.users set deleted_at = now() where id = '{}'",
        "update auth.users set banned_until = now() + interval '1 year' where id = '{}'",
    ],
    ids=["deleted", "soft deleted", "banned"],
)
def test_what_is_sent_is_signed_and_is_the_id_alone(ask: Ask, delete: str) -> None:
    sub = uuid.uuid4()
    ask(insert(sub))
    assert sent(ask) == []
    ask(delete.format(sub))
    (call,) = sent(ask)
    assert call["url"] == f"https://swap.example{HOOK_PATH}"
    assert "canary" not in json.dumps(call)
    body = str(call["body"]).encode()
    headers = call["headers"]
    assert isinstance(headers, dict)
    assert abs(WebhookKey.parse(SECRET).check(headers, body) - time.time()) < 60
    assert AccountDeleted.model_validate_json(body).id == sub


def test_other_changes_of_an_account_are_nobodys_business(ask: Ask) -> None:
    sub = uuid.uuid4()
    ask(insert(sub) + f"update auth.users set email = 'other@x.example', banned_until = null where id = '{sub}';")
    assert sent(ask) == []


def test_account_can_be_deleted_when_nobody_can_be_told(ask: Ask) -> None:
    sub = uuid.uuid4()
    ask(insert(sub) + "alter table vault.decrypted_secrets rename to away;")
    try:
        ask(f"delete from auth.users where id = '{sub}'")
        assert ask(f"select count(*) from auth.users where id = '{sub}'") == "0"
        assert sent(ask) == []
    finally:
        ask("alter table vault.away rename to decrypted_secrets;")


def test_whoever_may_delete_needs_no_right_to_the_secret(ask: Ask) -> None:
    sub = uuid.uuid4()
    ask(insert(sub) + f"set role stranger; delete from auth.users where id = '{sub}';")
    assert len(sent(ask)) == 1
