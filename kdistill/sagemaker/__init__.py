"""The distillation as a managed job of Amazon SageMaker, and the same job in a directory tree on this machine."""
