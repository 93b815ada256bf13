"""The document's torchao Llama: an int8 cache, masks, and weight-only quantisation by torchao."""
