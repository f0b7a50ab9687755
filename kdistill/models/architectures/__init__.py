"""The architectures that kdistill computes, one file each: a table of names."""
