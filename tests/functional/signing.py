"""Signed images: certificates and signatures as a real authority makes them.

There is no Barbican here, so a key manager keeps certificates in memory.  It is the only double
beside Glance: Nova, cursive and castellan do what they do in a cloud.
"""

from __future__ import annotations

import base64
import datetime
import uuid
from collections.abc import Iterator
from typing import ClassVar

from castellan.common import exception
from castellan.common.objects import x_509
from castellan.key_manager import key_manager
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.x509.oid import NameOID
from nova.image import glance

from tests.functional.glance import GlanceFixture

_DAY = datetime.timedelta(days=1)


class KeyManager(key_manager.KeyManager):
    """Keeps certificates in its class: castellan makes a key manager for every call."""

    certificates: ClassVar[dict[str, bytes]] = {}

    def __init__(self, configuration=None):
        super().__init__(configuration)

    def get(self, context, managed_object_id, metadata_only=False):
        """Return a certificate to whoever is known to Keystone."""
        if not (context and context.project_id):
            raise exception.Forbidden()
        try:
            return x_509.X509(self.certificates[managed_object_id])
        except KeyError:
            raise exception.ManagedObjectNotFoundError(managed_object_id) from None

    def _unused(self, *args, **kwargs):
        raise NotImplementedError

    create_key = create_key_pair = store = delete = list = _unused
    add_consumer = remove_consumer = _unused


class Signer:
    """A key with its certificate, which the key manager has."""

    def __init__(self, name: str, issuer: Signer | None = None, *, days: int = 1) -> None:
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        certificate = self._certificate(issuer or self, days)
        self.id = str(uuid.uuid4())
        KeyManager.certificates[self.id] = certificate.public_bytes(serialization.Encoding.DER)

    def _certificate(self, issuer: Signer, days: int) -> x509.Certificate:
        """Say who the key belongs to, until some days from now; an authority signs others' keys."""
        now = datetime.datetime.now(datetime.UTC)
        usage = dict.fromkeys(
            ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement"), False
        )
        usage |= dict.fromkeys(("crl_sign", "encipher_only", "decipher_only"), False)
        builder = (
            x509.CertificateBuilder()
            .subject_name(self._name)
            .issuer_name(issuer._name)
            .public_key(self._key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - 9 * _DAY)
            .not_valid_after(now + days * _DAY)
            .add_extension(x509.BasicConstraints(ca=issuer is self, path_length=None), True)
            .add_extension(
                x509.KeyUsage(digital_signature=True, key_cert_sign=issuer is self, **usage), True
            )
        )
        return builder.sign(issuer._key, hashes.SHA256())

    def properties(self, content: bytes) -> dict[str, str]:
        """Return what Glance is told of an image that is signed."""
        pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.MAX_LENGTH)
        signature = self._key.sign(content, pss, hashes.SHA256())
        return {
            "img_signature": base64.b64encode(signature).decode(),
            "img_signature_hash_method": "SHA-256",
            "img_signature_key_type": "RSA-PSS",
            "img_signature_certificate_uuid": self.id,
        }


class VerifyingGlanceFixture(GlanceFixture):
    """Gives images to Nova's own client code, which verifies them; the other one passes it over."""

    def download(self, context, image_id, data=None, dst_path=None, trusted_certs=None):
        """Download as Nova does in a cloud."""
        service = glance.GlanceImageServiceV2(client=self)
        service.show = self.show
        return service.download(context, image_id, data, dst_path, trusted_certs)

    def call(self, context, version, method, args=()):
        """Answer like Glance's client, of which Nova asks for an image's data alone."""
        assert method == "data"
        return _Chunks(self._imagedata[args[0]])


class _Chunks:
    """An image in pieces, as Glance's client gives it out."""

    def __init__(self, content: bytes) -> None:
        self.wrapped = content

    def __iter__(self) -> Iterator[bytes]:
        return (self.wrapped[at : at + 65536] for at in range(0, len(self.wrapped), 65536))
