"""The verbs about rollouts, a file each: ``cloudless rollout VERB NAME``.

``cli.catalog`` lists them; ``cli.steering`` is what those that change something share.
"""
