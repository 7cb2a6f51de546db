"""What engines need on this machine, and a program that stands for Java."""

from pipelines.engines.choose import choose_engine


def check(*words):
    choose_engine(words).check()


def write_java(folder, version):
    """A program that answers as Java of a version does, to be found as java."""
    (folder / "bin").mkdir(exist_ok=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2025-04-15' >&2\n")
    java.chmod(0o755)
