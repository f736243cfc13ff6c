"""Writing what is missing: `two_step` is the paper's method, `methods` the rows of its tables behind one interface."""
