"""Package map and the optional compiled extensions; everything else is in pyproject.toml.

The fused operators are compiled when torch and a C++ compiler are visible to the build, which needs
``pip install --no-build-isolation``. Otherwise the package installs as pure Python and ``vitlite doctor`` says so.
"""

from setuptools import find_namespace_packages, setup

# Top-level folders that install under the package, so that no plain `kernels`, `cli` or `bench` lands in site-packages.
ROOMS = {"vitlite.kernels": "kernels", "vitlite.cli": "cli", "vitlite.bench": "bench"}


def package_map():
    packages = ["vitlite", *(f"vitlite.{p}" for p in find_namespace_packages("vitlite") if "__pycache__" not in p)]
    for name, folder in ROOMS.items():
        packages.append(name)
        packages += [f"{name}.{p}" for p in find_namespace_packages(folder, exclude=["results*", "__pycache__*"])]
    return packages


setup(
    packages=package_map(),
    package_dir={"vitlite": "vitlite", **ROOMS},
)
