"""Distillation: the teacher's logits and the loss that uses them."""
