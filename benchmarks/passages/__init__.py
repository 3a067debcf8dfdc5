"""Does the passage a text comes from teach SmolLM2 the rest of it? Retrieval by influence."""
