"""How the command line shows logs: as text, as JSON, or just the bytes, in big blocks.

``verbs.logs`` asks and hands batches to a renderer of this room, whose blocks ``writing``
brings out. Nothing here asks a coordinator.
"""
