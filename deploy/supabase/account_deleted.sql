-- Tells Nanoswap that an account was deleted or banned: its id, signed, and nothing else.
--
-- A stock webhook on auth.users would send the whole row, e-mail address and password hash with it; Nanoswap refuses such a
-- body. Run this as the project's owner, once, after putting two secrets into Vault:
--
--   select vault.create_secret('v1,whsec_…', 'nanoswap_webhook_secret');   -- what NANOSWAP_WEBHOOK_SECRET holds
--   select vault.create_secret('https://swap.example', 'nanoswap_url');    -- where the service is
--
-- A secret is 'v1,whsec_' and the base64 of 24 to 64 random bytes:
--   select 'v1,whsec_' || encode(extensions.gen_random_bytes(32), 'base64');
--
-- pg_net sends after the transaction, once, and forgets: a call that fails is lost. Then what Nanoswap keeps of the account
-- goes by itself at the times that its /privacy page lists, and its tokens end when they expire.

create extension if not exists pgcrypto with schema extensions;
create extension if not exists pg_net;

create schema if not exists nanoswap;
revoke all on schema nanoswap from public;

create or replace function nanoswap.account_deleted() returns trigger
language plpgsql security definer set search_path = '' as $$
declare
  secret bytea;
  address text;
  message text := 'msg_' || gen_random_uuid();
  moment text := floor(extract(epoch from clock_timestamp()))::bigint::text;
  body jsonb := jsonb_build_object('id', old.id);
begin
  select decode(regexp_replace(decrypted_secret, '^(v1,)?whsec_', ''), 'base64') into strict secret
    from vault.decrypted_secrets where name = 'nanoswap_webhook_secret';
  select decrypted_secret into strict address
    from vault.decrypted_secrets where name = 'nanoswap_url';
  perform net.http_post(
    url := address || '/v1/hooks/account-deleted',
    body := body,
    headers := jsonb_build_object(
      'content-type', 'application/json',
      'webhook-id', message,
      'webhook-timestamp', moment,
      -- pg_net sends the text of the body, so the text is what is signed.
      'webhook-signature', 'v1,' || encode(extensions.hmac(
        convert_to(message || '.' || moment || '.' || body::text, 'UTF8'), secret, 'sha256'), 'base64')
    )
  );
  return null;
exception when others then
  -- Nobody is kept from deleting an account because Nanoswap can't be told.
  raise warning 'nanoswap was not told of a deleted account: %', sqlstate;
  return null;
end;
$$;

revoke all on function nanoswap.account_deleted() from public;

drop trigger if exists nanoswap_account_deleted on auth.users;
create trigger nanoswap_account_deleted after delete on auth.users
  for each row execute function nanoswap.account_deleted();

-- A soft delete keeps the row and says so in it.
drop trigger if exists nanoswap_account_soft_deleted on auth.users;
create trigger nanoswap_account_soft_deleted after update of deleted_at on auth.users
  for each row when (old.deleted_at is null and new.deleted_at is not null)
  execute function nanoswap.account_deleted();

-- So does a ban; tokens of before end with it, and whoever is let in again signs in anew.
drop trigger if exists nanoswap_account_banned on auth.users;
create trigger nanoswap_account_banned after update of banned_until on auth.users
  for each row when (new.banned_until > now() and new.banned_until is distinct from old.banned_until)
  execute function nanoswap.account_deleted();
