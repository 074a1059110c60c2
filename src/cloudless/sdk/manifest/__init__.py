"""Manifests: workloads as files, read strictly and written shortly.

``files`` finds and reads files, ``located`` turns YAML 1.2 or JSON into values with
positions, ``reading`` into workloads, ``writing`` goes the other way, ``schema`` is the
JSON Schema of it all. Errors name file, line and column. Nothing here connects anywhere.
"""
