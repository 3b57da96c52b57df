"""Signed calls: the specification's own example, and everything that must not pass for one."""

import pytest

from nanoswap.serve.webhook import TOLERANCE_SECONDS, WebhookKey, WebhookRefused

#: Example of the Standard Webhooks specification.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
BODY = b'{"test": 2432232314}'
AT = 1614265330
HEADERS = {
    "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
    "webhook-timestamp": str(AT),
    "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
}
KEY = WebhookKey.parse(SECRET)


@pytest.mark.parametrize("prefix", ["", "v1,"], ids=["standard", "as Supabase writes it"])
def test_example_of_the_specification_passes(prefix: str) -> None:
    assert WebhookKey.parse(prefix + SECRET).check(HEADERS, BODY, lambda: AT) == AT


@pytest.mark.parametrize("clock", [AT - TOLERANCE_SECONDS, AT + TOLERANCE_SECONDS])
def test_clocks_may_differ_by_five_minutes(clock: int) -> None:
    assert KEY.check(HEADERS, BODY, lambda: clock) == AT


def test_one_good_signature_among_others_is_enough() -> None:
    """A sender that changes its secret signs with both."""
    signatures = f"v1,AAAA v2,{HEADERS['webhook-signature'][3:]} {HEADERS['webhook-signature']}"
    assert KEY.check(HEADERS | {"webhook-signature": signatures}, BODY, lambda: AT) == AT


@pytest.mark.parametrize(
    ("changes", "body", "clock"),
    [
        ({}, BODY, AT + TOLERANCE_SECONDS + 1),
        ({}, BODY, AT - TOLERANCE_SECONDS - 1),
        ({}, BODY + b" ", AT),
        ({"webhook-id": "msg_another"}, BODY, AT),
        ({"webhook-timestamp": str(AT + 1)}, BODY, AT),
        ({"webhook-timestamp": f"0{AT}"}, BODY, AT),
        ({"webhook-timestamp": "soon"}, BODY, AT),
        ({"webhook-timestamp": "\u0661"}, BODY, AT),
        ({"webhook-timestamp": "9" * 5000}, BODY, AT),
        ({"webhook-signature": ""}, BODY, AT),
        ({"webhook-signature": HEADERS["webhook-signature"].replace("v1,", "v2,")}, BODY, AT),
        ({"webhook-signature": HEADERS["webhook-signature"].swapcase()}, BODY, AT),
        ({"webhook-signature": "v1,\xff"}, BODY, AT),
        ({"webhook-signature": "v1,A " * 9 + HEADERS["webhook-signature"]}, BODY, AT),
    ],
)
def test_everything_else_is_refused(changes: dict[str, str], body: bytes, clock: int) -> None:
    with pytest.raises(WebhookRefused):
        KEY.check(HEADERS | changes, body, lambda: clock)


@pytest.mark.parametrize("missing", HEADERS)
def test_no_header_may_be_missing(missing: str) -> None:
    with pytest.raises(WebhookRefused):
        KEY.check({name: value for name, value in HEADERS.items() if name != missing}, BODY, lambda: AT)


def test_another_secret_signs_otherwise() -> None:
    other = WebhookKey(bytes(32))
    with pytest.raises(WebhookRefused):
        other.check(HEADERS, BODY, lambda: AT)


@pytest.mark.parametrize("text", ["", "secret", "whsec_", "whsec_!!!!", "whsec_c2hvcnQ=", "v1,c2hvcnQ="])
def test_secret_of_another_form_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="a secret"):
        WebhookKey.parse(text)


def test_secret_is_not_printed() -> None:
    assert repr(KEY.secret)[2:10] not in repr(KEY)
    assert "secret" not in repr(KEY)
