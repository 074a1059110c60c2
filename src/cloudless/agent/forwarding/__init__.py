"""Connections of people to ports of replicas: ``Forwarder`` carries one in each call.

``dialler`` makes the connection inside the replica's network, ``forwarder`` finds the
replica, counts, and carries bytes both ways.
"""
