"""Sphinx settings of the release notes."""

project = "nova-lxd release notes"
author = "nova-lxd contributors"
copyright = "nova-lxd contributors"
extensions = ["openstackdocstheme", "reno.sphinxext"]
html_theme = "openstackdocs"
openstackdocs_repo_name = "nova-lxd"
openstackdocs_auto_name = False
openstackdocs_auto_version = False
master_doc = "index"
