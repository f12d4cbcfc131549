"""What the driver takes for granted of LXD, tested on the fake here and on a real one in
``tests/functional/test_lxd_contract.py``."""
