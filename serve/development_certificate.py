"""A certificate for one run on one machine: it signs results so that the whole path can be tried, and nobody trusts it.

C2PA takes no certificate that signed itself, so there is a small authority too, whose key is forgotten at once. Both
say in their subject what they are. For the public a certificate of the C2PA trust list is needed: docs/provenance.md.
"""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

ORGANISATION = "Nanoswap development, not to be trusted"
DAYS = 30


def development_certificate(now: datetime) -> tuple[bytes, bytes]:
    """A chain of two certificates and the key of the first, both PEM, valid from `now` for ``DAYS``."""
    authority, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    issuer = _name("Nanoswap development authority")
    root = _certificate(issuer, issuer, authority.public_key(), authority, now, authority=True)
    leaf = _certificate(_name("Nanoswap development certificate"), issuer, key.public_key(), authority, now)
    chain = leaf.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM)
    return chain, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def write_development_certificate(folder: Path) -> tuple[Path, Path]:
    """Make one in `folder`, readable by the owner only; the paths of chain and key."""
    # A minute earlier, for a reader whose clock is behind.
    parts = development_certificate(datetime.now(UTC) - timedelta(minutes=1))
    paths = folder / "c2pa-development-chain.pem", folder / "c2pa-development-key.pem"
    for path, data in zip(paths, parts, strict=True):
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
    return paths


def _name(common: str) -> x509.Name:
    words = {NameOID.ORGANIZATION_NAME: ORGANISATION, NameOID.COMMON_NAME: common}
    return x509.Name([x509.NameAttribute(kind, text) for kind, text in words.items()])


def _certificate(
    subject: x509.Name,
    issuer: x509.Name,
    public: ec.EllipticCurvePublicKey,
    signing: ec.EllipticCurvePrivateKey,
    now: datetime,
    *,
    authority: bool = False,
) -> x509.Certificate:
    """What the C2PA certificate profile asks for, of a signer or of who issues one."""
    usage = x509.KeyUsage(
        digital_signature=not authority, content_commitment=False, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=authority, crl_sign=authority, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=DAYS))
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signing.public_key()), critical=False)
    )
    if not authority:
        uses = x509.ExtendedKeyUsage([ExtendedKeyUsageOID.EMAIL_PROTECTION])
        builder = builder.add_extension(uses, critical=False)
    return builder.sign(signing, SHA256())
