"""What makes the cluster as it should be: one leader, one loop, one transaction per plan.

``leadership`` says who may write, ``loop`` asks the planners, ``rollouts`` carries each
rollout in a task of its own, ``apply`` turns a plan into fenced transactions, ``retention``
forgets what is old. Decisions are made in ``planning``; nothing here talks to nodes or clients.
"""
