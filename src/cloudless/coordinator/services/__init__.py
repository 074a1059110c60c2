"""The API's handlers: decode and check, call the state, encode; no decisions.

``service.CoordinatorService`` is what the server gets; each RPC lives in a module of its
own name. Handlers read the watch cache and write single transactions; they never call
the control loop, and reach nodes only for logs and exec.
"""
