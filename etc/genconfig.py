"""Writes etc/nova-compute.conf.sample: the header by hand, [lxd] by oslo-config-generator.

oslo-config-generator comments every line out, but a compute node needs a few that are set.
"""

from __future__ import annotations

import io
import pathlib

from oslo_config import cfg, generator

ETC = pathlib.Path(__file__).resolve().parent
SAMPLE = ETC / "nova-compute.conf.sample"


def lxd_section() -> str:
    """Return the generated text of ``[lxd]``, without the empty ``[DEFAULT]`` before it."""
    conf = cfg.ConfigOpts()
    generator.register_cli_opts(conf)
    conf(["--config-file", str(ETC / "nova-compute-config-generator.conf")])
    out = io.StringIO()
    generator.generate(conf, out)
    text = out.getvalue()
    return text[text.index("[lxd]") :].rstrip() + "\n"


def sample() -> str:
    """Return what etc/nova-compute.conf.sample should hold."""
    header = (ETC / "nova-compute.conf.header").read_text()
    return f"{header}\n{lxd_section()}"


if __name__ == "__main__":
    SAMPLE.write_text(sample())
