"""How objects are written: tables, JSON, YAML, names, single values.

``kinds`` knows what each kind of object shows, ``plain`` turns messages into plain values,
``formats`` picks one of the formats of ``-o``. Nothing here talks to a coordinator.
"""
