"""Nova's API accepts the ``lxd:*`` extra specs that the driver honours, and no others."""

from __future__ import annotations

import pytest
from nova import exception as nova_exception
from nova.api.validation.extra_specs import validators

from nova_lxd import extra_specs
from nova_lxd.exception import FlavorRefused
from nova_lxd.virt import flavor as translator
from tests.unit.values import flavor_with, host


@pytest.fixture
def api(monkeypatch):
    """Nova's own validation with our entry point loaded, installed or not."""
    ours = {validator.name: validator for validator in extra_specs.register()}
    monkeypatch.setattr(validators, "VALIDATORS", validators.VALIDATORS | ours)
    monkeypatch.setattr(validators, "NAMESPACES", validators.NAMESPACES | {"lxd"})
    return validators.validate


def test_every_key_of_the_driver_has_a_validator_that_says_what_it_does():
    found = {validator.name: validator.description for validator in extra_specs.register()}
    assert found == {spec.name: spec.description for spec in translator.LXD_SPECS}
    assert all(found.values())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lxd:privileged_allowed", "False"),
        ("lxd:nested_allowed", "yes"),
        ("lxd:isolated", "true"),
        ("lxd:process_limit", "4194304"),
    ],
)
def test_api_and_driver_accept(api, key, value):
    api(key, value)
    translator.profile_config(flavor_with({key: value}), host())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("lxd:privileged_allowed", "maybe"),
        ("lxd:nested_allowed", ""),
        ("lxd:process_limit", "many"),
        ("lxd:process_limit", "-1"),
        ("lxd:process_limit", "4194305"),
        ("lxd:privileged", "true"),
        ("lxd:raw_lxc", "lxc.rootfs.path=/"),
    ],
)
def test_api_and_driver_refuse(api, key, value):
    with pytest.raises(nova_exception.ValidationError):
        api(key, value)
    with pytest.raises(FlavorRefused):
        translator.profile_config(flavor_with({key: value}), host())


def test_other_namespaces_stay_as_they_were(api):
    api("quota:cpu_shares", "10")
    api("foo:bar", "anything")
