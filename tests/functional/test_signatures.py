"""Signed images, through Nova's API: what is not signed as was asked for never reaches LXD."""

from __future__ import annotations

import gzip
import uuid
from pathlib import Path

import nova.conf

from tests.functional import signing
from tests.functional.test_failures import FailureTestCase
from tests.functional.test_rebuild import RebuildTestCase

CONF = nova.conf.CONF


class SignatureTestCase(FailureTestCase):
    glance_fixture = signing.VerifyingGlanceFixture

    def _start_nova(self):
        super()._start_nova()
        self.flags(backend=f"{signing.__name__}.KeyManager", group="key_manager")
        self.expect_log(r"\[nova\.image\.glance\]", r"\[cursive")
        self.authority = signing.Signer("authority")
        self.signer = signing.Signer("builder", self.authority)

    def signed(self, signer: signing.Signer, **changes: str) -> str:
        """Upload an image that boots, with a signature."""
        content = self._images.busybox
        return self.image(content, properties={**signer.properties(content), **changes})

    def tampered(self) -> str:
        """Upload an image that was changed after it was signed."""
        image = self.signed(self.signer)
        self.glance._imagedata[image] += gzip.compress(b"")
        return image

    def request_trusting(self, image: str, *signers: signing.Signer) -> dict:
        """Ask for a server of an image that one of these must have vouched for."""
        certificates = [signer.id for signer in signers]
        return self.request_server(
            image=image, networks="none", trusted_image_certificates=certificates
        )

    def assert_nothing_left(self, server: dict, *words: str) -> None:
        """Check that the tenant reads why, that one host was tried, and that nothing is left."""
        self.assert_refused(server, *words)
        assert self.lxd_names("images") == []
        assert list(Path(CONF.instances_path).glob("*")) == []


class TrustedCertificatesTest(SignatureTestCase):
    def test_signed_by_whom_the_server_trusts(self):
        server = self.request_trusting(self.signed(self.signer), self.authority)
        server = self.wait_status(server, "ACTIVE")
        assert server["trusted_image_certificates"] == [self.authority.id]
        assert self.lxd_instance(server)["status"] == "Running"

    def test_signed_by_somebody_else(self):
        stranger = signing.Signer("stranger", signing.Signer("other authority"))
        server = self.request_trusting(self.signed(stranger), self.authority)
        self.assert_nothing_left(server, "certificate validation failed", stranger.id)

    def test_changed_after_it_was_signed(self):
        server = self.request_trusting(self.tampered(), self.authority)
        self.assert_nothing_left(server, "not what was signed")

    def test_signed_with_another_key_than_the_certificate_s(self):
        forger = signing.Signer("forger", self.authority)
        image = self.signed(forger, img_signature_certificate_uuid=self.signer.id)
        server = self.request_trusting(image, self.authority)
        self.assert_nothing_left(server, "not what was signed")

    def test_an_image_that_the_host_has_already(self):
        stranger = signing.Signer("stranger", signing.Signer("other authority"))
        image = self.signed(stranger)
        self.boot(image=image, networks="none")
        fault = self.wait_status(self.request_trusting(image, self.authority), "ERROR")["fault"]
        assert "certificate validation failed" in fault["message"]
        tampered = self.tampered()
        self.boot(image=tampered, networks="none")
        fault = self.wait_status(self.request_trusting(tampered, self.authority), "ERROR")["fault"]
        assert "not what was signed" in fault["message"]

    def test_signed_in_the_name_of_an_authority(self):
        forger = signing.Signer("builder", signing.Signer("authority"))
        server = self.request_trusting(self.signed(forger), self.authority)
        self.assert_nothing_left(server, "certificate validation failed", forger.id)

    def test_signed_with_a_certificate_that_has_expired(self):
        late = signing.Signer("late", self.authority, days=-1)
        server = self.request_trusting(self.signed(late), self.authority)
        self.assert_nothing_left(server, "certificate validation failed", late.id)

    def test_signed_with_a_certificate_that_nobody_has(self):
        gone = str(uuid.uuid4())
        image = self.signed(self.signer, img_signature_certificate_uuid=gone)
        server = self.request_trusting(image, self.authority)
        self.assert_nothing_left(server, "Certificate not found", gone)

    def test_not_signed_at_all(self):
        server = self.request_trusting(self.busybox_image(), self.authority)
        self.assert_nothing_left(server, "signature verification", "do not exist")


class RebuildTest(SignatureTestCase, RebuildTestCase):
    def test_with_an_image_of_somebody_else(self):
        self.expect_log(r"\[oslo_messaging\.rpc\.server\] Exception during")
        server = self.request_trusting(self.signed(self.signer), self.authority)
        server = self.wait_status(server, "ACTIVE")
        self.mark(server)
        stranger = signing.Signer("stranger", signing.Signer("other authority"))
        fault = self.rebuild(server, self.signed(stranger), "ERROR")["fault"]
        assert "certificate validation failed" in fault["message"]
        assert len(self.lxd_names("images")) == 1
        self.act(server, {"reboot": {"type": "HARD"}}, "ACTIVE")
        self.heal(server)
        assert self.has_mark(server)


class OperatorsCertificatesTest(SignatureTestCase):
    def _start_nova(self):
        super()._start_nova()
        self.flags(
            verify_glance_signatures=True,
            enable_certificate_validation=True,
            default_trusted_certificate_ids=[self.authority.id],
            group="glance",
        )

    def test_signed_by_whom_the_operator_trusts(self):
        server = self.boot(image=self.signed(self.signer), networks="none")
        assert server["trusted_image_certificates"] == [self.authority.id]

    def test_not_signed_at_all(self):
        server = self.request_server(networks="none")
        self.assert_nothing_left(server, "signature verification", "do not exist")
