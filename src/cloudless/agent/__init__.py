"""The role that runs replicas on one node: journal, runtime, network, logs, probes."""
