"""A native asyncio client of containerd's gRPC API: it knows containers, not Cloudless.

The agent's runtime calls it. ``client`` is the door; ``oci`` builds what a container
shall be; ``daemon`` runs a containerd of our own. Nothing here decides what should
run, and nothing here imports the domain.
"""
