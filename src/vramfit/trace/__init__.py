"""A GPU that is not there: what a program would allocate on it, without owning one."""
