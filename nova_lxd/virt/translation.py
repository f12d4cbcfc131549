"""Our errors in Nova's words: the one place where they are turned into each other."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

from nova import exception as nova_exception

from nova_lxd import exception

Method = TypeVar("Method", bound=Callable[..., Any])
Translation = Callable[[Any, Any], Exception]


def _with_message(kind: Callable[..., Exception]) -> Translation:
    return lambda error, instance: kind(str(error))


def _with_reason(kind: Callable[..., Exception]) -> Translation:
    return lambda error, instance: kind(reason=str(error))


NOVA_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    exception.ConfigurationError: _with_message(nova_exception.InvalidConfiguration),
    exception.LXDUnreachable: _with_message(nova_exception.HypervisorUnavailable),
    exception.NotFound: lambda error, instance: nova_exception.InstanceNotFound(
        f"LXD has no such container of server {getattr(instance, 'uuid', 'unknown')}: {error}",
        instance_id=getattr(instance, "uuid", "unknown"),
    ),
    exception.AlreadyExists: lambda error, instance: nova_exception.InstanceExists(
        name=getattr(instance, "name", "unknown")
    ),
    exception.NotRunning: lambda error, instance: nova_exception.InstanceNotReady(
        instance_id=getattr(instance, "uuid", "unknown")
    ),
    exception.GuestCannot: _with_message(nova_exception.SetAdminPasswdNotSupported),
    exception.IdRangeExhausted: _with_reason(nova_exception.ComputeResourcesUnavailable),
    exception.VifPlugFailed: _with_message(nova_exception.VirtualInterfacePlugException),
    exception.VifRefused: _with_message(nova_exception.VirtualInterfacePlugException),
    exception.DiskTooSmall: lambda error, instance: nova_exception.FlavorDiskSmallerThanImage(
        flavor_size=error.flavor_bytes, image_size=error.image_bytes
    ),
    exception.ImageRefused: lambda error, instance: nova_exception.ImageUnacceptable(
        image_id=error.image_id, reason=error.reason
    ),
    exception.Refused: _with_reason(nova_exception.InvalidInput),
    exception.LXDDriverError: _with_message(nova_exception.NovaException),
}
"""Our errors in Nova's words; the nearest ancestor in an error's family counts."""


def _abort(error: Any, instance: Any) -> Exception:
    abort: Exception = nova_exception.BuildAbortException(
        instance_uuid=instance.uuid, reason=str(error)
    )
    return abort


SPAWN_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    # Nova takes InstanceNotFound out of spawn for a server that was deleted meanwhile.
    exception.NotFound: _with_message(nova_exception.NovaException),
    # Nova keeps the reason of VirtualInterfaceCreateException from the tenant.
    exception.VifPlugFailed: _abort,
    exception.VifRefused: _abort,
    # Something may be left here that nobody would remove once the server ran on another host; and
    # the tenant is to read why, not that every host was tried.
    exception.LXDUnreachable: _abort,
    exception.DeadlineExceeded: _abort,
}
"""What differs in spawn; an abort is an error that no other host is asked about."""

PASSWORD_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    exception.Refused: _with_message(nova_exception.SetAdminPasswdNotSupported),
    exception.LXDError: _with_message(nova_exception.SetAdminPasswdNotSupported),
}
"""What differs for passwords: Nova keeps the reason of any other error from the tenant, for fear
that it holds the password; ours never does."""

RESCUE_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    exception.Refused: lambda error, instance: nova_exception.InstanceNotRescuable(
        instance_id=instance.uuid, reason=str(error)
    ),
}
"""What differs in rescue: what cannot be served is told as libvirt's driver tells it."""


SNAPSHOT_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    # Nova takes it for a server that was deleted meanwhile, and removes the image.
    exception.NotFound: lambda error, instance: nova_exception.InstanceNotRunning(
        instance_id=instance.uuid
    ),
}
"""What differs in a snapshot."""


def _rollback(error: Any, instance: Any) -> Exception:
    resize_error = nova_exception.ResizeError(reason=str(error))
    rollback: Exception = nova_exception.InstanceFaultRollback(resize_error)
    return rollback


RESIZE_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    exception.Refused: _rollback,
    exception.VifRefused: _rollback,
}
"""What differs before a resize: the server goes on as it was, and the tenant reads why."""


def _attach_failed(error: Any, instance: Any) -> Exception:
    failed: Exception = nova_exception.InterfaceAttachFailed(
        f"The interface was not attached to server {instance.uuid}: {error}"
    )
    return failed


def _detach_failed(error: Any, instance: Any) -> Exception:
    failed: Exception = nova_exception.InterfaceDetachFailed(
        f"The interface was not detached from server {instance.uuid}: {error}"
    )
    return failed


ATTACH_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    exception.LXDDriverError: _attach_failed,
    exception.VifPlugFailed: _attach_failed,
    exception.VifRefused: _attach_failed,
    exception.LXDUnreachable: _attach_failed,
}
DETACH_ERRORS: dict[type[exception.LXDDriverError], Translation] = {
    exception.LXDDriverError: _detach_failed,
    exception.VifPlugFailed: _detach_failed,
    exception.LXDUnreachable: _detach_failed,
}
"""What differs for interfaces.  Nova logs the reason, and tells the tenant that it failed."""


def translated(
    special: dict[type[exception.LXDDriverError], Translation] | None = None,
) -> Callable[[Method], Method]:
    """Let a driver method raise Nova's errors where the layers below raise ours."""
    table = NOVA_ERRORS | (special or {})

    def decorate(method: Method) -> Method:
        signature = inspect.signature(method)

        @functools.wraps(method)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            try:
                return method(*args, **kwargs)
            except exception.LXDDriverError as error:
                instance = signature.bind(*args, **kwargs).arguments.get("instance")
                kind = next(kind for kind in type(error).__mro__ if kind in table)
                raise table[kind](error, instance) from error

        # Nova compares getfullargspec, which does not follow __wrapped__.
        wrapper.__signature__ = signature  # type: ignore[attr-defined]
        return wrapper  # type: ignore[return-value]

    return decorate
