"""The products with a weight in a graph: how they store it, and which are an adapter's modules.

How a weight is stored, and the file that reads it:

- a float initializer, or one behind nodes that change its form (Transpose, Cast, DequantizeLinear): ``form.py``
- integers of MatMulInteger, behind DynamicQuantizeLinear: ``integer.py``
- blocks of MatMulNBits: ``nbits.py``
- rows of a table (Gather): ``embeddings.py``

``products.py`` makes one `Product` of the first three.
"""
