"""`gengap.compare`: the one function that joins training, measuring and reporting."""
