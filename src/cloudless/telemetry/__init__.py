"""How the program tells what it does: structured logs, metrics, and the health pages.

Roles set it up in their ``main``. Nothing here knows workloads or nodes: callers give
names, numbers and the functions that answer.
"""
