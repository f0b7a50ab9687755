"""Text to token ids, through Hugging Face's `tokenizers`."""
