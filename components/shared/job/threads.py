"""How the threads of a process that computes on a CPU wait for each other."""

SPINS = "2000"
"""How often a thread looks for the others before it sleeps (GOMP_SPINCOUNT of GNU's OpenMP, which
torch computes with). Its own 300,000 are some ten milliseconds, in which a thread holds a core that
another one of them waits for where other work is on the machine; 2,000 are about as long as waking
a thread takes. OMP_WAIT_POLICY=PASSIVE, no looking at all, costs small models a sixth on an idle
machine (benchmarks/busy_neighbour.py)."""
