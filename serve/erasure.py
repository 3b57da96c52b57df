"""Removing what is kept of a person: by themselves, or because their account was deleted where they sign in.

Both do the same to the waiting room: running swaps are cancelled, tickets and idempotency keys go, and access tokens
of before are refused. They differ in two things. The debt of an account that lives on stays until it is worked off,
within the hour or so that it may be: whoever could drop it by a request would never wait. And they differ in the
moment up to which tokens are refused. Somebody who erases their own data may sign in again, so it is this second.
Tokens say in whole seconds when they were issued, so one that is issued later in the same second is refused as well,
and one of the next is good. For a deleted account no token can come after, so it is the call's own timestamp and the
leeway that clocks are given; because it is the call's, the same call coming again changes nothing.

The call carries the user id and nothing else. A body with anything more is refused, because what databases send by
themselves is the whole row, e-mail and password hash with it, and that must fail where the operator sees it.
``deploy/supabase/account_deleted.sql`` sends the right one.
"""

import json
import time
import uuid
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request, Response
from pydantic import BaseModel, ConfigDict, ValidationError

from nanoswap.queue.account import Accounts
from nanoswap.queue.room import WaitingRoom
from nanoswap.queue.session import LEEWAY_SECONDS, Session
from nanoswap.serve.problems import NO_STORE, Problem
from nanoswap.serve.settings import Settings
from nanoswap.serve.webhook import WebhookKey, WebhookRefused

HOOK_PATH = "/v1/hooks/account-deleted"


class AccountDeleted(BaseModel):
    """The body of the call: the id under which Supabase knew the person (the ``sub`` of their tokens)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: uuid.UUID


def install(
    app: FastAPI,
    settings: Settings,
    room: WaitingRoom,
    signed: Callable[[str], Coroutine[Any, Any, Session]],
    clock: Callable[[], float] = time.time,
) -> None:
    """Serve ``DELETE /v1/account``, and ``HOOK_PATH`` where its secret is set. ``signed``: the dependency that says
    who asks. ``clock``: seconds since the epoch."""
    Signed = Annotated[Session, Depends(signed)]

    @app.delete("/v1/account", status_code=204, tags=["account"])
    async def erase_account(who: Signed) -> Response:
        """Remove what is kept of you here: places in line, running swaps, keys. What you owe the line stays until it is
        worked off. Sign in again to go on, a second later. Your account at the sign-in service is not deleted by
        this."""
        await room.erase(who.account, max(int(clock()), who.issued_at), forgive=False)
        return Response(status_code=204, headers=NO_STORE)

    key = settings.public.webhook
    if key is None:
        return
    accounts = Accounts(settings.secret)

    @app.post(HOOK_PATH, include_in_schema=False)
    async def account_deleted(request: Request) -> Response:
        body = await request.body()  # of a few kilobytes at most: BodyLimit
        moment = _checked(key, request, body, clock)
        try:
            deleted = AccountDeleted.model_validate(json.loads(body))
        except (ValueError, ValidationError, RecursionError):
            raise Problem("bad_request", "The body must be the id of the account and nothing else.") from None
        await room.erase(accounts.of(str(deleted.id)), moment + LEEWAY_SECONDS, forgive=True)
        return Response(status_code=204, headers=NO_STORE)


def _checked(key: WebhookKey, request: Request, body: bytes, clock: Callable[[], float]) -> int:
    try:
        return key.check(request.headers, body, clock)
    except WebhookRefused:
        raise Problem("call_untrusted") from None
