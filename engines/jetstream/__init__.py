"""The slot engine of jetstream-pytorch, rebuilt in JAX: one program for TPU, GPU and CPU.

`prefill` runs one prompt, `insert` gives its keys and values to a slot of the batch, `generate`
makes one token for all slots. The layers are a Python loop with one donated cache buffer each: a
scan over stacked layers would hold the cache twice.

Letters of the shapes, here and in all files: B slots, T prompt tokens, C cache length, E hidden
size, H query heads, K key/value heads, G = H / K, D head_dim, N parts of a head of P numbers each
(N * P = D), I inner size of the MLP, V vocabulary. `engines.jetstream.sharding` reads the same
letters.
"""
