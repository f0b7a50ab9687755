"""Tokenization: text to token ids, by Hugging Face's `tokenizers`."""
