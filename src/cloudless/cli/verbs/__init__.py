"""One module per verb: ``arguments(parser)`` says what it takes, ``run(context)`` does it.

A module's docstring is the description that ``--help`` and docs/cli.md show. Modules are
imported one at a time, so each imports the heavy parts (manifests, the domain) where it
uses them.
"""
