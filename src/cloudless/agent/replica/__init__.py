"""The life of one replica on its node, a step at a time.

``life.Replica`` is what the node runs, one supervised task for each replica; the other
files are its steps. All decisions about restarts and probes come from ``planning``.
"""
