"""Commands beside the driver."""
