"""Training runs of our own that are shipped with the package, as files that `scaling_sim.read_runs` takes.

There are none yet: runs of other people's repositories are never copied in here.
"""
