"""Tasks: everything in which one kind of label differs from another."""
