"""Who signs for a result, and what is signed: a C2PA manifest that says what made the picture or clip, and no more.

The manifest names Nanoswap, the engine and their version, what kind of thing the result is (IPTC's digital source
type), and a hash of the result, which ties it there. It has no ingredient, thumbnail, title, place, account, ticket or
time: what can be read in it is true of every result of that engine. Two random numbers in it (its own name and the
instance's, which C2PA demands) are kept nowhere.

c2pa-rs, the library of the Coalition itself, writes and signs. It is asked by a function of its C interface that its
Python classes do not offer (`c2pa_builder_sign_embeddable`): there it takes hashes instead of the media, reads no file
and asks no network.
"""

from __future__ import annotations

import ctypes
import json
from datetime import UTC, datetime
from itertools import pairwise
from typing import Any, Final

from c2pa import Builder, C2paError, C2paSignerInfo, Context, Settings
from c2pa import Signer as LibrarySigner
from c2pa import c2pa as library
from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from cryptography.x509.oid import ExtendedKeyUsageOID

from nanoswap import __version__
from nanoswap.pipelines.binding import Binding
from nanoswap.pipelines.errors import NotMarked

_TYPES: Final = "http://cv.iptc.org/newscodes/digitalsourcetype/"
#: Parts of the result come from a trained model, in a picture that doesn't.
TRAINED: Final = _TYPES + "compositeWithTrainedAlgorithmicMedia"
#: Made of several elements, "any of which may or may not be generative AI": true of the engines that paint without a
#: trained model, whose elements are what a person uploaded, and may be anything.
CLASSICAL: Final = _TYPES + "composite"
#: Engines that paint without a trained model. Whatever is not known to be one of them is called trained.
_CLASSICAL_ENGINES: Final = frozenset({"mesh"})
_SETTINGS: Final = {
    "builder": {"thumbnail": {"enabled": False}},
    "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
}
_CURVES: Final = {"secp256r1": b"es256", "secp384r1": b"es384", "secp521r1": b"es512"}

_sign: Any = library._lib.c2pa_builder_sign_embeddable
_sign.argtypes = [
    ctypes.POINTER(library.C2paBuilder),
    ctypes.c_char_p,
    ctypes.POINTER(ctypes.POINTER(ctypes.c_ubyte)),
]
_sign.restype = ctypes.c_int64


class CredentialError(ValueError):
    """A certificate or key that can't sign results; the message is one line and says why."""


def source_type(engine: str) -> str:
    """The IPTC digital source type of what the engine of this name makes."""
    return CLASSICAL if engine in _CLASSICAL_ENGINES else TRAINED


class Signer:
    """Signs manifests with one certificate. Thread safe. until: when the first certificate of the chain ends, UTC."""

    def __init__(self, chain: bytes, key: bytes) -> None:
        """chain: PEM, the signer's own certificate first, then who issued it, and so on; key: its private key, PEM
        without a password. Raises `CredentialError` for what doesn't belong together, is over, or C2PA doesn't take."""
        algorithm, self.until = _judged(chain, key)
        try:
            signer = LibrarySigner.from_info(C2paSignerInfo(algorithm, chain, key, None))
            self._context = Context(Settings.from_dict(_SETTINGS), signer)
            self._sign("image/jpeg", _manifest("image/jpeg", "none", Binding("c2pa.hash.data", _NOTHING)))
        except C2paError as error:
            raise CredentialError(f"C2PA doesn't take the certificate: {str(error).splitlines()[0]}") from None

    def check(self) -> None:
        """Raises `NotMarked` when the certificate has ended: better before a swap than after it."""
        if datetime.now(UTC) >= self.until:
            raise NotMarked

    def sign(self, form: str, media_type: str, engine: str, binding: Binding) -> bytes:
        """The signed manifest for a result of `media_type` by the engine of this name, tied to it by `binding`.

        form: in what the manifest is wrapped: `image/jpeg` for APP11 segments, `image/png` for a caBX chunk,
        `video/mp4` for a uuid box, `application/c2pa` for none. Raises `NotMarked`.
        """
        self.check()
        try:
            return self._sign(form, _manifest(media_type, engine, binding))
        except C2paError:
            raise NotMarked from None

    def _sign(self, form: str, manifest: str) -> bytes:
        with Builder(manifest, self._context) as builder:
            made = ctypes.POINTER(ctypes.c_ubyte)()
            length = _sign(builder._handle, form.encode(), ctypes.byref(made))
            if length < 0:
                raise C2paError(library._read_native_error() or "no reason given")
            try:
                return ctypes.string_at(made, length)
            finally:
                library._lib.c2pa_free(made)


_NOTHING: Final = {
    "exclusions": [{"start": 0, "length": 1}], "alg": "sha256", "hash": [0] * 32, "name": "jumbf manifest", "pad": [],
}  # fmt: skip


def _manifest(media_type: str, engine: str, binding: Binding) -> str:
    action = {
        "action": "c2pa.created",
        "softwareAgent": {"name": f"Nanoswap {engine}", "version": __version__},
        "digitalSourceType": source_type(engine),
        "description": "Faces were replaced with another person's.",
    }
    return json.dumps(
        {
            "claim_generator_info": [{"name": "Nanoswap", "version": __version__}],
            "format": media_type,
            "assertions": [
                {"label": "c2pa.actions.v2", "data": {"actions": [action]}, "created": True},
                {"label": binding.label, "data": binding.data, "kind": "Cbor"},
            ],
        }
    )


def _judged(chain: bytes, key: bytes) -> tuple[bytes, datetime]:
    """C2PA's name of the signature algorithm, and when the certificate ends."""
    try:
        certificates = x509.load_pem_x509_certificates(chain)
    except ValueError:
        raise CredentialError("the certificate is not PEM") from None
    try:
        private = load_pem_private_key(key, None)
    except (ValueError, TypeError):
        raise CredentialError("the key is not PEM, or has a password") from None
    leaf = certificates[0]
    if _spki(leaf.public_key()) != _spki(private.public_key()):
        raise CredentialError("the key is not the certificate's own")
    now = datetime.now(UTC)
    for one in certificates:
        if not one.not_valid_before_utc <= now < one.not_valid_after_utc:
            over = "ended" if now >= one.not_valid_after_utc else "not begun"
            raise CredentialError(f"a certificate of the chain has {over}")
    if len(certificates) < 2:
        raise CredentialError("the chain is missing: put the issuer's certificate behind the signer's own")
    for one, issuer in pairwise(certificates):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            raise CredentialError("the chain is broken: each certificate must be issued by the next one") from None
    try:
        uses = leaf.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    except x509.ExtensionNotFound:
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.ANY_EXTENDED_KEY_USAGE])
    if ExtendedKeyUsageOID.SERVER_AUTH in uses:
        raise CredentialError("the certificate is a web server's: C2PA needs one for signing")
    return _algorithm(private), leaf.not_valid_after_utc


def _algorithm(private: object) -> bytes:
    if isinstance(private, ec.EllipticCurvePrivateKey) and private.curve.name in _CURVES:
        return _CURVES[private.curve.name]
    if isinstance(private, rsa.RSAPrivateKey):
        return b"ps256"
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return b"ed25519"
    raise CredentialError("the key is of a kind that C2PA doesn't know: P-256, P-384, P-521, RSA or Ed25519")


def _spki(public: Any) -> bytes:
    encoded: bytes = public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded
