"""The one-node cloud: a real OpenStack with LXD containers on one machine, by one command."""
