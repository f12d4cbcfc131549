"""The guest images that the one-node cloud builds itself, and the command that uploads them."""
