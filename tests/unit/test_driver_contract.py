"""Nova's contract: its signatures, and its own generic suite for drivers."""

from __future__ import annotations

import fixtures
import pytest
from nova import test
from nova.virt import driver, fake
from oslo_utils import importutils

from nova_lxd.virt.session import Session
from nova_lxd.virt.session.commands import Outcome
from tests.fake_lxd import FakeLXD

from .driver_suite import NOT_OFFERED, DriverSuite
from .pytest_friendly import PytestFriendly

pytestmark = pytest.mark.filterwarnings("default")


class SignatureTest(PytestFriendly, test.NoDBTestCase):
    def test_signatures_are_novas(self):
        virtapi = fake.FakeVirtAPI()
        ours = importutils.import_object("nova.virt.lxd.LXDDriver", virtapi)
        self.assertPublicAPISignatures(driver.ComputeDriver(virtapi), ours)

    def test_nova_finds_the_driver(self):
        self.flags(compute_driver="lxd.LXDDriver")
        loaded = driver.load_compute_driver(fake.FakeVirtAPI())
        assert type(loaded).__name__ == "LXDDriver"

    def test_what_is_offered(self):
        missing = {name for name in NOT_OFFERED if not hasattr(DriverSuite, name)}
        assert set() == missing, "no such tests in Nova's suite"

    def test_capabilities_promise_nothing_that_is_missing(self):
        ours = importutils.import_class("nova.virt.lxd.LXDDriver")
        for method, capabilities in {
            "attach_interface": ["supports_attach_interface"],
            "attach_volume": ["supports_extend_volume", "supports_multiattach"],
            "rescue": ["supports_bfv_rescue"],
            "migrate_disk_and_power_off": ["supports_migrate_to_same_host"],
            "rebuild": ["supports_evacuate"],
            "manage_image_cache": ["has_imagecache"],
        }.items():
            if getattr(ours, method) is getattr(driver.ComputeDriver, method):
                for capability in capabilities:
                    assert not ours.capabilities.get(capability), capability
        assert set() == set(ours.capabilities) - set(driver.ComputeDriver.capabilities)


class DriverOnFakeTest(DriverSuite, test.TestCase):
    REQUIRES_LOCKING = True

    def start_lxd(self):
        folder = self.useFixture(fixtures.TempDir()).path
        self.lxd = self.enterContext(FakeLXD(folder))
        # The fake speaks no websockets; commands run on the real LXD in tests/functional.
        ended = fixtures.MockPatchObject(Session, "run", return_value=Outcome(0, ""))
        self.useFixture(ended)
        return str(self.lxd.socket), "nova"
