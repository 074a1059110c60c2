"""The parts of ``benchmarks/run.py``: what is measured, on what, and how it is told.

``machine`` knows the machine, ``results`` the table; ``floor``, ``ours`` and ``swarm`` are
the three that are compared; ``api_figures``, ``container_figures``, ``process_figures`` and
``log_figures`` measure. Nothing of the program itself is here.
"""
