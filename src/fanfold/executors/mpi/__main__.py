"""What a launcher starts, by its path, with the folder that fanfold is in as its argument."""

import sys

sys.path.append(sys.argv[1])

from fanfold.executors.mpi.rank import main

main()
