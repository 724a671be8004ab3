"""The ``trimtab`` command. Data goes to stdout, everything else to stderr.

``root`` puts the commands together; ``api`` speaks to a server; ``failure`` holds the exit codes; ``table`` and ``output``
print; ``documents`` reads policies from files. Nothing heavy is imported before a command needs it: ``trimtab --help`` must
feel like nothing. ``run`` works with the thin SDK alone, so it does not even import click.
"""
