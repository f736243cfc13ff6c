"""The LLM behind the method: one protocol (`base`), one module per engine."""
