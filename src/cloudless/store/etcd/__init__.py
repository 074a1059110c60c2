"""The store that several coordinators share: etcd's v3 API over our own channels.

``connection`` finds an endpoint that answers, ``codec`` turns values into messages and
back, ``watch`` is a watch that survives its connections, ``client`` is the store. Imported
only when a URL asks for etcd: gRPC is heavy.
"""
