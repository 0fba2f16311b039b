"""Plant faults in the package and see whether the tests notice: `make mutate`."""
