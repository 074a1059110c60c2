"""The coordinator's facts: where they are kept, and the cache that they are read from.

``keys`` is the layout of the store on one page, ``codec`` turns models into bytes,
``typed`` writes, ``cache`` follows the store and holds the ``Cluster`` that everybody
reads. Nothing here decides anything.
"""
