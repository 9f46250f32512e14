"""The area under 0.7x³ - 2x² + 4 from 0 to 3: plain mpi4py.

mpiexec -n 2 python examples/learn/e11_area_plain.py 10
"""

import sys

from mpi4py import MPI

comm = MPI.COMM_WORLD
bars = int(sys.argv[1])
width = 3 / bars
share = 0.0
for bar in range(comm.rank, bars, comm.size):  # rank, rank + size, rank + 2 size ...: none is lost
    x = bar * width
    share += width * (0.7 * x**3 - 2 * x**2 + 4)
area = comm.reduce(share, MPI.SUM)  # to rank 0; the others get None
if comm.rank == 0:
    print(f"area = {area:.8f}")
