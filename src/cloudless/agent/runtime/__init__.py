"""The container runtime as the agent sees it.

``port`` says what is asked of it, ``containerd`` does it with a real containerd,
``memory`` pretends to; one contract suite tests both. Nothing here decides what runs.
"""
