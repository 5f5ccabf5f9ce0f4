"""List the packages: the metadata is in pyproject.toml, and a new folder needs no edit here."""

from setuptools import find_namespace_packages, setup

FOLDERS = ("tokenizers", "datamodules")

packages = find_namespace_packages(include=["multimodal", "multimodal.*"])
for folder in FOLDERS:
    packages += [f"multimodal.{name}" for name in find_namespace_packages(include=[folder, f"{folder}.*"])]

setup(
    packages=packages,
    package_dir={f"multimodal.{folder}": folder for folder in FOLDERS},
)
