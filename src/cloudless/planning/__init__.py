"""Every decision of the system, as pure functions from a snapshot to a plan.

Nothing here waits, reads a clock, draws a random number, logs, or changes what it was
given: the coordinator and the agent pass facts and the time in, and act on what comes
back. Planning again on the outcome of a plan gives an empty plan, so a crash between
any two plans costs nothing but time.
"""
