"""The driver: Nova's words come in at the top, LXD's words go out at the bottom."""
