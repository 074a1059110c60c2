"""Logs of the replicas of one node: captured, kept in rotated files, read and followed.

A logger process per container writes the files and needs nobody else alive; readers
hold a position and nothing more. ``store.LogStore`` is the entrance.
"""
