"""An MPI program of which one rank dies: the others wait for it."""

from mpi4py import MPI

comm = MPI.COMM_WORLD
if comm.rank == 1:
    raise ValueError("rank 1 cannot go on")
comm.gather(comm.rank)
