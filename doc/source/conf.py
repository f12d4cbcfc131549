"""Sphinx settings."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))

project = "nova-lxd"
author = "nova-lxd contributors"
copyright = "nova-lxd contributors"
extensions = [
    "openstackdocstheme",
    "oslo_config.sphinxext",
    "sphinx_feature_classification.support_matrix",
]
html_theme = "openstackdocs"
openstackdocs_repo_name = "nova-lxd"
openstackdocs_auto_name = False
openstackdocs_auto_version = False
master_doc = "index"
exclude_patterns = ["_build"]
nitpicky = True
