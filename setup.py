"""What pyproject.toml cannot state: `configs/` is installed as `jaxsplat_mouse.configs`."""

from setuptools import find_packages, setup

setup(
  packages=[
    *find_packages(include=["jaxsplat_mouse", "jaxsplat_mouse.*"]),
    "jaxsplat_mouse.configs",
  ],
  package_dir={"jaxsplat_mouse.configs": "configs"},
)
