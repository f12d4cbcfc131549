"""LXD system containers as OpenStack Compute servers.

This module imports nothing: ``nova-lxd.pth`` loads it at every interpreter start.
"""
