"""A pretend cluster: the commands of Slurm or PBS on PATH, over processes of this machine."""

from fanfold.testing.cluster.cluster import Cluster

__all__ = ["Cluster"]
