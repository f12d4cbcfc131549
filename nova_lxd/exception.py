"""The driver's errors.

::

    LXDDriverError
    ├── ConfigurationError      an option of ours is wrong: the service must not start
    ├── LXDUnreachable          no answer from LXD; says nothing about what exists
    │   └── LXDPermissionDenied     the socket is there but not for us
    ├── LXDError                LXD answered, and the answer was no
    │   ├── NotFound
    │   ├── AlreadyExists
    │   ├── Busy                    another operation holds the instance; a retry may work
    │   ├── DiskFull                a disk has no room for what LXD would write to it
    │   └── PreconditionFailed      the object changed since its ETag was read
    ├── DeadlineExceeded        we stopped waiting; what was awaited may still happen
    ├── NotRunning              the server is off or frozen, and the request needs it running
    ├── GuestCannot             the guest lacks what the request needs of it
    ├── IdRangeExhausted        no free uid/gid range is left on this host
    ├── VifPlugFailed           a port could not be wired to this host
    └── Refused                 the request itself cannot be served on any host
        ├── FlavorRefused
        │   └── DiskTooSmall        the flavor's root disk is smaller than the image
        ├── ImageRefused
        └── VifRefused

``session.py`` turns what pylxd and requests raise into these; ``driver.py`` turns these into
``nova.exception``.  Nothing in between catches foreign errors.
"""


class LXDDriverError(Exception):
    """Base of all our errors.  The message is for a person and names the way out."""


class ConfigurationError(LXDDriverError):
    """An option is wrong; the message names the option, its value and the remedy."""


class LXDUnreachable(LXDDriverError):
    """LXD could not be asked.  Never to be read as "not found"."""


class LXDPermissionDenied(LXDUnreachable):
    """The LXD socket exists but this user may not use it."""


class LXDError(LXDDriverError):
    """LXD refused a request or an operation failed; the message is LXD's own."""


class NotFound(LXDError):
    """The named object does not exist in our LXD project."""


class AlreadyExists(LXDError):
    """An object of that name exists already."""


class InUse(LXDError):
    """Instances have the profile that was to be deleted."""


class Busy(LXDError):
    """Another operation is running on the instance."""


class DiskFull(LXDError):
    """A disk has no room for what LXD would write to it."""


class PreconditionFailed(LXDError):
    """The ETag sent no longer matches: somebody else changed the object."""


class DeadlineExceeded(LXDDriverError):
    """A bounded wait ran out; the message says what was awaited and for how long."""


class NotRunning(LXDDriverError):
    """The server does not run."""


class GuestCannot(LXDDriverError):
    """The guest has no such command; the message says which."""


class IdRangeExhausted(LXDDriverError):
    """Every isolated uid/gid range of this host is taken."""


class VifPlugFailed(LXDDriverError):
    """Plugging a port failed on the host, or Neutron reported that it did."""


class Refused(LXDDriverError):
    """The request cannot be served here or on any other host as it stands."""


class FlavorRefused(Refused):
    """A flavor value or extra spec cannot be honoured; the message names the key."""


class DiskTooSmall(FlavorRefused):
    """The image needs more room than the flavor's root disk has.

    :ivar flavor_bytes: size of the flavor's root disk
    :ivar image_bytes: room the unpacked image needs
    """

    def __init__(self, flavor_bytes: int, image_bytes: int) -> None:
        super().__init__(
            f"the unpacked image needs {image_bytes} bytes but the flavor's root disk has "
            f"{flavor_bytes}: choose a flavor with a larger disk"
        )
        self.flavor_bytes = flavor_bytes
        self.image_bytes = image_bytes


class ImageRefused(Refused):
    """The image cannot become a container; the message says why and what to do instead.

    :ivar image_id: Glance id of the image
    """

    def __init__(self, image_id: str, reason: str) -> None:
        super().__init__(f"image {image_id}: {reason}")
        self.image_id = image_id
        self.reason = reason


class VifRefused(Refused):
    """The port's binding is of a kind this driver cannot wire to a container."""
