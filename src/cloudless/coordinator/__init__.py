"""The coordinator: keeps what users asked for, plans, tells nodes, and answers the API.

``main.coordinator`` puts the parts together. ``state`` keeps facts in the store and in a
watch cache, ``control`` plans and writes, ``services`` answer clients, ``links`` speak
with nodes. Services and control meet only in the store; neither speaks with agents about
desired state, which goes from the store to the link of each node.
"""
