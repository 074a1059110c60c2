"""Programs that people run in replicas of this node, with input and output both ways.

``service`` is the door for ``AgentService``, ``session`` the life of one program.
"""
