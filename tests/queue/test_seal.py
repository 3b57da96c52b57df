"""A sealed ticket proves the old place and can't be changed."""

import base64
import json
from dataclasses import replace

import pytest

from nanoswap.queue.seal import MAX_LENGTH, Seal, SealError
from nanoswap.queue.ticket import Kind, State, Ticket

TICKET = Ticket(
    id="t_x",
    account="a" * 64,
    kind=Kind.IMAGE,
    state=State.RUNNING,
    estimate=0.5,
    debt=5.0,
    score=1_800_000_000_000,
    joined=1_800_000_000_500,
    bytes=1000,
    width=10,
    height=20,
    frames=1,
    consent="likeness-3",
    attempts=2,
    grant="secret-nonce",
)


def test_unsealed_ticket_is_the_same_place_without_the_grant() -> None:
    token = Seal(b"s" * 32).seal(TICKET)
    assert Seal(b"s" * 32).unseal(token) == replace(TICKET, state=State.WAITING, grant=None)
    assert "secret-nonce" not in base64.urlsafe_b64decode(token.split(".")[1] + "==").decode()


def test_every_change_is_noticed() -> None:
    seal = Seal(b"s" * 32)
    token = seal.seal(TICKET)
    for index in range(len(token)):
        other = "A" if token[index] != "A" else "B"
        changed = token[:index] + other + token[index + 1 :]
        try:
            assert seal.unseal(changed) == seal.unseal(token), index
        except SealError:
            continue


def test_better_place_can_not_be_forged() -> None:
    seal = Seal(b"s" * 32)
    version, payload, signature = seal.seal(TICKET).split(".")
    fields = json.loads(base64.urlsafe_b64decode(payload + "=="))
    fields["score"] = 0
    forged = base64.urlsafe_b64encode(json.dumps(fields).encode()).rstrip(b"=").decode()
    with pytest.raises(SealError):
        seal.unseal(f"{version}.{forged}.{signature}")


@pytest.mark.parametrize("token", ["", ".", "..", "n1..", "n1.e30.", "n2.e30.AA", "é.é.é", "x" * (MAX_LENGTH + 1)])
def test_garbage_is_refused(token: str) -> None:
    with pytest.raises(SealError):
        Seal(b"s" * 32).unseal(token)


def test_another_secret_is_another_seal() -> None:
    with pytest.raises(SealError):
        Seal(b"t" * 32).unseal(Seal(b"s" * 32).seal(TICKET))
