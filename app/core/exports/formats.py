"""What an export job makes: its spec's `format`."""

from __future__ import annotations

GGUF = "gguf"  # a file for llama.cpp and Ollama
HUB = "hub"  # no file: an upload to the Hugging Face hub
