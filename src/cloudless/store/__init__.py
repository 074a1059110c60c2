"""Keys, bytes and their history behind one port; three implementations of it.

``port`` says what a store can do, ``errors`` what can go wrong, ``url.open_store``
opens one of ``memory``, ``embedded`` (SQLite) and ``etcd``. ``election`` makes one of
many processes the leader and fences its writes. The coordinator's state room is the
only caller; nothing here knows what is stored.
"""
