"""The guest images that the one-node cloud builds itself, and the command that uploads them."""


class ImageError(Exception):
    """An image could not be built or uploaded; the message says what to do."""
